"""Convolution of one image, and its derivative with respect to the kernel: what a CPU core does best.

Kernels of three columns between many channels take half of the multiplications (see winograd.py). The others are XLA's
convolution, and a derivative that is a convolution along the rows.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsr_jax import cpu_cores
from nsr_jax.ops import winograd
from nsr_jax.ops.patches import move, taps

# Of a larger image XLA's convolution is computed by all cores, and what is made of it by Winograd's leaves the caches.
_MOST_PIXELS = 128 * 128
# The derivative, which is a sum, takes so many at a time.
_PIXELS_AT_ONCE = 48 * 48
# With fewer, transforming the images takes longer than the multiplications that it saves.
_LEAST_CHANNELS = 32


def _winograd_pays(kernel_width: int, inputs: int, outputs: int, dtype: jnp.dtype) -> bool:
    """Whether the transforms take less time than the multiplications that they save, and are exact enough."""
    return kernel_width == winograd.COLUMNS and min(inputs, outputs) >= _LEAST_CHANNELS and jnp.finfo(dtype).bits >= 32


def uses_winograd(images: jax.Array, kernel: jax.Array) -> bool:
    """Whether `convolve_image` is Winograd's, with half of the multiplications.

    One core for each image is best where there are as many devices as cores. The cores of a single device would be
    idle, for XLA spreads its own convolution over them, but not Winograd's short ones.

    Args:
        images: `(..., H, W, Cin)`; free sizes are of an unknown machine, and none.
        kernel: `(kh, kw, Cin, Cout)`, or with Cout before Cin.
    """
    pixels = images.shape[-3] * images.shape[-2]
    small = not jax.export.is_symbolic_dim(pixels) and pixels <= _MOST_PIXELS
    return small and cpu_cores.are_devices() and _winograd_pays(*kernel.shape[1:], images.dtype)


def convolve_image(image: jax.Array, kernel: jax.Array, transposed: bool = False) -> jax.Array:
    """Convolve with stride 1 and zeros around the image.

    Args:
        image: `(1, H, W, Cin)`: XLA adds a bias in place only where no axis is dropped between.
        kernel: `(kh, kw, Cin, Cout)`, odd kh and kw, of the image's dtype.
        transposed: whether the kernel is (kh, kw, Cout, Cin).

    Returns:
        `(1, H, W, Cout)` of the image's dtype.
    """
    if uses_winograd(image, kernel):
        return winograd.convolve(image[0], kernel, transposed)[None]
    kernel = kernel.swapaxes(-1, -2) if transposed else kernel
    dimensions = ('NHWC', 'HWIO', 'NHWC')
    return lax.conv_general_dilated(image, kernel, (1, 1), 'SAME', dimension_numbers=dimensions)


def correlate_images(kernel_size: tuple[int, int], x: jax.Array, y: jax.Array) -> jax.Array:
    """The gradient of `sum(y * convolve_image(x[None], kernel))` with respect to the kernel.

    Args:
        kernel_size: `(kh, kw)`, both odd.
        x: `(H, W, Cin)`.
        y: `(H, W, Cout)`.

    Returns:
        `(kh, kw, Cin, Cout)` in float32 at least, and summed in it.
    """
    kernel_width = kernel_size[1]
    if _winograd_pays(kernel_width, x.shape[-1], y.shape[-1], x.dtype):
        return _add_up_blocks(winograd.correlate, kernel_size, x, y)
    slide_rows = functools.partial(_slide_rows, kernel_width)
    if x.shape[-1] <= y.shape[-1]:  # signals are transposed, so they are better few
        return _add_up_blocks(slide_rows, kernel_size, x, y)
    flipped = _add_up_blocks(slide_rows, kernel_size, y, x)  # moving y is moving x in the opposite direction
    return flipped[::-1, ::-1].swapaxes(-1, -2)


def _add_up_blocks(
    correlate: Callable[[jax.Array, jax.Array], jax.Array],
    kernel_size: tuple[int, int],
    moving: jax.Array,
    fixed: jax.Array,
) -> jax.Array:
    """`sum(moving[h + row, w + column, i] * fixed[h, w, j])` of each tap (row, column): `(kh, kw, I, J)`.

    Args:
        correlate: does it for a block of rows, around which moving has those of the margin.
        kernel_size: `(kh, kw)`.
        moving: `(H, W, I)`.
        fixed: `(H, W, J)`.
    """
    height, width, _ = fixed.shape
    margin = kernel_size[0] // 2
    moving = jnp.pad(moving, ((margin, margin), (0, 0), (0, 0)))

    def add_rows(first: int | jax.Array, rows: int, total: jax.Array) -> jax.Array:
        block = lax.dynamic_slice_in_dim(moving, first, rows + 2 * margin)
        return total + correlate(block, lax.dynamic_slice_in_dim(fixed, first, rows))

    total = jnp.zeros((*kernel_size, moving.shape[-1], fixed.shape[-1]), np.promote_types(moving.dtype, np.float32))
    rows = max(1, _PIXELS_AT_ONCE // width)
    num_blocks, rest = divmod(height, rows)
    if num_blocks:
        total = lax.fori_loop(0, num_blocks, lambda index, total: add_rows(index * rows, rows, total), total)
    return add_rows(num_blocks * rows, rest, total) if rest else total


def _slide_rows(kernel_width: int, moving: jax.Array, fixed: jax.Array) -> jax.Array:
    """A block of rows' part of the sum in `_add_up_blocks`, as a convolution in one dimension.

    Moving is a batch of signals along the rows, with a channel for each column, and fixed holds kernels as long as the
    block is high. XLA moves them against each other by rows without a copy, close to the peak of matrix products; by
    columns one of them is copied kw times. XLA's own derivative takes longer, and inside a loop it is naive.
    """
    filters, signals = fixed.shape[-1], moving.shape[-1]
    columns_of_moving = kernel_width * signals < filters  # else of the other one: what costs less
    if columns_of_moving:
        moving = move(moving[None], (0,), taps(kernel_width))[0]
    else:
        fixed = move(fixed[None], (0,), [-column for column in taps(kernel_width)])[0]
    products = lax.conv_general_dilated(
        moving.transpose(2, 0, 1),
        fixed,
        (1,),
        'VALID',
        dimension_numbers=('NHC', 'HIO', 'NHC'),
        preferred_element_type=np.promote_types(moving.dtype, np.float32),
    )
    columns = (kernel_width, 1) if columns_of_moving else (1, kernel_width)
    products = products.reshape(columns[0], signals, -1, columns[1], filters)
    return products.transpose(2, 0, 3, 1, 4).reshape(-1, kernel_width, signals, filters)
