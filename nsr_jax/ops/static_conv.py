"""Convolution of all samples with one kernel: XLA's, but on a CPU what is faster, with derivatives that are too."""

import jax
import jax.numpy as jnp
from jax import lax

from nsr_jax.ops.image_conv import convolve_image, uses_winograd
from nsr_jax.ops.sample_conv import check_odd, sample_correlation
from nsr_jax.ops.samples import map_images, on_each_device


@jax.custom_vjp
def static_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve with zero padding and stride 1.

    On a CPU, one sample after another with half of the multiplications takes less time than XLA's convolution of all,
    and XLA's own derivative with respect to the kernel falls back to a naive one inside a loop, tens of times as slow.

    Args:
        x: `(B, H, W, Cin)`.
        kernel: `(kh, kw, Cin, Cout)`, odd kh and kw, of x's dtype.

    Returns:
        `(B, H, W, Cout)` of x's dtype.

    Raises:
        ValueError: a kernel with an even side.
    """
    check_odd(kernel.shape[:2])
    return lax.platform_dependent(x, kernel, cpu=_on_cpu, default=_by_xla)


def _on_cpu(x, kernel):
    def one_after_another(x, kernel):
        return map_images(x, kernel.shape[-1], lambda image, _: convolve_image(image, kernel))

    return on_each_device(one_after_another, [x], shared=[kernel]) if uses_winograd(x, kernel) else _by_xla(x, kernel)


def _by_xla(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _forward(x, kernel):
    return static_conv(x, kernel), (x, kernel)


def _backward(residuals, output_gradient):
    x, kernel = residuals
    input_gradient = static_conv(output_gradient, kernel[::-1, ::-1].swapaxes(-1, -2))

    def by_samples(x, output_gradient):
        return jnp.sum(sample_correlation(x, output_gradient, kernel.shape[:2]), axis=0).astype(kernel.dtype)

    def by_xla(x, output_gradient):
        return jax.linear_transpose(lambda kernel: _by_xla(x, kernel), kernel)(output_gradient)[0]

    return input_gradient, lax.platform_dependent(x, output_gradient, cpu=by_samples, default=by_xla)


static_conv.defvjp(_forward, _backward)
