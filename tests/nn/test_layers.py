"""Weight-normalised and sparse convolution modules: what they compute and how they start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nsr_jax.nn import gates
from nsr_jax.nn.layers import (
    PrunedConv,
    SparseConv,
    WeightNormConv,
    fold_weight_norm,
    normalize_weights,
    squeeze_excitation_conv,
)
from nsr_jax.nn.pruning import PRUNINGS
from nsr_jax.ops.conv import sparse_conv
from nsr_jax.ops.extents import is_inside

SPARSE = {'features': 6, 'groups': 3, 'cardinality': 2}


def convolve(image, kernel):
    """(H, W, Cin) and (kh, kw, Cin, Cout) to (H, W, Cout), by XLA."""
    out = lax.conv(image.transpose(2, 0, 1)[None], kernel.transpose(3, 2, 0, 1), (1, 1), 'SAME')
    return np.asarray(out)[0].transpose(1, 2, 0)


def randomized(module, x):
    """Parameters of the module's shapes that are all away from their initial values."""
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0, impl='rbg'), x)['params']
    return jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes)


def random_input(channels=4):
    return np.random.default_rng(1).normal(size=(2, 5, 7, channels)).astype(np.float32)


def norms(direction):
    return np.sqrt(np.sum(direction.astype(np.float64) ** 2, axis=(0, 1, 2)))


@pytest.mark.parametrize('kernel_size', [3, 5])
def test_weight_norm_conv(kernel_size):
    x, module = random_input(), WeightNormConv(6, kernel_size)
    parameters = randomized(module, x)
    kernel = (parameters['scale'] * parameters['direction'] / norms(parameters['direction'])).astype(np.float32)
    expected = np.stack([convolve(image, kernel) for image in x]) + parameters['bias']
    out = module.apply({'params': parameters}, x)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)


