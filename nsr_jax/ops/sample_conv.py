"""Convolution of every sample with a kernel and a bias of its own: `y[b] = conv(x[b], kernels[b]) + biases[b]`.

XLA sees `vmap` of a convolution as one grouped convolution with B groups, which no backend does well. There are two
other forms:

    loop      one sample after another: what one sample needs stays in the caches. For CPUs
    matmul    all samples at once, as a batched matrix product of each sample's patches and its kernels. For GPUs and
              TPUs, which a loop over samples would leave idle

The operation is linear in images and kernels, so its derivatives are two more of the kind, and the three differentiate
into each other to any order.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsr_jax.ops.bias import add_bias
from nsr_jax.ops.image_conv import convolve_image, correlate_images
from nsr_jax.ops.patches import patches
from nsr_jax.ops.samples import map_images, on_each_device

Form = Literal['loop', 'matmul']
OfBatches = Callable[..., jax.Array]  # each argument and the result (B, ...)


def _convolve_by_loop(x: jax.Array, kernels: jax.Array, biases: jax.Array) -> jax.Array:
    def convolve(image: jax.Array, index: int | jax.Array) -> jax.Array:
        kernel, bias = (lax.dynamic_index_in_dim(array, index, keepdims=False) for array in (kernels, biases))
        return add_bias(convolve_image(image, kernel), bias)

    return map_images(x, kernels.shape[-1], convolve)


def _transpose_by_loop(y: jax.Array, kernels: jax.Array) -> jax.Array:
    def transpose(image: jax.Array, index: int | jax.Array) -> jax.Array:
        kernel = lax.dynamic_index_in_dim(kernels, index, keepdims=False)
        return convolve_image(image, kernel[::-1, ::-1], transposed=True)

    return map_images(y, kernels.shape[-2], transpose)


def _correlate_by_loop(kernel_size: tuple[int, int], x: jax.Array, y: jax.Array) -> jax.Array:
    if x.shape[0] == 1:
        return correlate_images(kernel_size, x[0], y[0])[None]
    return lax.map(lambda sample: correlate_images(kernel_size, *sample), (x, y))


def _convolve_by_matmul(x: jax.Array, kernels: jax.Array, biases: jax.Array) -> jax.Array:
    batch, *kernel_size, _, outputs = kernels.shape
    y = _multiply('bpt,bto->bpo', patches(x, kernel_size), kernels.reshape(batch, -1, outputs))
    return (y + biases[:, None]).astype(x.dtype).reshape(*x.shape[:3], outputs)


def _transpose_by_matmul(y: jax.Array, kernels: jax.Array) -> jax.Array:
    flipped = kernels[:, ::-1, ::-1].swapaxes(-1, -2)
    return _convolve_by_matmul(y, flipped, jnp.zeros((y.shape[0], flipped.shape[-1]), jnp.float32))


def _correlate_by_matmul(kernel_size: tuple[int, int], x: jax.Array, y: jax.Array) -> jax.Array:
    batch, outputs = x.shape[0], y.shape[-1]
    kernels = _multiply('bpt,bpo->bto', patches(x, kernel_size), y.reshape(batch, -1, outputs))
    return kernels.reshape(batch, *kernel_size, -1, outputs)


def _multiply(axes: str, first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.einsum(axes, first, second, preferred_element_type=np.promote_types(first.dtype, np.float32))


def _compute(loop: OfBatches, matmul: OfBatches, form: Form | None, *batches: jax.Array) -> jax.Array:
    """Apply one of two forms, the one that is asked for or else that of the platform that is compiled for."""

    def function(*batches: jax.Array) -> jax.Array:
        if form is None:
            return lax.platform_dependent(*batches, cpu=loop, default=matmul)
        return {'loop': loop, 'matmul': matmul}[form](*batches)

    return on_each_device(function, batches)


def check_odd(kernel_size: tuple[int, ...]) -> None:
    """Raise ValueError unless both sides are odd: an even kernel has no middle, and no transposed twin."""
    if any(side % 2 == 0 for side in kernel_size):
        raise ValueError(f'the kernel must have odd sides, not {"x".join(map(str, kernel_size))}')


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def sample_conv(x: jax.Array, kernels: jax.Array, biases: jax.Array, form: Form | None = None) -> jax.Array:
    """Convolve each sample with its own kernel and add its own bias, zero padding, stride 1.

    Args:
        x: `(B, H, W, Cin)`.
        kernels: `(B, kh, kw, Cin, Cout)`, odd kh and kw, of x's dtype.
        biases: `(B, Cout)`, float32. Here, and not on the result: a loop over samples adds them on the way.
        form: see the top of this file; None chooses by the platform.

    Returns:
        `(B, H, W, Cout)` of x's dtype.

    Raises:
        ValueError: a kernel with an even side.
    """
    check_odd(kernels.shape[1:3])
    return _compute(_convolve_by_loop, _convolve_by_matmul, form, x, kernels, biases)


def _sample_conv_forward(x, kernels, biases, form):
    return sample_conv(x, kernels, biases, form), (x, kernels, biases)


def _sample_conv_backward(form, residuals, output_gradient):
    x, kernels, biases = residuals
    kernel_gradient = sample_correlation(x, output_gradient, kernels.shape[1:3], form).astype(kernels.dtype)
    bias_gradient = jnp.sum(output_gradient, axis=(1, 2), dtype=biases.dtype)
    return sample_transposed_conv(output_gradient, kernels, form), kernel_gradient, bias_gradient


sample_conv.defvjp(_sample_conv_forward, _sample_conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def sample_transposed_conv(y: jax.Array, kernels: jax.Array, form: Form | None = None) -> jax.Array:
    """The gradient of `sum(y * sample_conv(x, kernels))` with respect to x.

    Args:
        y: `(B, H, W, Cout)`.
        kernels: `(B, kh, kw, Cin, Cout)`, odd kh and kw, of y's dtype.
        form: as in `sample_conv`.

    Returns:
        `(B, H, W, Cin)` of y's dtype.
    """
    return _compute(_transpose_by_loop, _transpose_by_matmul, form, y, kernels)


def _sample_transposed_conv_forward(y, kernels, form):
    return sample_transposed_conv(y, kernels, form), (y, kernels)


def _sample_transposed_conv_backward(form, residuals, x):
    y, kernels = residuals
    kernel_gradient = sample_correlation(x, y, kernels.shape[1:3], form).astype(kernels.dtype)
    return sample_conv(x, kernels, jnp.zeros((x.shape[0], kernels.shape[-1]), jnp.float32), form), kernel_gradient


sample_transposed_conv.defvjp(_sample_transposed_conv_forward, _sample_transposed_conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def sample_correlation(x: jax.Array, y: jax.Array, kernel_size: tuple[int, int], form: Form | None = None) -> jax.Array:
    """The gradient of `sum(y * sample_conv(x, kernels))` with respect to the kernels.

    Args:
        x: `(B, H, W, Cin)`.
        y: `(B, H, W, Cout)`.
        kernel_size: `(kh, kw)`, both odd.
        form: as in `sample_conv`.

    Returns:
        `(B, kh, kw, Cin, Cout)` in float32 at least, and summed in it, whatever the dtype of x.
    """
    loop, matmul = (
        functools.partial(correlate, kernel_size) for correlate in (_correlate_by_loop, _correlate_by_matmul)
    )
    return _compute(loop, matmul, form, x, y)


def _sample_correlation_forward(x, y, kernel_size, form):
    return sample_correlation(x, y, kernel_size, form), (x, y)


def _sample_correlation_backward(kernel_size, form, residuals, kernels):
    x, y = residuals
    kernels = kernels.astype(x.dtype)
    zeros = jnp.zeros((x.shape[0], kernels.shape[-1]), jnp.float32)
    return sample_transposed_conv(y, kernels, form), sample_conv(x, kernels, zeros, form).astype(y.dtype)


sample_correlation.defvjp(_sample_correlation_forward, _sample_correlation_backward)
