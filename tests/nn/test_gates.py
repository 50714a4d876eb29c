"""Gates against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nsr_jax.errors import UserError
from nsr_jax.nn import gates

GROUPS, CARDINALITY, CHANNELS = 3, 2, 5


def by_numpy(name, logits):
    """Each choice, one sample and one cardinal position at a time."""
    formulas = {
        'softmax': lambda v: np.exp(v) / np.exp(v).sum(),
        'sigmoid': lambda v: 1 / (1 + np.exp(-v)),
        'uniform': lambda v: np.full(len(v), 1 / len(v)),
        'hard': lambda v: np.array([float(index == np.argmax(v)) for index in range(len(v))]),
    }
    formulas |= {'gumbel': formulas['hard'], 'se': formulas['sigmoid']}  # without noise
    out = np.zeros(logits.shape)
    for sample in range(logits.shape[0]):
        for position in range(logits.shape[2]):
            out[sample, :, position] = formulas[name](logits[sample, :, position].astype(np.float64))
    return out


def random_gate(activation=gates.softmax):
    generator = np.random.default_rng(0)
    parameters = {
        'kernel': generator.normal(size=(CHANNELS, GROUPS, CARDINALITY)).astype(np.float32),
        'bias': generator.normal(size=(GROUPS, CARDINALITY)).astype(np.float32),
    }
    return gates.Gate(GROUPS, CARDINALITY, activation), parameters


def gamma_by_numpy(name, parameters, x):
    pooled = x.astype(np.float64).mean((1, 2))
    logits = np.einsum('bc,ckd->bkd', pooled, parameters['kernel'].astype(np.float64)) + parameters['bias']
    return by_numpy(name, logits)


@pytest.mark.parametrize('name', gates.GATES)
def test_formulas(name):
    logits = np.random.default_rng(1).normal(0, 3, (4, GROUPS, CARDINALITY)).astype(np.float32)
    out = gates.GATES[name](jnp.asarray(logits))
    np.testing.assert_allclose(out, by_numpy(name, logits), rtol=0, atol=1e-6)


def test_an_unknown_gate_lists_those_there_are(monkeypatch):
    monkeypatch.setitem(gates.GATES, 'of_a_user', gates.sigmoid)
    assert gates.find_gate('of_a_user') is gates.sigmoid
    with pytest.raises(UserError, match=r"unknown gate 'top2': one of softmax, .*, of_a_user"):
        gates.find_gate('top2')


def test_softmax_survives_large_logits():
    logits = jnp.full((1, GROUPS, CARDINALITY), 1e4).at[0, 1].set(2e4)
    np.testing.assert_array_equal(gates.softmax(logits)[0, :, 0], [0, 1, 0])


def test_hard_takes_one_group_even_of_equal_ones():
    np.testing.assert_array_equal(gates.hard(jnp.zeros((1, GROUPS, CARDINALITY)))[0], [[1, 1], [0, 0], [0, 0]])


@pytest.mark.parametrize('name', ['softmax', 'sigmoid', 'uniform', 'hard'])
def test_the_mean_of_the_input_decides(name):
    gate, parameters = random_gate(gates.GATES[name])
    x = np.random.default_rng(2).normal(0, 4, (4, 3, 5, CHANNELS)).astype(np.float32)
    out = gate.apply({'params': parameters}, x)
    np.testing.assert_allclose(out, gamma_by_numpy(name, parameters, x), rtol=0, atol=1e-6)


def test_bfloat16_input_is_pooled_in_float32():
    gate, parameters = random_gate()
    # Around one, bfloat16 steps by 1/128: a mean that is rounded to it is off by up to 0.004.
    x = jnp.asarray(1 + np.random.default_rng(3).random((2, 33, 31, CHANNELS)), jnp.bfloat16)
    out = gate.apply({'params': parameters}, x)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, gamma_by_numpy('softmax', parameters, np.asarray(x)), rtol=0, atol=2e-6)


def test_initial_parameters():
    gate = gates.Gate(8, 16)
    x = jnp.zeros((1, 1, 1, 25), jnp.bfloat16)
    parameters = gate.init(jax.random.key(0, impl='rbg'), x)['params']
    assert {name: leaf.shape for name, leaf in parameters.items()} == {'kernel': (25, 8, 16), 'bias': (8, 16)}
    for leaf in parameters.values():
        assert leaf.dtype == jnp.float32
        assert -0.2 <= leaf.min() < -0.18
        assert 0.18 < leaf.max() <= 0.2
        assert abs(leaf.mean()) < 0.04


def rows_of(x, extents=((7, 9), (4, 5))):
    """Each sample's pixels as float64 rows (pixels, C), and where they lie."""
    inside = np.zeros((*x.shape[:3], 1), bool)
    for sample, (height, width) in enumerate(extents):
        inside[sample, :height, :width] = True
    return [each[mask[..., 0]].astype(np.float64) for each, mask in zip(x, inside, strict=True)], jnp.asarray(inside)


