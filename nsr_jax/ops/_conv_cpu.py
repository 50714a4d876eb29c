"""Convolution of one image after another, which suits CPUs: all that an image needs stays in the caches.

Kernels of three columns between many channels take half of the multiplications (see _winograd.py). For other kernels
XLA convolves, and the derivative is a convolution along the rows.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsr_jax import cpu_cores
from nsr_jax.ops import _winograd

# XLA computes the convolution of a larger image on all cores, and the arrays of Winograd's would not fit the caches.
_MOST_PIXELS = 128 * 128
# The kernel's gradient, a sum over pixels, is computed for blocks of this many pixels.
_PIXELS_AT_ONCE = 48 * 48
# With fewer channels, transforming the images takes longer than the multiplications that it saves.
_LEAST_CHANNELS = 32


def convolve(x: jax.Array, kernels: jax.Array, biases: jax.Array) -> jax.Array:
    """As `conv.sample_conv`."""

    def convolve_one(image: jax.Array, index: int | jax.Array) -> jax.Array:
        kernel, bias = (lax.dynamic_index_in_dim(array, index, keepdims=False) for array in (kernels, biases))
        y = convolve_image(image, kernel)
        # The image keeps its first axis: XLA adds in place only if no axis of y is dropped in between.
        return (y.astype(np.promote_types(y.dtype, np.float32)) + bias[None, None, None]).astype(y.dtype)

    return _map_images(x, kernels.shape[-1], convolve_one)


def convolve_all(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """As `conv.static_conv`."""
    return _map_images(x, kernel.shape[-1], lambda image, _: convolve_image(image, kernel))


def transpose(y: jax.Array, kernels: jax.Array) -> jax.Array:
    """As `conv.sample_transposed_conv`."""

    def transpose_one(image: jax.Array, index: int | jax.Array) -> jax.Array:
        kernel = lax.dynamic_index_in_dim(kernels, index, keepdims=False)
        return convolve_image(image, kernel[::-1, ::-1], transposed=True)

    return _map_images(y, kernels.shape[-2], transpose_one)


def correlate(x: jax.Array, y: jax.Array, kernel_size: tuple[int, int]) -> jax.Array:
    """As `conv.sample_correlation`."""
    if x.shape[0] == 1:
        return correlate_images(kernel_size, x[0], y[0])[None]
    return lax.map(lambda sample: correlate_images(kernel_size, *sample), (x, y))


def _map_images(x: jax.Array, features: int, function: Callable[[jax.Array, int | jax.Array], jax.Array]) -> jax.Array:
    """Compute one sample after another.

    Args:
        x: `(B, H, W, C)`.
        features: of the result.
        function: of an image `(1, H, W, C)` and its index; gives `(1, H, W, features)` of x's dtype.

    Returns:
        `(B, H, W, features)`.
    """
    if x.shape[0] == 1:  # nothing to loop over, and nothing to copy
        return function(x, 0)
    # If input and output have the same shape, each sample is replaced by its result: half of the memory fits the caches
    # better and takes a quarter less time than a second array.
    in_place = x.shape[3] == features
    start = x if in_place else jnp.zeros((*x.shape[:3], features), x.dtype)

    def body(index: jax.Array, y: jax.Array) -> jax.Array:
        image = lax.dynamic_slice_in_dim(y if in_place else x, index, 1)
        return lax.dynamic_update_slice_in_dim(y, function(image, index), index, axis=0)

    return lax.fori_loop(0, x.shape[0], body, start)


def _winograd_pays(kernel_width: int, inputs: int, outputs: int, dtype: jnp.dtype) -> bool:
    """Whether the transforms take less time than the multiplications that they save, and are exact enough."""
    return kernel_width == _winograd.COLUMNS and min(inputs, outputs) >= _LEAST_CHANNELS and jnp.finfo(dtype).bits >= 32


def uses_winograd(images: jax.Array, kernel: jax.Array) -> bool:
    """Whether `convolve_image` uses Winograd's algorithm, with half of the multiplications.

    That is faster if JAX has a device for each core. XLA spreads its own convolution over all cores of a single
    device, but not the short convolutions of Winograd's, which would leave most cores idle.

    Args:
        images: `(..., H, W, Cin)`; for symbolic sizes it is False, as the machine that will run them is not known.
        kernel: `(kh, kw, Cin, Cout)`, or with Cout before Cin.
    """
    _, width, inputs, outputs = kernel.shape
    pixels = images.shape[-3] * images.shape[-2]
    small = not jax.export.is_symbolic_dim(pixels) and pixels <= _MOST_PIXELS
    return small and cpu_cores.are_devices() and _winograd_pays(width, inputs, outputs, images.dtype)


def convolve_image(image: jax.Array, kernel: jax.Array, transposed: bool = False) -> jax.Array:
    """Convolve with stride 1 and zeros around the image.

    Args:
        image: `(1, H, W, Cin)`.
        kernel: `(kh, kw, Cin, Cout)`, odd kh and kw, of the image's dtype.
        transposed: whether the kernel is (kh, kw, Cout, Cin).

    Returns:
        `(1, H, W, Cout)` of the image's dtype.
    """
    if uses_winograd(image, kernel):
        return _winograd.convolve(image[0], kernel, transposed)[None]
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
        return _add_up_blocks(_winograd.correlate, kernel_size, x, y)
    slide_rows = functools.partial(_slide_rows, kernel_width)
    if x.shape[-1] <= y.shape[-1]:  # the moving array is transposed, so it should have fewer channels
        return _add_up_blocks(slide_rows, kernel_size, x, y)
    flipped = _add_up_blocks(slide_rows, kernel_size, y, x)  # to move y is to move x in the opposite direction
    return flipped[::-1, ::-1].swapaxes(-1, -2)


def _add_up_blocks(
    correlate_block: Callable[[jax.Array, jax.Array], jax.Array],
    kernel_size: tuple[int, int],
    moving: jax.Array,
    fixed: jax.Array,
) -> jax.Array:
    """`sum(moving[h + row, w + column, i] * fixed[h, w, j])` of each tap (row, column): `(kh, kw, I, J)`.

    Args:
        correlate_block: computes it from some rows of `moving`, with the margin around them, and of `fixed`.
        kernel_size: `(kh, kw)`.
        moving: `(H, W, I)`.
        fixed: `(H, W, J)`.
    """
    height, width, _ = fixed.shape
    margin = kernel_size[0] // 2
    moving = jnp.pad(moving, ((margin, margin), (0, 0), (0, 0)))

    def add_rows(first: int | jax.Array, rows: int, total: jax.Array) -> jax.Array:
        block = lax.dynamic_slice_in_dim(moving, first, rows + 2 * margin)
        return total + correlate_block(block, lax.dynamic_slice_in_dim(fixed, first, rows))

    total = jnp.zeros((*kernel_size, moving.shape[-1], fixed.shape[-1]), np.promote_types(moving.dtype, np.float32))
    rows = max(1, _PIXELS_AT_ONCE // width)
    num_blocks, rest = divmod(height, rows)
    if num_blocks:
        total = lax.fori_loop(0, num_blocks, lambda index, total: add_rows(index * rows, rows, total), total)
    return add_rows(num_blocks * rows, rest, total) if rest else total


def _slide_rows(kernel_width: int, moving: jax.Array, fixed: jax.Array) -> jax.Array:
    """The sum in `_add_up_blocks` for a block of rows, as a convolution in one dimension.

    `moving` is a batch of signals along the rows, with a channel for each column, and `fixed` holds kernels as long as
    the block is high. XLA slides them over each other by rows without a copy, close to the peak of matrix products.
    To slide by columns, the cheaper one of the two is copied kw times. XLA's own derivative takes longer, and inside a
    loop it is a naive one.
    """
    filters, signals = fixed.shape[-1], moving.shape[-1]
    columns_of_moving = kernel_width * signals < filters
    if columns_of_moving:
        moving = _side_by_side(moving, range(-(kernel_width // 2), kernel_width // 2 + 1))
    else:
        fixed = _side_by_side(fixed, range(kernel_width // 2, -(kernel_width // 2) - 1, -1))
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


def _side_by_side(x: jax.Array, shifts: Sequence[int]) -> jax.Array:
    """Move `(H, W, C)` to the left by each of the shifts, with zeros outside: `(H, W, len(shifts) C)`."""
    width, most = x.shape[1], max(map(abs, shifts))
    padded = jnp.pad(x, ((0, 0), (most, most), (0, 0)))
    return jnp.concatenate([padded[:, most + shift : most + shift + width] for shift in shifts], axis=-1)
