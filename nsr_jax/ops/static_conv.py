"""Convolution of all samples with one kernel: XLA's, with derivatives that are fast on a CPU too."""

import jax
import jax.numpy as jnp
from jax import lax

from nsr_jax.ops.sample_conv import check_odd, sample_correlation


@jax.custom_vjp
def static_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve with zero padding and stride 1.

    On a CPU, XLA's own derivative with respect to the kernel takes longer than the sum of the samples' correlations,
    and tens of times as long inside a loop, where it falls back to a naive one.

    Args:
        x: `(B, H, W, Cin)`.
        kernel: `(kh, kw, Cin, Cout)`, odd kh and kw, of x's dtype.

    Returns:
        `(B, H, W, Cout)` of x's dtype.

    Raises:
        ValueError: a kernel with an even side.
    """
    check_odd(kernel.shape[:2])
    return _xla_conv(x, kernel)


def _xla_conv(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _forward(x, kernel):
    return static_conv(x, kernel), (x, kernel)


def _backward(residuals, output_gradient):
    x, kernel = residuals
    input_gradient = static_conv(output_gradient, kernel[::-1, ::-1].swapaxes(-1, -2))

    def by_samples(x, output_gradient):
        return jnp.sum(sample_correlation(x, output_gradient, kernel.shape[:2]), axis=0).astype(kernel.dtype)

    def by_xla(x, output_gradient):
        return jax.linear_transpose(lambda kernel: _xla_conv(x, kernel), kernel)(output_gradient)[0]

    return input_gradient, lax.platform_dependent(x, output_gradient, cpu=by_samples, default=by_xla)


static_conv.defvjp(_forward, _backward)