def test_no_epsilon_in_the_norm():
    # 1e-8 squared is 1e-16: any usual epsilon would swallow it.
    kernel = normalize_weights(jnp.full((1, 1, 4, 2), 1e-8), jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(kernel[0, 0], np.tile([0.5, 1.5], (4, 1)), rtol=1e-6)


def mixed_outputs(parameters, x, normalize_first):
    """The sparse convolution sample by sample in NumPy, normalised before mixing, as it should be, or after."""
    direction, scale, bias = (parameters[name] for name in ('direction', 'scale', 'bias'))
    _, k, d = parameters['gate']['kernel'].shape
    logits = np.einsum('bc,ckd->bkd', x.mean((1, 2)), parameters['gate']['kernel']) + parameters['gate']['bias']
    gamma = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    out = []
    for image, weights in zip(x, gamma, strict=True):
        bank = scale * direction / norms(direction) if normalize_first else direction
        kernel = sum(weights[i, :, None] * bank[..., i, :, :] for i in range(k))
        if not normalize_first:
            kernel = kernel / norms(kernel) * sum(weights[i, :, None] * scale[i] for i in range(k))
        offset = sum(weights[i, :, None] * bias[i] for i in range(k))
        kernel = kernel.reshape(*kernel.shape[:3], -1).astype(np.float32)
        out.append(convolve(image, kernel) + offset.reshape(-1))
    assert d == SPARSE['cardinality']
    return np.stack(out)


def test_sparse_conv_normalizes_before_it_mixes():
    x, module = random_input(), SparseConv(**SPARSE)
    parameters = randomized(module, x)
    out = module.apply({'params': parameters}, x)
    np.testing.assert_allclose(out, mixed_outputs(parameters, x, normalize_first=True), rtol=0, atol=1e-5)
    assert np.abs(out - mixed_outputs(parameters, x, normalize_first=False)).max() > 0.1


@pytest.mark.parametrize('activation', [gates.softmax, gates.hard])
def test_a_stride_leaves_rows_and_columns_out(activation):
    """Also for hard gates, which read the chosen groups only with stride 1."""
    x, module = random_input(), SparseConv(**SPARSE, activation=activation)
    parameters = randomized(module, x)
    out = SparseConv(**SPARSE, activation=activation, stride=2).apply({'params': parameters}, x)
    np.testing.assert_allclose(out, module.apply({'params': parameters}, x)[:, ::2, ::2], rtol=0, atol=1e-5)


def test_pixels_beside_an_image_do_not_matter():
    x, module = random_input(), SparseConv(**SPARSE, stride=2, dilation=2)
    parameters = randomized(module, x)
    inside = is_inside(jnp.array([[3, 5], [5, 7]]), 5, 7)
    out = module.apply({'params': parameters}, x, inside)
    alone = module.apply({'params': parameters}, x[:1, :3, :5])
    np.testing.assert_allclose(out[:1, :2, :3], alone, rtol=0, atol=1e-5)


def test_channels_that_cannot_be_split_are_refused():
    with pytest.raises(ValueError, match='features must be a multiple of cardinality 2, not 7'):
        SparseConv(7, groups=3, cardinality=2).init(jax.random.key(0), random_input())


def test_hard_gate_is_one_group_for_each_sample_and_position():
    x, module = random_input(), SparseConv(**SPARSE, activation=gates.hard)
    parameters = randomized(module, x)
    out = np.asarray(module.apply({'params': parameters}, x))
    gate = parameters['gate']
    chosen = (np.einsum('bc,ckd->bkd', x.mean((1, 2)), gate['kernel']) + gate['bias']).argmax(1)
    assert len(np.unique(chosen)) > 1
    bank = parameters['scale'] * parameters['direction'] / norms(parameters['direction'])
    for image, groups, actual in zip(x, chosen, out, strict=True):
        parts = [
            convolve(image, bank[..., k, d, :].astype('f')) + parameters['bias'][k, d] for d, k in enumerate(groups)
        ]
        np.testing.assert_allclose(actual, np.concatenate(parts, axis=-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ('module', 'filters'),
    [
        (WeightNormConv(24, kernel_size=5, initial_scale=2.0), (24,)),
        (SparseConv(24, groups=2, cardinality=3, initial_scale=0.25), (2, 3, 8)),
    ],
    ids=['weight norm', 'sparse'],
)
def test_initial_parameters(module, filters):
    size, channels = module.kernel_size, 7
    parameters = module.init(jax.random.key(0, impl='rbg'), jnp.zeros((1, 1, 1, channels)))['params']
    direction = np.asarray(parameters['direction'])
    assert direction.shape == (size, size, channels, *filters)
    assert parameters['scale'].shape == parameters['bias'].shape == filters
    bound = 1 / np.sqrt(size * size * channels)
    assert np.abs(direction).max() <= bound
    assert direction.max() > 0.98 * bound
    assert direction.min() < -0.98 * bound
    assert np.var(direction) == pytest.approx(bound**2 / 3, rel=0.1)
    np.testing.assert_array_equal(parameters['bias'], 0)
    kernel = np.asarray(normalize_weights(parameters['direction'], parameters['scale']))
    np.testing.assert_allclose(norms(kernel), module.initial_scale, rtol=1e-5)


@pytest.mark.parametrize(
    'module',
    [
        WeightNormConv(6),
        SparseConv(**SPARSE),
        SparseConv(**SPARSE, activation=gates.hard),
        PrunedConv(6, 3, PRUNINGS['magnitude']),
    ],
    ids=['weight norm', 'sparse', 'hard', 'pruned'],
)
def test_kernels_that_were_normalised_before_give_the_same(module):
    x = random_input()
    parameters = randomized(module, x)
    folded = fold_weight_norm({'block': {'conv': parameters}})['block']['conv']
    assert set(folded) == {'kernel'} | (set(parameters) - {'direction', 'scale'})
    expected = parameters['scale'] * parameters['direction'] / norms(parameters['direction'])
    np.testing.assert_allclose(folded['kernel'], expected, rtol=1e-5)
    out = module.apply({'params': folded}, x)
    np.testing.assert_allclose(out, module.apply({'params': parameters}, x), rtol=0, atol=1e-5)


def test_parameters_without_weight_norm_are_left_alone():
    parameters = {'conv': {'kernel': 1, 'bias': 2}, 'norm': {'scale': 3}, 'flow': {'direction': 4}}
    assert fold_weight_norm(parameters) == parameters


@pytest.mark.parametrize('kind', [WeightNormConv, SparseConv])
def test_bfloat16_computes_from_float32_parameters(kind):
    fields = SPARSE if kind is SparseConv else {'features': 6}
    x, module = random_input(), kind(**fields, dtype=jnp.bfloat16)
    parameters = module.init(jax.random.key(0, impl='rbg'), x)['params']
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters)} == {jnp.dtype('float32')}
    out = module.apply({'params': parameters}, x)
    assert out.dtype == jnp.bfloat16
    exact = kind(**fields).apply({'params': parameters}, x)
    assert exact.dtype == jnp.float32
    difference = np.abs(out.astype(np.float32) - exact)
    assert 0 < difference.max() < 0.02 * np.abs(exact).max()


