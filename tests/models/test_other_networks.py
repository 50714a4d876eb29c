"""A network from outside the package: one class in `NETWORKS` that nothing else knows."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from nsr_jax.errors import UserError
from nsr_jax.inference.prediction import predict
from nsr_jax.inference.tiling import Tiling
from nsr_jax.models.build import NETWORKS, Network, build_network
from nsr_jax.models.cost import MultiAdds, count_multi_adds, count_parameters, parameter_shapes


class Hourglass(Network):
    """A strided convolution, a transposed one and a 1x1 convolution, with one number for the whole image."""

    width: int
    residual_scale: float = 1.0

    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.Conv(self.width, (3, 3), strides=2)(x))
        y = y * nn.sigmoid(nn.Dense(self.width)(y.mean(axis=(1, 2))))[:, None, None]
        y = nn.ConvTranspose(self.width, (2, 2), strides=(2, 2))(y)
        return x + self.residual_scale * nn.Conv(self.channels, (1, 1))(y)


class Normalised(Network):
    """It keeps running means beside its parameters."""

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True)(x)


MODEL = {'architecture': 'hourglass', 'scale': 1, 'channels': 3, 'width': 4}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(NETWORKS, 'hourglass', Hourglass)


def test_is_built_from_its_own_fields():
    assert build_network(ConfigDict(MODEL)) == Hourglass(1, 3, 4)
    assert build_network(ConfigDict(MODEL | {'residual_scale': 0.1})).residual_scale == 0.1


@pytest.mark.parametrize(
    ('changes', 'options', 'message'),
    [
        ({'architecture': 'tree'}, {}, r"config\.model\.architecture 'tree': one of .*residual.*, hourglass, or"),
        ({'num_blocks': 3}, {}, "'num_blocks' is none of scale, channels, width, residual_scale$"),
        ({'width': 2.5}, {}, r'config\.model\.width must be a name or whole numbers up to 65536, not 2\.5$'),
        ({'residual_scale': float('nan')}, {}, r'config\.model\.residual_scale must be a number up to 65536, not nan$'),
        ({}, {'compute_dtype': 'bfloat16'}, "'bfloat16': architecture 'hourglass' computes in float32 alone$"),
        ({}, {'remat': True}, "'hourglass' does not have$"),
    ],
)
def test_mistakes(changes, options, message):
    with pytest.raises(UserError, match=message):
        build_network(ConfigDict(MODEL | changes), **options)


def test_missing_fields():
    with pytest.raises(UserError, match=r'does not describe a network: channels, width missing$'):
        build_network(ConfigDict({'architecture': 'hourglass', 'scale': 1}))


def test_costs_what_its_layers_do():
    network = build_network(ConfigDict(MODEL))
    assert count_parameters(network) == (9 * 3 * 4 + 4) + (4 * 4 + 4) + (4 * 4 * 4 + 4) + (4 * 3 + 3)
    pixels = 20 * 30
    convolutions = pixels // 4 * 9 * 3 * 4 + pixels * 4 * 4 + pixels * 4 * 3
    assert count_multi_adds(network, (20, 30)) == MultiAdds(convolutions, once=4 * 4)


def test_state_beside_the_parameters_is_refused():
    with pytest.raises(UserError, match='Normalised keeps batch_stats: a network may only keep params'):
        parameter_shapes(Normalised(1, 3))


@pytest.mark.parametrize('tiling', ['whole', 'authors', 'feathered'])
@pytest.mark.usefixtures('lenient_promotion')
def test_predicts(tiling):
    network = build_network(ConfigDict(MODEL))
    random = np.random.RandomState(0)
    params = jax.tree.map(lambda leaf: random.normal(0, 0.3, leaf.shape).astype('f'), parameter_shapes(network))
    image = random.rand(194, 200, 3).astype('f')
    predicted = predict(network, params, image, tiling=Tiling(tiling))
    expected = np.asarray(jax.jit(network.apply)({'params': params}, jnp.asarray(image)[None])[0])
    assert predicted.shape == image.shape
    if tiling == 'feathered':  # a tile has a mean of its own, and begins at an odd pixel
        assert 0 < np.median(np.abs(predicted - expected)) < 0.01
    else:
        np.testing.assert_allclose(predicted, expected, rtol=0, atol=1e-5)
