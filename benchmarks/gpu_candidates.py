"""Sparse convolutions for GPUs that have not been timed yet; one that wins in `benchmarks/gpu.sh` moves to nsr_jax/ops.

    shifted     a sum over the taps of the kernel, each a batched matrix product with the image shifted by that tap:
                no patches are copied
    implicit    a Pallas kernel that gathers the pixels of each patch from the image, tap by tap, and adds the bias
                before it writes anything; two more such kernels compute the backward pass

Both take the mixed kernels of each sample. `implicit` needs numbers of channels that are multiples of 16.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas
from jax.experimental.pallas import triton

from nsr_jax.ops.conv import mix

_PIXELS = 128  # of the output, that one program of a convolution computes
_PIXELS_OF_GRADIENT = 64  # that one matrix product of a kernel's gradient takes
_CHANNELS = 64  # the most that one matrix product takes
_PARAMETERS = triton.CompilerParams(num_warps=4, num_stages=3)


def shifted(x: jax.Array, bank: jax.Array, bias: jax.Array, gamma: jax.Array) -> jax.Array:
    """The convolution of `nsr_jax.ops.conv`, by one batched matrix product for each tap."""
    return _mix_and_convolve(_convolve_by_shifts, x, bank, bias, gamma)


def implicit(x: jax.Array, bank: jax.Array, bias: jax.Array, gamma: jax.Array, *, interpret: bool = False) -> jax.Array:
    """The convolution of `nsr_jax.ops.conv`, by Pallas kernels.

    Args:
        x: `(B, H, W, Cin)`.
        bank: `(kh, kw, Cin, k, d, Cout / d)`.
        bias: `(k, d, Cout / d)`.
        gamma: `(B, k, d)`.
        interpret: run the kernels in Pallas's interpreter, which works on every platform.

    Raises:
        ValueError: a number of channels is not a multiple of 16.
    """
    return _mix_and_convolve(functools.partial(_convolve_implicitly, interpret), x, bank, bias, gamma)


def _mix_and_convolve(convolve: Callable, x: jax.Array, bank: jax.Array, bias: jax.Array, gamma: jax.Array):
    biases = jnp.einsum('kde,bkd->bde', bias, gamma).reshape(x.shape[0], -1)

    @jax.checkpoint  # as in nsr_jax.ops.conv: the backward pass mixes again
    def apply(x, bank, gamma, biases):
        return convolve(x, mix(bank, gamma).astype(x.dtype), biases)

    return apply(x, bank, gamma, biases)


def _convolve_by_shifts(x: jax.Array, kernels: jax.Array, biases: jax.Array) -> jax.Array:
    (_, height, width, _), (kernel_height, kernel_width) = x.shape, kernels.shape[1:3]
    rows, columns = kernel_height // 2, kernel_width // 2
    padded = jnp.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    total = biases[:, None, None].astype(jnp.float32)
    for row in range(kernel_height):
        for column in range(kernel_width):
            moved = padded[:, row : row + height, column : column + width]
            tap = kernels[:, row, column]
            total += jnp.einsum('bhwi,bio->bhwo', moved, tap, preferred_element_type=jnp.float32)
    return total.astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve_implicitly(interpret: bool, x: jax.Array, kernels: jax.Array, biases: jax.Array) -> jax.Array:
    """`(B, H, W, Cin)`, `(B, kh, kw, Cin, Cout)` and float32 `(B, Cout)` to `(B, H, W, Cout)` of x's dtype."""
    batch, height, width, inputs = x.shape
    kernel_height, kernel_width, _, outputs = kernels.shape[1:]
    _check_channels(inputs, outputs)
    pixels, input_block, output_block = height * width, _block(inputs), _block(outputs)

    def kernel(x_ref, kernels_ref, biases_ref, y_ref):
        places = pallas.program_id(1) * _PIXELS + jnp.arange(_PIXELS)
        total = jnp.broadcast_to(biases_ref[...].astype(jnp.float32), (_PIXELS, output_block))
        for row in range(kernel_height):
            for column in range(kernel_width):
                moved, inside = _move(places, row - kernel_height // 2, column - kernel_width // 2, height, width)
                for first in range(0, inputs, input_block):
                    image = _load(x_ref, moved, inside, first, input_block)
                    total += triton.dot(image, kernels_ref[row, column, pallas.ds(first, input_block), :])
        here = y_ref.at[places[:, None], jnp.arange(output_block)[None]]
        triton.store(here, total.astype(y_ref.dtype), mask=(places < pixels)[:, None])

    y = pallas.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((batch, pixels, outputs), x.dtype),
        grid=(batch, pallas.cdiv(pixels, _PIXELS), outputs // output_block),
        in_specs=[
            pallas.BlockSpec((None, pixels, inputs), lambda sample, _, block: (sample, 0, 0)),
            pallas.BlockSpec(
                (None, *kernels.shape[1:4], output_block), lambda sample, _, block: (sample, 0, 0, 0, block)
            ),
            pallas.BlockSpec((None, output_block), lambda sample, _, block: (sample, block)),
        ],
        out_specs=pallas.BlockSpec((None, pixels, output_block), lambda sample, _, block: (sample, 0, block)),
        compiler_params=_PARAMETERS,
        interpret=interpret,
        name='implicit_convolution',
    )(x.reshape(batch, pixels, inputs), kernels, biases)
    return y.reshape(batch, height, width, outputs)


def _forward(interpret, x, kernels, biases):
    return _convolve_implicitly(interpret, x, kernels, biases), (x, kernels, biases)


def _backward(interpret, residuals, output_gradient):
    x, kernels, biases = residuals
    transposed = kernels[:, ::-1, ::-1].swapaxes(-1, -2)
    no_biases = jnp.zeros((x.shape[0], x.shape[-1]))
    x_gradient = _convolve_implicitly(interpret, output_gradient, transposed, no_biases)
    kernel_gradient = _correlate(x, output_gradient, kernels.shape[1:3], interpret)
    bias_gradient = jnp.sum(output_gradient, axis=(1, 2), dtype=biases.dtype)
    return x_gradient, kernel_gradient.astype(kernels.dtype), bias_gradient


_convolve_implicitly.defvjp(_forward, _backward)


def _correlate(x: jax.Array, y: jax.Array, kernel_size: tuple[int, int], interpret: bool) -> jax.Array:
    """The gradient of the kernels: one program for each sample, tap and block of channels, over all pixels."""
    batch, height, width, inputs = x.shape
    outputs = y.shape[-1]
    pixels, input_block, output_block = height * width, _block(inputs), _block(outputs)

    def kernel(x_ref, y_ref, gradient_ref):
        tap = pallas.program_id(1)
        row, column = tap // kernel_size[1] - kernel_size[0] // 2, tap % kernel_size[1] - kernel_size[1] // 2

        def add_pixels(index, total):
            places = index * _PIXELS_OF_GRADIENT + jnp.arange(_PIXELS_OF_GRADIENT)
            moved, inside = _move(places, row, column, height, width)
            image = _load(x_ref, moved, inside, 0, input_block)
            gradient = _load(y_ref, places, places < pixels, 0, output_block)
            return total + triton.dot(image, gradient, trans_a=True)

        total = jnp.zeros((input_block, output_block), jnp.float32)
        gradient_ref[...] = lax.fori_loop(0, pallas.cdiv(pixels, _PIXELS_OF_GRADIENT), add_pixels, total)

    taps = kernel_size[0] * kernel_size[1]
    gradient = pallas.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((batch, taps, inputs, outputs), jnp.float32),
        grid=(batch, taps, inputs // input_block, outputs // output_block),
        in_specs=[
            pallas.BlockSpec((None, pixels, input_block), lambda sample, tap, i, o: (sample, 0, i)),
            pallas.BlockSpec((None, pixels, output_block), lambda sample, tap, i, o: (sample, 0, o)),
        ],
        out_specs=pallas.BlockSpec((None, None, input_block, output_block), lambda *place: place),
        compiler_params=_PARAMETERS,
        interpret=interpret,
        name='implicit_correlation',
    )(x.reshape(batch, pixels, inputs), y.reshape(batch, pixels, outputs))
    return gradient.reshape(batch, *kernel_size, inputs, outputs)


def _move(places: jax.Array, row: int | jax.Array, column: int | jax.Array, height: int, width: int):
    """The places of pixels after a move, numbered row by row, and whether they are inside the image."""
    rows, columns = places // width + row, places % width + column
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return jnp.where(inside, rows * width + columns, 0), inside


def _load(pixels_ref: Any, places: jax.Array, inside: jax.Array, first: int, channels: int) -> jax.Array:
    """`channels` channels from the first of the pixels at `places`, zero for those that are not inside."""
    here = pixels_ref.at[places[:, None], (first + jnp.arange(channels))[None]]
    return triton.load(here, mask=inside[:, None], other=0)


def _block(channels: int) -> int:
    """How many channels a program takes at once: the largest power of two that divides them, up to `_CHANNELS`."""
    return min(channels & -channels, _CHANNELS)


def _check_channels(*channels: int) -> None:
    if any(count % 16 for count in channels):
        raise ValueError(f'channels must be multiples of 16, not {", ".join(map(str, channels))}')