def test_a_hard_gate_learns_straight_through():
    x, module = random_input(), SparseConv(**SPARSE, activation=gates.hard)
    parameters = randomized(module, x)
    weights = np.random.default_rng(2).normal(size=(2, 5, 7, 6)).astype(np.float32)

    def by_definition(parameters, x):
        gate = gates.Gate(SPARSE['groups'], SPARSE['cardinality'], gates.hard)
        gamma = gate.apply({'params': parameters['gate']}, x)
        bank = normalize_weights(parameters['direction'], parameters['scale'])
        return sparse_conv(x, bank, parameters['bias'], gamma, implementation='vmap')

    ours, expected = (
        jax.jit(jax.grad(lambda *each, function=function: (function(*each) * weights).sum(), argnums=(0, 1)))(
            parameters, x
        )
        for function in (lambda parameters, x: module.apply({'params': parameters}, x), by_definition)
    )
    assert np.abs(expected[0]['gate']['kernel']).max() > 0.1
    for one, other in zip(*map(jax.tree.leaves, (ours, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


def test_squeeze_and_excitation_by_hand():
    x, module = random_input(), squeeze_excitation_conv(6)
    parameters = randomized(module, x)
    kernel = normalize_weights(parameters['direction'], parameters['scale']).reshape(3, 3, 4, 6)
    offset, gate = parameters['bias'].reshape(6), parameters['gate']
    squeezed = x.mean(axis=(1, 2))
    excited = 1 / (1 + np.exp(-(squeezed @ gate['kernel'].reshape(4, 6) + gate['bias'].reshape(6))))
    expected = [(convolve(image, kernel) + offset) * weight for image, weight in zip(x, excited, strict=True)]
    np.testing.assert_allclose(module.apply({'params': parameters}, x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('name', PRUNINGS)
def test_pruned_nodes_are_zero_for_every_input_and_are_not_trained(name):
    module = PrunedConv(6, 3, PRUNINGS[name])
    x = random_input()
    parameters = randomized(module, x)
    bank = normalize_weights(parameters['direction'], parameters['scale']).reshape(3, 3, 4, 18)
    # All k * Cout nodes for the first image; the output holds one of k at each channel, wherever the input comes from.
    nodes = np.stack([convolve(image, bank) + parameters['bias'].reshape(18) for image in x]).reshape(2, 5, 7, 3, 6)
    out = np.asarray(module.apply({'params': parameters}, x))
    errors = np.abs(nodes - out[:, :, :, None]).max(axis=(1, 2))  # (images, k, Cout)
    kept = errors.argmin(axis=1)
    np.testing.assert_array_equal(kept[0], kept[1])
    assert errors.min(axis=1).max() < 1e-5
    if name == 'magnitude':
        np.testing.assert_array_equal(kept[0], np.abs(bank).sum((0, 1, 2)).reshape(3, 6).argmax(axis=0))
    else:
        others = jax.tree.map(lambda leaf: leaf[..., ::-1, :, :] if leaf.ndim > 2 else leaf, parameters)
        turned = np.asarray(module.apply({'params': others}, x))
        np.testing.assert_allclose(turned[0], nodes[0][:, :, 2 - kept[0], np.arange(6)], rtol=0, atol=1e-5)
        assert len(set(kept[0])) > 1
    gradient = jax.jit(jax.grad(lambda each: (module.apply({'params': each}, x) ** 2).sum()))(parameters)
    for leaf in gradient.values():
        moved = np.abs(leaf).reshape(-1, 3, 6).max(axis=0) > 0
        np.testing.assert_array_equal(moved, np.arange(3)[:, None] == kept[0])


def test_each_layer_keeps_other_nodes_at_random():
    kernels = jnp.zeros((3, 3, 1, 4, 64))
    first, second = (PRUNINGS['random'](kernels, name) for name in ('block_00/conv_1', 'block_00/conv_2'))
    assert (first != second).any()
    assert set(np.unique(first)) == {0, 1, 2, 3}
