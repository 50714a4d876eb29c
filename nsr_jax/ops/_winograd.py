"""Convolution of an image with a kernel of three columns, with half of the multiplications.

Four neighbouring outputs in a row depend on six inputs and three taps as the product of two polynomials depends on
their coefficients. From the polynomials' values at six points that takes six multiplications instead of twelve:

    outputs = A ((G taps) * (B inputs))

(Winograd's F(4, 3); Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4.1.) Only
the columns are transformed, so that each point needs a convolution of its own, with a kernel of one column and an
image of a quarter of the width, which XLA computes at the peak of matrix products. Rounding errors are two to three
times those of a plain convolution in float32, which is too large for bfloat16.
"""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.polynomial import polynomial

COLUMNS = 3  # of a kernel
_OUTPUTS = 4  # of a tile
# The sixth point is infinity, where a polynomial's value is its highest coefficient. Errors are a third smaller than
# with 0, 1, -1, 2, -2.
_POINTS = np.array([0, 3 / 4, -3 / 4, 3 / 2, -3 / 2])


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A `(4, 6)`, G `(6, 3)` and B `(6, 6)`, by Lagrange's interpolation at the points (Cook and Toom)."""
    size = len(_POINTS)
    others = [np.delete(_POINTS, index) for index in range(size)]
    divisors = [np.prod(point - rest) for point, rest in zip(_POINTS, others, strict=True)]

    outputs = np.zeros((size + 1, _OUTPUTS))
    outputs[:-1], outputs[-1, -1] = polynomial.polyvander(_POINTS, _OUTPUTS - 1), 1
    taps = np.zeros((size + 1, COLUMNS))
    taps[:-1], taps[-1, -1] = polynomial.polyvander(_POINTS, COLUMNS - 1) / np.reshape(divisors, (-1, 1)), 1
    inputs = np.zeros((size + 1, size + 1))
    inputs[:-1, :-1] = [polynomial.polyfromroots(rest) for rest in others]
    inputs[-1] = polynomial.polyfromroots(_POINTS)
    return outputs.T, taps, inputs


_TO_OUTPUTS, _OF_TAPS, _OF_INPUTS = _matrices()


def _combine(matrix: np.ndarray, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """The product of a matrix and a vector of arrays; sums in one pass are faster than a product of large matrices."""
    sums = []
    for row in matrix:
        terms = [float(factor) * array for factor, array in zip(row, arrays, strict=True) if factor]
        sums.append(functools.reduce(operator.add, terms))
    return sums


def _columns(x: jax.Array) -> list[jax.Array]:
    """`(H, W, C)` to six of `(H, tiles, C)`: each tile's columns with their neighbours on both sides, zero outside."""
    height, width, channels = x.shape
    tiles = -(-width // _OUTPUTS)
    margins = (1, _OUTPUTS * (tiles + 1) - 1 - width)
    columns = jnp.pad(x, ((0, 0), margins, (0, 0))).reshape(height, tiles + 1, _OUTPUTS, channels)
    in_tile = [columns[:, :-1, index] for index in range(_OUTPUTS)]
    in_next_tile = [columns[:, 1:, index] for index in range(len(_OF_INPUTS) - _OUTPUTS)]
    return in_tile + in_next_tile


def convolve(x: jax.Array, kernel: jax.Array, transposed: bool = False) -> jax.Array:
    """Convolve with stride 1 and zeros around the image.

    Args:
        x: `(H, W, Cin)`, float32 or wider.
        kernel: `(kh, 3, Cin, Cout)`, odd kh.
        transposed: whether the kernel is (kh, 3, Cout, Cin).

    Returns:
        `(H, W, Cout)`.
    """
    matrix = jnp.asarray(_OF_TAPS, kernel.dtype)
    rows = [jnp.einsum('pc,cio->pio', matrix, row) for row in kernel]
    if transposed:
        rows = [row.swapaxes(-1, -2) for row in rows]
    kernels = [jnp.stack(of_point) for of_point in zip(*rows, strict=True)]
    products = [
        lax.conv_general_dilated(
            image[None], taps[:, None], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )[0]
        for image, taps in zip(_combine(_OF_INPUTS, _columns(x)), kernels, strict=True)
    ]
    y = jnp.stack(_combine(_TO_OUTPUTS, products), axis=2)
    return y.reshape(y.shape[0], -1, y.shape[-1])[:, : x.shape[1]]


def correlate(x: jax.Array, y: jax.Array) -> jax.Array:
    """The gradient of `sum(y * convolve(x, kernel))` with respect to the kernel, for a block of rows.

    Args:
        x: `(H + kh - 1, W, Cin)`, with the rows of the kernel's margin.
        y: `(H, W, Cout)`.

    Returns:
        `(kh, 3, Cin, Cout)`.
    """
    outputs = _combine(_TO_OUTPUTS.T, _columns(y)[1:-1])  # without the neighbours
    # Transposed as one array: XLA would fuse each transposition with the computation before it, which takes three times
    # as long as the two by themselves.
    inputs = jnp.stack(_combine(_OF_INPUTS, _columns(x))).transpose(0, 3, 1, 2)
    # A convolution in one dimension: Cin signals along the rows, with a channel for each tile, and Cout kernels.
    products = [
        lax.conv_general_dilated(signal, kernel, (1,), 'VALID', dimension_numbers=('NHC', 'HIO', 'NHC'))
        for signal, kernel in zip(inputs, outputs, strict=True)
    ]
    taps = jnp.stack(_combine(_OF_TAPS.T, products))  # (3, Cin, kh, Cout)
    return taps.transpose(2, 0, 1, 3)
