"""Convolution of all samples at once, each with its own kernel, which suits GPUs and TPUs.

It is a batched matrix product of each sample's patches and kernels; a loop over samples would leave the device idle.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def convolve(x: jax.Array, kernels: jax.Array, biases: jax.Array, stride: int = 1, dilation: int = 1) -> jax.Array:
    """As `conv.sample_conv`, of every `stride`-th row and column, with the kernels' taps `dilation` pixels apart."""
    batch, *kernel_size, _, outputs = kernels.shape
    patches = _patches(x, kernel_size, stride, dilation)
    y = _multiply('bhwt,bto->bhwo', patches, kernels.reshape(batch, -1, outputs))
    return (y + biases[:, None, None]).astype(x.dtype)


def transpose(y: jax.Array, kernels: jax.Array) -> jax.Array:
    """As `conv.sample_transposed_conv`."""
    flipped = kernels[:, ::-1, ::-1].swapaxes(-1, -2)
    return convolve(y, flipped, jnp.zeros((y.shape[0], flipped.shape[-1]), jnp.float32))


def correlate(x: jax.Array, y: jax.Array, kernel_size: Sequence[int]) -> jax.Array:
    """As `conv.sample_correlation`."""
    batch, outputs = x.shape[0], y.shape[-1]
    kernels = _multiply('bhwt,bhwo->bto', _patches(x, kernel_size), y)
    return kernels.reshape(batch, *kernel_size, -1, outputs)


def _patches(images: jax.Array, kernel_size: Sequence[int], stride: int = 1, dilation: int = 1) -> jax.Array:
    """The input values of each output pixel: `(B, H, W, C)` to `(B, H / stride, W / stride, kh kw C)`, rounded up."""
    margins = [dilation * (side // 2) for side in kernel_size]
    padded = jnp.pad(images, ((0, 0), *((margin, margin) for margin in margins), (0, 0)))
    rows, columns = (range(0, dilation * side, dilation) for side in kernel_size)
    height, width = images.shape[1:3]
    taps = [
        padded[:, row : row + height : stride, column : column + width : stride] for row in rows for column in columns
    ]
    return jnp.concatenate(taps, axis=-1)


def _multiply(axes: str, first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.einsum(axes, first, second, preferred_element_type=np.promote_types(first.dtype, np.float32))
