"""The static convolution against XLA's own convolution and XLA's derivatives of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nsr_jax.ops.conv import add_bias, static_conv


def xla_conv(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


FEW, MANY = (3, 4), (32, 32)


def random_arguments(kernel_size, batch=2, dtype=np.float32, channels=FEW):
    """An image with as many channels as the first of `channels`, and a kernel whose output has the second."""
    generator = np.random.default_rng(0)
    shapes = ((batch, 5, 7, channels[0]), (*kernel_size, *channels))
    return tuple(jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes)


def derivatives(conv, x, kernel):
    """Value, both gradients of a curved function of it, and the gradients of a curved function of those."""

    def loss(x, kernel):
        return jnp.sum(jnp.sin(conv(x, kernel)))

    def gradient_loss(x, kernel):
        return sum(jnp.sum(jnp.sin(gradient)) for gradient in jax.grad(loss, argnums=(0, 1))(x, kernel))

    arguments = (x, kernel)
    return conv(*arguments), jax.grad(loss, (0, 1))(*arguments), jax.grad(gradient_loss, (0, 1))(*arguments)


@pytest.mark.usefixtures('lenient_promotion')
@pytest.mark.parametrize(
    ('kernel_size', 'batch', 'platform', 'halved'),
    [
        ((1, 1), 2, 'cpu', False),
        ((3, 5), 1, 'cpu', False),
        ((3, 3), 3, 'cpu', False),
        ((3, 3), 3, 'cpu', True),
        ((5, 3), 1, 'cpu', True),
        ((3, 5), 2, 'default', False),
    ],
    indirect=['halved'],
)
def test_value_first_and_second_derivatives(kernel_size, batch, platform, halved, monkeypatch):
    taken = []

    def platform_dependent(*arguments, **branches):
        taken.append(platform)
        return branches[platform](*arguments)

    monkeypatch.setattr(lax, 'platform_dependent', platform_dependent)
    with jax.enable_x64(True):
        arguments = random_arguments(kernel_size, batch, np.float64, MANY if halved else FEW)
        actual, expected = (
            jax.jit(functools.partial(derivatives, conv))(*arguments) for conv in (static_conv, xla_conv)
        )
        assert taken
        for ours, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            assert np.abs(theirs).max() > 0.1
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())


def test_bfloat16():
    arguments = random_arguments((3, 3), dtype=jnp.bfloat16)
    exact = tuple(argument.astype(jnp.float32) for argument in arguments)
    out, transpose = jax.vjp(static_conv, *arguments)
    out_gradient = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape).astype(jnp.bfloat16)
    expected, exact_transpose = jax.vjp(xla_conv, *exact)
    pairs = zip(
        (out, *transpose(out_gradient)), (expected, *exact_transpose(out_gradient.astype(jnp.float32))), strict=True
    )
    for ours, theirs in pairs:
        assert ours.dtype == jnp.bfloat16
        # All sums are made in float32; only each result is rounded, to 8 bits.
        error = np.abs(ours.astype(np.float32) - theirs)
        assert (error <= 2.0**-8 * np.abs(theirs) + 1e-5).all()


def test_gradient_descent_inside_a_loop(halved):
    x, kernel = random_arguments((3, 3), channels=MANY if halved else FEW)

    def descended(conv):
        def step(_, kernel):
            return kernel - 0.1 * jax.grad(lambda kernel: jnp.mean(jnp.sin(conv(x, kernel))))(kernel)

        return jax.jit(lambda kernel: lax.fori_loop(0, 4, step, kernel))(kernel)

    result = descended(static_conv)
    assert np.abs(result - kernel).max() > 1e-3
    np.testing.assert_allclose(result, descended(xla_conv), rtol=0, atol=1e-6)


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match='odd sides, not 2x3'):
        static_conv(jnp.zeros((1, 4, 4, 1)), jnp.zeros((2, 3, 1, 1)))


def test_the_gradient_of_a_bias_is_summed_in_float32():
    y = jnp.zeros((1, 33, 33, 2), jnp.bfloat16)
    out, transpose = jax.vjp(lambda bias: add_bias(y, bias), jnp.ones(2))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(transpose(jnp.ones_like(out))[0], 33 * 33)  # bfloat16 has no 1089
