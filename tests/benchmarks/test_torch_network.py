"""The PyTorch peers compute what we compute: they are timed for the same work."""

import jax
import numpy as np
import pytest

from benchmarks import sample_conv
from benchmarks.timing import take_turns
from benchmarks.train_step import GRADIENT, WHOLE, Training, preset_config
from nsr_jax.models.cost import count_parameters, parameter_shapes
from nsr_jax.models.residual import RestorationNetwork

torch = pytest.importorskip('torch', reason='PyTorch is not installed')
torch_network = pytest.importorskip('benchmarks.torch_network')
torch_peers = pytest.importorskip('benchmarks.torch_peers')

SPARSE = {'scale': 2, 'channels': 3, 'num_blocks': 2, 'features': 8, 'groups': 3, 'cardinality': 4}
WIDE = {'scale': 1, 'channels': 1, 'num_blocks': 1, 'features': 6, 'width_multiplier': 2, 'groups': 2, 'cardinality': 3}
PLAIN = {'scale': 3, 'channels': 3, 'num_blocks': 2, 'features': 5, 'width_multiplier': 3}


@pytest.mark.parametrize('fields', [SPARSE, WIDE, PLAIN], ids=['sparse', 'wide', 'plain'])
def test_network(fields):
    generator = np.random.default_rng(0)
    ours, theirs = RestorationNetwork(**fields), torch_network.RestorationNetwork(**fields)
    params = jax.tree.map(lambda leaf: generator.normal(0, 0.5, leaf.shape).astype(np.float32), parameter_shapes(ours))
    torch_network.copy_parameters(params, theirs)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == count_parameters(ours)
    images = generator.uniform(size=(3, 6, 7, fields['channels'])).astype(np.float32)
    outputs, transpose = jax.vjp(lambda params: ours.apply({'params': params}, images), params)
    weights = generator.normal(size=outputs.shape).astype(np.float32)
    (expected,) = transpose(weights)

    restored = theirs(torch.tensor(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(restored.detach(), outputs, rtol=0, atol=1e-4 * np.abs(outputs).max())
    (restored * torch.tensor(weights)).sum().backward()
    gradient = torch_network.gradient_tree(theirs)
    assert jax.tree.structure(gradient) == jax.tree.structure(expected)
    jax.tree.map(
        lambda actual, right: np.testing.assert_allclose(actual, right, rtol=0, atol=1e-4 * np.abs(right).max()),
        gradient,
        expected,
    )


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_convolutions_pass_the_check_and_wrong_ones_do_not(monkeypatch, dtype):
    def measure():
        candidates = sample_conv.candidates((2, 5, 6, 4, 2, 2), dtype, 2, torch_peers.variants(['eager']))
        return take_turns([each for each in candidates if each.name.startswith('PyTorch')], 1)

    measurements = measure()
    assert [each.candidate.name for each in measurements[::2]] == ['PyTorch eager NCHW', 'PyTorch eager channels_last']
    assert not any(each.failure for each in measurements)
    right = torch_peers.sparse_conv
    monkeypatch.setattr(torch_peers, 'sparse_conv', lambda x, bank, bias, gamma: right(x, bank, bias, gamma.flip(0)))
    assert all('output by' in each.failure for each in measure())


def test_steps_start_from_our_weights_and_a_wrong_one_is_found_out():
    sizes = {'scale': 2, 'num_blocks': 1, 'batch_size': 2, 'patch_size': 4}
    training = Training('resnet_nsr_efficient', preset_config('resnet_nsr_efficient', **sizes), 'float32')

    def measure():
        variants = torch_peers.variants(['eager'])
        return take_turns(torch_peers.training_candidates(training, 2, variants, (WHOLE, GRADIENT)), 1)

    measurements = measure()
    assert len(measurements) == 4
    assert all(each.error < 1e-4 and not each.failure for each in measurements)
    # The oracle is computed once, from the weights of before.
    training.initial = training.initial.replace(params=jax.tree.map(lambda leaf: 1.1 * leaf, training.initial.params))
    assert all('loss by' in each.failure for each in measure())
