"""Statistics of gates, compared with gates that are called by hand on the middle of each image."""

import jax
import numpy as np
import pytest

from nsr_jax.errors import UserError
from nsr_jax.evaluation.gate_statistics import gate_statistics
from nsr_jax.models.build import build_network
from nsr_jax.nn.gates import Gate


@pytest.fixture(scope='module')
def images():
    random = np.random.default_rng(1)
    return [random.integers(0, 256, shape, np.uint8) for shape in ((13, 9, 3), (8, 12, 3), (9, 8, 3))]


def gammas_by_hand(network, params, image):
    x = np.float32(image)[None] / 255
    _, state = network.apply({'params': params}, x, capture_intermediates=lambda module, _: isinstance(module, Gate))
    return np.stack(
        [state['intermediates']['block_00'][f'conv_{conv}']['gate']['__call__'][0][0] for conv in (1, 2)]
    ).astype(np.float64)  # fmt: skip


def test_entropy_and_deviation(random_model, images):
    config, params = random_model('sr', 2, 3, gate='softmax')
    network = build_network(config.model)
    found = gate_statistics(network, params, images, 96)
    middles = [images[0][2:10, :8], images[1][:, 2:10], images[2][:8, :]]  # 8 pixels is the smallest side
    gammas = np.stack([gammas_by_hand(network, params, middle) for middle in middles])
    entropy = -(gammas * np.log2(gammas)).sum(axis=-2).mean()
    assert found['gates/entropy'] == pytest.approx(entropy, abs=1e-5)
    assert 0 < found['gates/entropy'] < 1
    assert found['gates/deviation'] == pytest.approx(gammas.std(axis=0).mean(), rel=1e-3)
    assert found['gates/deviation'] > 0


def test_uniform_gates_never_choose(random_model, images):
    config, params = random_model('sr', 2, 3, gate='uniform')
    found = gate_statistics(build_network(config.model), params, images, 4)
    assert found == {'gates/entropy': 1.0, 'gates/deviation': 0.0}


def test_no_images(random_model):
    config, params = random_model('sr', 2, 3)
    with pytest.raises(UserError, match='without images'):
        gate_statistics(build_network(config.model), jax.device_get(params), [], 4)
