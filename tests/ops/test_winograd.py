"""Winograd's convolution against the plain one: exact but for rounding, and half of its multiplications."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nsr_jax.ops import _winograd


def plain(x, kernel):
    return lax.conv_general_dilated(x[None], kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))[0]


def random_arguments(height, width, kernel_height, inputs=3, outputs=5, dtype=np.float64):
    """x, a kernel and the gradient of an output."""
    generator = np.random.default_rng(0)
    shapes = ((height, width, inputs), (kernel_height, 3, inputs, outputs), (height, width, outputs))
    return tuple(jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes)


@pytest.mark.parametrize(
    ('height', 'width', 'kernel_height'),
    [(1, 1, 1), (2, 3, 3), (5, 4, 3), (3, 5, 1), (4, 6, 5), (1, 7, 3), (6, 8, 3)],  # tiles are of 4 columns
)
def test_equals_the_definition(height, width, kernel_height):
    @jax.jit
    def compute(x, kernel, gradient):
        expected, transpose = jax.vjp(plain, x, kernel)
        expected_input_gradient, expected_kernel_gradient = transpose(gradient)
        margin = kernel_height // 2
        with_margin = jnp.pad(x, ((margin, margin), (0, 0), (0, 0)))
        return {
            'output': (_winograd.convolve(x, kernel), expected),
            'input gradient': (
                _winograd.convolve(gradient, kernel[::-1, ::-1], transposed=True),
                expected_input_gradient,
            ),
            'kernel gradient': (_winograd.correlate(with_margin, gradient), expected_kernel_gradient),
        }

    with jax.enable_x64(True):
        for name, (actual, exact) in compute(*random_arguments(height, width, kernel_height)).items():
            scale = np.abs(exact).max()
            assert scale > 0.1, name
            np.testing.assert_allclose(actual, exact, rtol=0, atol=1e-13 * scale, err_msg=name)


def test_rounding_errors_are_those_of_float32():
    """Errors at the size of training, against float64, are two to three times those of a plain convolution."""
    with jax.enable_x64(True):
        arguments = random_arguments(48, 48, 3, 64, 64)
        exact, transpose = jax.vjp(plain, *arguments[:2])
        exact, exact_gradient = np.asarray(exact), np.asarray(transpose(arguments[2])[1])

    x, kernel, gradient = random_arguments(48, 48, 3, 64, 64, np.float32)
    output, transpose = jax.vjp(plain, x, kernel)
    with_margin = jnp.pad(x, ((1, 1), (0, 0), (0, 0)))
    for name, halved, whole, expected in (
        ('output', _winograd.convolve(x, kernel), output, exact),
        ('kernel gradient', _winograd.correlate(with_margin, gradient), transpose(gradient)[1], exact_gradient),
    ):
        ours, theirs = (np.sqrt(np.mean(np.square(np.asarray(value) - expected))) for value in (halved, whole))
        assert ours < 4 * theirs, name
        assert ours < 1e-6 * np.sqrt(np.mean(np.square(expected))), name


def test_takes_half_of_the_multiplications():
    def multiplications(function, *arguments):
        """The operations of the convolutions alone: two for each multiplication with its addition."""
        count = 0
        for equation in jax.make_jaxpr(function)(*arguments).jaxpr.eqns:
            if equation.primitive.name == 'conv_general_dilated':
                kernel, output = equation.invars[1].aval, equation.outvars[0].aval
                count += output.size * kernel.size // kernel.shape[equation.params['dimension_numbers'].rhs_spec[0]]
        return count

    x, kernel, gradient = random_arguments(8, 16, 3, dtype=np.float32)
    whole = multiplications(plain, x, kernel)
    assert whole == 8 * 16 * 9 * 3 * 5
    assert multiplications(_winograd.convolve, x, kernel) == whole / 2
    assert multiplications(_winograd.correlate, jnp.pad(x, ((1, 1), (0, 0), (0, 0))), gradient) == whole / 2
