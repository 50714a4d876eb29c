"""The network against the slow float64 one of tests/oracle.py, and against its own parts."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nsr_jax.errors import UserError
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.models.residual import RestorationNetwork
from tests import oracle

PLAIN = {'scale': 2, 'channels': 3, 'num_blocks': 2, 'features': 6}
SPARSE = PLAIN | {'features': 8, 'groups': 3, 'cardinality': 4}
ARCHITECTURES = {
    'plain': PLAIN,
    'plain wide x3': PLAIN | {'scale': 3, 'width_multiplier': 4},
    'plain gray': PLAIN | {'scale': 1, 'channels': 1},
    'sparse': SPARSE,
    'sparse wide x3': SPARSE | {'scale': 3, 'num_blocks': 1, 'width_multiplier': 2, 'cardinality': 2},
    'sparse gray': SPARSE | {'scale': 1, 'channels': 1, 'num_blocks': 1, 'cardinality': 8},
    'sigmoid': SPARSE | {'num_blocks': 1, 'gate': 'sigmoid'},
    'uniform': SPARSE | {'num_blocks': 1, 'gate': 'uniform'},
    'hard': SPARSE | {'num_blocks': 1, 'gate': 'hard'},
}


def random_network(architecture, batch=2, height=7, width=9):
    """A network, parameters that are all away from their initial zeros and ones, and a batch of images."""
    network = RestorationNetwork(**architecture)
    generator = np.random.RandomState(0)
    x = generator.rand(batch, height, width, architecture['channels']).astype(np.float32)
    parameters = jax.tree.map(
        lambda leaf: generator.normal(0.0, 0.5, leaf.shape).astype(np.float32), parameter_shapes(network)
    )
    return network, parameters, x


@pytest.mark.parametrize('name', ARCHITECTURES)
def test_forward_equals_the_oracle(name):
    architecture = ARCHITECTURES[name]
    network, parameters, x = random_network(architecture)
    out = jax.jit(network.apply)({'params': parameters}, x)
    expected = oracle.forward(parameters, x, scale=network.scale, gate=architecture.get('gate', 'softmax'))
    assert out.dtype == jnp.float32
    assert out.shape == expected.shape
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize('name', ['sparse', 'sparse gray'])
def test_parts_make_the_whole(name):
    network, parameters, x = random_network(ARCHITECTURES[name])
    variables = {'params': parameters}
    body, skip = (jax.jit(functools.partial(network.apply, method=part))(variables, x) for part in ('body', 'skip'))
    assert body.shape == skip.shape == (*x.shape[:3], network.scale**2 * network.channels)
    assembled = network.apply(variables, body + skip, method='assemble')
    whole = jax.jit(network.apply)(variables, x)
    np.testing.assert_allclose(assembled, whole, rtol=0, atol=1e-6 * np.abs(whole).max())


@pytest.mark.parametrize('name', ['plain wide x3', 'sparse', 'sparse gray', 'hard'])
def test_what_is_beside_an_image_changes_nothing(name):
    """One array for images of several sizes: each is restored as by itself, also by a gate that pools over it."""
    architecture = ARCHITECTURES[name]
    network, parameters, x = random_network(architecture, batch=3, height=10, width=12)
    extents = [(7, 9), (1, 12), (10, 3)]
    together = jax.jit(network.apply)({'params': parameters}, x, jnp.array(extents, jnp.int32))
    for image, restored, (height, width) in zip(x, together, extents, strict=True):
        given, gate = image[None, :height, :width], architecture.get('gate', 'softmax')
        (alone,) = oracle.forward(parameters, given, scale=network.scale, gate=gate)
        kept = restored[: network.scale * height, : network.scale * width]
        np.testing.assert_allclose(kept, alone, rtol=0, atol=1e-5 * max(1, np.abs(alone).max()))


def test_without_extents_nothing_is_computed_for_them():
    """The function that training uses contains no mask."""
    network, parameters, x = random_network(SPARSE)
    assert 'bool[2,7,9' not in str(jax.make_jaxpr(network.apply)({'params': parameters}, x))
    extents = jnp.full((2, 2), 7, jnp.int32)
    assert 'bool[2,7,9' in str(jax.make_jaxpr(network.apply)({'params': parameters}, x, extents))


def test_remat_changes_no_number():
    network, parameters, x = random_network(ARCHITECTURES['sparse'])
    remat = network.clone(remat=True)
    assert jax.tree.map(jnp.shape, parameter_shapes(remat)) == jax.tree.map(jnp.shape, parameter_shapes(network))

    def loss(network, parameters):
        out, seen = network.apply({'params': parameters}, x, mutable='intermediates')
        return jnp.mean(jnp.abs(out)), seen

    results = [jax.jit(jax.grad(functools.partial(loss, each), has_aux=True))(parameters) for each in (network, remat)]
    assert results[0][1].keys() == {'intermediates'}  # also what the gates chose
    for right, ours in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(ours, right, rtol=0, atol=1e-6 * np.abs(right).max())


def test_identity_skip_has_no_parameters():
    _, with_skip, _ = random_network(ARCHITECTURES['sparse'])
    network, without, x = random_network(ARCHITECTURES['sparse gray'])
    assert 'skip' in with_skip
    assert 'skip' not in without
    np.testing.assert_array_equal(network.apply({'params': without}, x, method='skip'), x - np.float32(0.5))


def test_initial_values():
    network = RestorationNetwork(**(SPARSE | {'num_blocks': 2}))
    # Any generator does, and this one compiles ten times faster than the default.
    parameters = jax.jit(network.init)(jax.random.key(1, impl='rbg'), jnp.zeros((1, 8, 8, 3)))['params']
    scales = {'head': 1.0, 'tail': 1.0, 'skip': 1.0}
    for name, scale in scales.items():
        np.testing.assert_array_equal(parameters[name]['scale'], scale)
    first, second = (parameters['block_01'][name] for name in ('conv_1', 'conv_2'))
    np.testing.assert_array_equal(first['scale'], 2.0)
    np.testing.assert_allclose(second['scale'], np.sqrt(0.5), rtol=1e-6)
    for layer in (parameters['head'], first, second):
        np.testing.assert_array_equal(layer['bias'], 0.0)
        assert_uniform(layer['direction'], 1 / np.sqrt(np.prod(layer['direction'].shape[:3])))
    assert_uniform(jnp.concatenate([first['gate']['kernel'].ravel(), first['gate']['bias'].ravel()]), 1 / np.sqrt(8))


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'gate': 'top2'}, "unknown gate 'top2': one of softmax, sigmoid, gumbel, hard, uniform, se"),
        ({'gate': 'se'}, "gate 'se' needs groups 1, not 3"),
        ({'pruning': 'all'}, "unknown pruning 'all': one of '', random, magnitude"),
        ({'threshold': 'hard'}, "unknown threshold 'hard': one of relu, soft"),
        ({'groups': 1, 'cardinality': 1, 'pruning': 'random'}, "pruning 'random' needs groups > 1"),
    ],
)
def test_fields_that_do_not_fit(fields, message):
    with pytest.raises(UserError, match=re.escape(message)):
        RestorationNetwork(**SPARSE | fields)


def test_one_group_needs_no_second_field():
    network = RestorationNetwork(**(SPARSE | {'groups': 1}))
    assert network == RestorationNetwork(**(SPARSE | {'groups': 1, 'cardinality': 1}))


def test_which_networks_have_gates_and_which_draw_noise():
    cases = [
        (PLAIN, False, False),
        (PLAIN | {'gate': 'gumbel'}, False, False),
        (PLAIN | {'gate': 'se'}, True, False),
        (SPARSE, True, False),
        (SPARSE | {'pruning': 'magnitude'}, False, False),
        (SPARSE | {'gate': 'gumbel'}, True, True),
        (SPARSE | {'gate': 'gumbel', 'gate_noise': 0.0}, True, False),
        (SPARSE | {'gate': 'gumbel', 'pruning': 'random'}, False, False),
    ]
    for fields, is_gated, draws_noise in cases:
        network = RestorationNetwork(**fields)
        assert (network.is_gated, network.draws_noise) == (is_gated, draws_noise), fields


def assert_uniform(values, bound):
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.95 * bound
    assert np.abs(np.mean(values)) < 4 * bound / np.sqrt(3 * np.size(values))
    # The variance of the uniform distribution, within five standard deviations of its estimate.
    assert np.var(values) == pytest.approx(bound**2 / 3, rel=5 * np.sqrt(0.8 / np.size(values)))