POOLED = {
    'mean': lambda rows: rows.mean(0),
    'normalized_mean': lambda rows: rows.mean(0) / np.sqrt(np.square(rows.mean(0)).mean()),
    'rms': lambda rows: np.sqrt(np.square(rows).mean(0)),
    'mean_and_deviation': lambda rows: np.concatenate([rows.mean(0), rows.std(0)]),
}


@pytest.mark.parametrize('name', gates.POOLINGS)
def test_what_a_gate_reads_is_of_the_pixels_inside(name):
    x = np.random.default_rng(3).normal(1, 2, (2, 7, 9, CHANNELS)).astype(np.float32)
    rows, inside = rows_of(x)
    pooled = gates.find_pooling(name)(jnp.asarray(x), inside)
    np.testing.assert_allclose(pooled, [POOLED[name](each) for each in rows], rtol=1e-4)
    flat = gates.POOLINGS[name](jnp.zeros((1, 2, 2, CHANNELS)), None)
    assert np.isfinite(flat).all()
    gradient = jax.grad(lambda x: gates.POOLINGS[name](x, None).sum())(jnp.zeros((1, 2, 2, CHANNELS)))
    assert np.isfinite(gradient).all()


def test_the_scale_multiplies_logits():
    _, parameters = random_gate()
    x = jnp.asarray(np.random.default_rng(4).normal(size=(2, 3, 4, CHANNELS)).astype(np.float32))
    scaled = gates.Gate(GROUPS, CARDINALITY, logit_scale=3.0).apply({'params': parameters}, x)
    larger = {name: 3 * parameter for name, parameter in parameters.items()}
    np.testing.assert_allclose(scaled, gates.Gate(GROUPS, CARDINALITY).apply({'params': larger}, x), rtol=1e-5)
    with pytest.raises(UserError, match="unknown gate_pooling 'max': one of mean, normalized_mean"):
        gates.find_pooling('max')


def test_hard_is_softmax_at_temperature_zero():
    _, parameters = random_gate()
    x = np.random.default_rng(2).normal(0, 4, (4, 3, 5, CHANNELS)).astype(np.float32)
    cold = gates.Gate(GROUPS, CARDINALITY, logit_scale=1e6).apply({'params': parameters}, x)
    np.testing.assert_array_equal(random_gate(gates.hard)[0].apply({'params': parameters}, x), cold)


@pytest.mark.parametrize('name', ['hard', 'gumbel'])
def test_a_choice_has_the_gradient_of_softmax(name):
    logits, weights = np.random.default_rng(5).normal(size=(2, 4, GROUPS, CARDINALITY)).astype(np.float32)
    gradients = [
        jax.grad(lambda x, gate=gate: (gates.GATES[gate](x) * weights).sum())(logits) for gate in (name, 'softmax')
    ]
    np.testing.assert_array_equal(*gradients)
    assert np.abs(gradients[0]).max() > 0.1


def gumbel_gammas(key, noise=1.0, samples=4000, scale=1.0):
    """The gammas of many equal images, for random biases alone, and the probabilities that softmax gives these."""
    gate = gates.Gate(GROUPS, CARDINALITY, gates.gumbel, logit_scale=scale, noise=noise)
    _, parameters = random_gate()
    rngs = {} if key is None else {'noise': jax.random.key(key, impl='rbg')}
    x = jnp.zeros((samples, 1, 1, CHANNELS))
    return np.asarray(gate.apply({'params': parameters}, x, rngs=rngs)), gates.softmax(parameters['bias'])


def test_gumbel_chooses_each_group_as_often_as_softmax_says():
    gammas, shares = gumbel_gammas(0)
    np.testing.assert_array_equal(np.sort(gammas, axis=1), np.broadcast_to([[0], [0], [1]], gammas.shape))
    np.testing.assert_allclose(gammas.mean(axis=0), shares, atol=5 * 0.5 / np.sqrt(len(gammas)))
    # A lower temperature changes the gradient, and not how often a group is chosen.
    np.testing.assert_array_equal(gumbel_gammas(0, scale=10.0)[0], gammas)
    # Noise of half the size is that of logits of twice the size.
    halved, _ = gumbel_gammas(0, noise=0.5)
    squared = np.square(shares) / np.square(shares).sum(axis=0)
    np.testing.assert_allclose(halved.mean(axis=0), squared, atol=5 * 0.5 / np.sqrt(len(gammas)))


def test_gumbel_is_seeded_and_without_noise_in_evaluation():
    one, same, other, still = (gumbel_gammas(key, samples=50)[0] for key in (0, 0, 1, None))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    np.testing.assert_array_equal(still, gumbel_gammas(0, noise=0.0, samples=50)[0])
    assert len(np.unique(still, axis=0)) == 1
