"""Thresholds against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np

from nsr_jax.nn.thresholds import THRESHOLDS, SoftThreshold


def test_soft_thresholding():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 2)).astype(np.float32)
    thresholds = np.array([0.5, -0.25], np.float32)
    out = SoftThreshold().apply({'params': {'threshold': thresholds}}, x)
    np.testing.assert_allclose(out, np.sign(x) * np.maximum(np.abs(x) - np.abs(thresholds), 0), rtol=0, atol=1e-6)
    assert 0.1 < np.mean(np.asarray(out) == 0) < 0.9


def test_its_thresholds_are_trained_from_a_positive_one():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 4, 4, 3)), jnp.bfloat16)
    parameters = SoftThreshold().init(jax.random.key(0, impl='rbg'), x)['params']
    np.testing.assert_allclose(parameters['threshold'], np.full(3, 0.1), rtol=1e-6)
    gradient = jax.grad(lambda each: jnp.abs(SoftThreshold().apply({'params': each}, x)).sum())(parameters)
    assert gradient['threshold'].dtype == jnp.float32
    assert (gradient['threshold'] < 0).all()
    assert SoftThreshold().apply({'params': parameters}, x).dtype == jnp.bfloat16


def test_relu():
    np.testing.assert_array_equal(THRESHOLDS['relu']()(jnp.array([-1.0, 0, 2])), [0, 0, 2])
