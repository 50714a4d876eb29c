"""Convolution of all samples at once, each with its own kernel, which suits GPUs and TPUs.

It is a batched matrix product of each sample's patches and kernels; a loop over samples would leave the device idle.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def convolve(x: jax.Array, kernels: jax.Array, biases: jax.Array) -> jax.Array:
    """As `conv.sample_conv`."""
    batch, *kernel_size, _, outputs = kernels.shape
    y = _multiply('bpt,bto->bpo', _patches(x, kernel_size), kernels.reshape(batch, -1, outputs))
    return (y + biases[:, None]).astype(x.dtype).reshape(*x.shape[:3], outputs)


def transpose(y: jax.Array, kernels: jax.Array) -> jax.Array:
    """As `conv.sample_transposed_conv`."""
    flipped = kernels[:, ::-1, ::-1].swapaxes(-1, -2)
    return convolve(y, flipped, jnp.zeros((y.shape[0], flipped.shape[-1]), jnp.float32))


def correlate(x: jax.Array, y: jax.Array, kernel_size: Sequence[int]) -> jax.Array:
    """As `conv.sample_correlation`."""
    batch, outputs = x.shape[0], y.shape[-1]
    kernels = _multiply('bpt,bpo->bto', _patches(x, kernel_size), y.reshape(batch, -1, outputs))
    return kernels.reshape(batch, *kernel_size, -1, outputs)


def _patches(images: jax.Array, kernel_size: Sequence[int]) -> jax.Array:
    """The input values of each output pixel: `(B, H, W, C)` to `(B, H W, kh kw C)`."""
    batch, height, width, _ = images.shape
    rows, columns = kernel_size
    padded = jnp.pad(images, ((0, 0), (rows // 2,) * 2, (columns // 2,) * 2, (0, 0)))
    taps = [padded[:, row : row + height, column : column + width] for row in range(rows) for column in range(columns)]
    return jnp.concatenate(taps, axis=-1).reshape(batch, height * width, -1)


def _multiply(axes: str, first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.einsum(axes, first, second, preferred_element_type=np.promote_types(first.dtype, np.float32))
