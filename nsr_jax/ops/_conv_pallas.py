"""The sparse convolution on TPUs: a kernel for the forward and one for the backward pass, in Pallas (Mosaic).

A program of the grid computes one sample from its image and the whole bank, which both lie in the chip's fast memory.
Mixing and its derivative happen there too, so that no sample's kernel and no kernel's gradient ever leaves it.

A matrix product takes 128 channels at a time, and fewer leave most of the unit idle. So with fewer channels two rows
of the image are folded: they lie side by side in the channels, and are convolved at once. They need the rows below and
above them too, so that a folded row has blocks of input channels for four rows, and of output channels for two. The
three columns of a kernel are three matrix products, which are moved by a column and added.
"""

import functools
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas
from jax.experimental.pallas import tpu

_SIDE = 3  # of the kernels, in pixels
_COLUMNS = range(_SIDE)
_LANES = 128  # channels that a matrix product takes at a time
_TILE_BYTES = 32  # rows of a tile in memory times bytes of a number
_PIXELS = 192  # that are convolved at once: what lies between a product and its sum stays in registers
_MEMORY = 60 * 2**20  # chips since v5e have 64 MiB of fast memory or more
# What the kernels take: the largest images and banks for which they were compiled, which takes more than a minute.
_CHANNELS = range(32, 257)
_MOST_IMAGE_BYTES = 96 * 96 * 256 * 2
_MOST_BANK_BYTES = 9 * 256 * 256 * 4 * 4


def applies(x: jax.Array, bank: jax.Array) -> bool:
    """Whether the kernels here can compute `conv.sparse_conv(x, bank, ...)` and its gradients."""
    if any(jax.export.is_symbolic_dim(length) for length in x.shape):
        return False
    _, height, width, inputs = x.shape
    outputs = bank.shape[4] * bank.shape[5]
    return (
        bank.shape[:2] == (_SIDE, _SIDE)
        and {inputs, outputs} <= set(_CHANNELS)
        and x.dtype in (jnp.float32, jnp.bfloat16)
        and bank.dtype == jnp.float32
        and height > 2
        and height * width * max(inputs, outputs, _LANES) * x.dtype.itemsize <= _MOST_IMAGE_BYTES
        and bank.size * bank.dtype.itemsize <= _MOST_BANK_BYTES
    )


@functools.partial(jax.jit, static_argnames='interpret')  # so that layers of one shape are traced once
def convolve(
    x: jax.Array, bank: jax.Array, gamma: jax.Array, biases: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """As `conv.sparse_conv`, of biases that are mixed already.

    Args:
        x: `(B, H, W, Cin)`.
        bank: `(3, 3, Cin, k, d, Cout / d)`.
        gamma: `(B, k, d)`.
        biases: `(B, Cout)`.
        interpret: run it in Pallas' interpreter, on any platform.

    Returns:
        `(B, H, W, Cout)` of x's dtype.
    """
    batch, height, width, inputs = x.shape
    outputs = biases.shape[1]
    folded = _fold(x, min(inputs, outputs))
    weights = _spread(gamma, outputs)
    bank = bank.reshape(_SIDE, _SIDE, inputs, -1)
    y = jax.ShapeDtypeStruct((*folded.shape[:4], outputs), x.dtype)
    y = pallas.pallas_call(
        _convolve,
        grid=(batch,),
        in_specs=[_sample(folded), _whole(bank), _sample(weights), _sample(biases[:, None])],
        out_specs=_sample(y),
        out_shape=y,
        compiler_params=tpu.CompilerParams(dimension_semantics=('parallel',), vmem_limit_bytes=_MEMORY),
        interpret=interpret,
        name='sparse_conv',
    )(folded, bank, weights, biases[:, None])
    return _unfold(y, height, width)


@functools.partial(jax.jit, static_argnames='interpret')
def differentiate(
    x: jax.Array, bank: jax.Array, gamma: jax.Array, output_gradient: jax.Array, *, interpret: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The gradients of `sum(output_gradient * convolve(x, bank, gamma, biases))` with respect to the four arguments.

    Args:
        x: `(B, H, W, Cin)`.
        bank: `(3, 3, Cin, k, d, Cout / d)`.
        gamma: `(B, k, d)`.
        output_gradient: `(B, H, W, Cout)` of x's dtype.
        interpret: as in `convolve`.
    """
    batch, height, width, inputs = x.shape
    outputs = output_gradient.shape[3]
    folded, folded_gradient = (_fold(images, min(inputs, outputs)) for images in (x, output_gradient))
    weights = _spread(gamma, outputs)
    flat_bank = bank.reshape(_SIDE, _SIDE, inputs, -1)
    results = (
        jax.ShapeDtypeStruct(folded.shape, x.dtype),
        jax.ShapeDtypeStruct(flat_bank.shape, jnp.float32),
        jax.ShapeDtypeStruct(weights.shape, jnp.float32),
        jax.ShapeDtypeStruct((batch, 1, outputs), jnp.float32),
    )
    x_gradient, bank_gradient, weights_gradient, biases_gradient = pallas.pallas_call(
        _differentiate,
        grid=(batch,),
        in_specs=[_sample(folded), _whole(flat_bank), _sample(weights), _sample(folded_gradient)],
        out_specs=[_sample(results[0]), _whole(results[1]), _sample(results[2]), _sample(results[3])],
        out_shape=results,
        # One sample after another adds to the bank's gradient.
        compiler_params=tpu.CompilerParams(dimension_semantics=('arbitrary',), vmem_limit_bytes=_MEMORY),
        interpret=interpret,
        name='sparse_conv_gradients',
    )(folded, flat_bank, weights, folded_gradient)
    gamma_gradient = weights_gradient.reshape(*gamma.shape, -1).sum(axis=-1).astype(gamma.dtype)
    return (
        _unfold(x_gradient, height, width),
        bank_gradient.reshape(bank.shape),
        gamma_gradient,
        biases_gradient[:, 0],
    )


def _fold(x: jax.Array, fewest_channels: int) -> jax.Array:
    """`(B, H, W, C)` to `(B, H / rows, rows, W, C)`, the rows to be folded; zeros fill up what does not divide."""
    rows = 2 if fewest_channels < _LANES else 1
    columns = _TILE_BYTES // x.dtype.itemsize
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % rows), (0, -x.shape[2] % columns), (0, 0)))
    return x.reshape(x.shape[0], -1, rows, *x.shape[2:])


def _unfold(x: jax.Array, height: int, width: int) -> jax.Array:
    """The inverse of `_fold`: `(B, height, width, C)`."""
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :height, :width]


def _spread(gamma: jax.Array, outputs: int) -> jax.Array:
    """A weight for each channel of each group: `(B, k, d)` to float32 `(B, 1, k Cout)`."""
    batch, _, cardinality = gamma.shape
    return jnp.repeat(gamma.astype(jnp.float32), outputs // cardinality, axis=2).reshape(batch, 1, -1)


def _sample(array: jax.Array | jax.ShapeDtypeStruct) -> pallas.BlockSpec:
    """Each program sees its own sample of an array `(B, ...)`."""
    return pallas.BlockSpec((None, *array.shape[1:]), lambda index: (index, *[0] * (len(array.shape) - 1)))


def _whole(array: jax.Array | jax.ShapeDtypeStruct) -> pallas.BlockSpec:
    """All programs see the whole array, of which one copy is enough."""
    return pallas.BlockSpec(array.shape, lambda _: (0,) * len(array.shape), pipeline_mode=pallas.Buffered(1))


# The kernels. Their arguments are one sample's: images (h, rows, W, C), the bank (3, 3, Cin, k Cout), weights
# (1, k Cout), biases (1, Cout).


def _convolve(x_ref, bank_ref, weights_ref, biases_ref, y_ref):
    height, rows, width, outputs = y_ref.shape
    own, around = _rows_of(rows)
    images = _around(x_ref)
    kernel = _mix(bank_ref, weights_ref, outputs).astype(x_ref.dtype)
    matrix = jnp.concatenate([_matrix(kernel[:, column], around, own) for column in _COLUMNS], axis=1)
    step = max(1, _PIXELS // width)
    for first in range(0, height, step):
        last = min(first + step, height)
        products = _multiply(images[first * width : last * width], matrix, (1, 0))
        total = _add_columns(products, width, range(-1, 2))
        for row in own:
            channels = total[:, row * outputs : (row + 1) * outputs] + biases_ref[...]
            y_ref[first:last, row] = channels.reshape(-1, width, outputs).astype(y_ref.dtype)


def _differentiate(x_ref, bank_ref, weights_ref, y_gradient_ref, *gradient_refs):
    x_gradient_ref, bank_gradient_ref, weights_gradient_ref, biases_gradient_ref = gradient_refs
    height, rows, width, inputs = x_ref.shape
    outputs = y_gradient_ref.shape[-1]
    own, around = _rows_of(rows)
    gradients = _around(y_gradient_ref)

    # With respect to x it is a convolution with the transposed kernel, whose columns move the other way.
    kernel = _mix(bank_ref, weights_ref, outputs).astype(x_ref.dtype)
    matrix = jnp.concatenate([_matrix(kernel[:, column], own, around) for column in _COLUMNS], axis=0)
    total = _add_columns(_multiply(gradients, matrix, (1, 1)), width, range(1, -2, -1))
    for row in own:
        channels = total[:, row * inputs : (row + 1) * inputs]
        x_gradient_ref[:, row] = channels.reshape(height, width, inputs).astype(x_ref.dtype)

    # With respect to the kernel it is one product over all pixels; each tap is the sum of some of its blocks.
    images = jnp.concatenate([x_ref[:, row].astype(jnp.float32) for row in own], axis=-1)
    moved = [_move(width, column - 1, images.reshape(height * width, -1)) for column in _COLUMNS]
    products = _multiply(gradients, jnp.concatenate(moved, axis=1).astype(x_ref.dtype), (0, 0)).T

    @pallas.when(pallas.program_id(0) == 0)
    def _():
        bank_gradient_ref[...] = jnp.zeros_like(bank_gradient_ref)

    weights_gradient = jnp.zeros((inputs, weights_ref.shape[1]), jnp.float32)
    for tap in range(_SIDE):
        for column in _COLUMNS:
            blocks = _add(
                products[(column * rows + i) * inputs :, j * outputs :][:inputs, :outputs]
                for i, input_row in enumerate(own)
                for j, output_row in enumerate(around)
                if input_row - output_row + 1 == tap
            )
            groups = jnp.concatenate([blocks] * (weights_ref.shape[1] // outputs), axis=1)
            bank_gradient_ref[tap, column] += weights_ref[...] * groups
            weights_gradient += bank_ref[tap, column] * groups
    weights_gradient_ref[...] = jnp.sum(weights_gradient, axis=0, keepdims=True)
    by_row = (y_gradient_ref[:, row].astype(jnp.float32).reshape(-1, outputs) for row in own)
    biases_gradient_ref[...] = jnp.sum(_add(by_row), axis=0, keepdims=True)


def _rows_of(rows: int) -> tuple[Sequence[int], Sequence[int]]:
    """Numbers of the folded rows, and of these and the rows around them in the order of `_around`."""
    return range(rows), (*range(rows), rows, -1)


def _add(arrays: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, arrays)


def _around(images_ref) -> jax.Array:
    """Folded rows, the row below and the row above them in the channels: `(h W, (rows + 2) C)`, zeros outside."""
    height, rows, width, _ = images_ref.shape
    own = [images_ref[:, row] for row in range(rows)]
    outside = jnp.zeros_like(own[0][:1])
    below, above = jnp.concatenate([own[0][1:], outside]), jnp.concatenate([outside, own[-1][:-1]])
    return jnp.concatenate([*own, below, above], axis=-1).reshape(height * width, -1)


def _mix(bank_ref, weights_ref, outputs: int) -> jax.Array:
    """The sample's kernel: float32 `(3, 3, Cin, Cout)`."""
    weighted = bank_ref[...] * weights_ref[...][None, None]
    return _add(weighted[..., first : first + outputs] for first in range(0, weighted.shape[-1], outputs))


def _matrix(taps: jax.Array, input_rows: Sequence[int], output_rows: Sequence[int]) -> jax.Array:
    """The taps `(3, Cin, Cout)` of a column as a matrix from the channels of input rows to those of output rows."""
    outside = jnp.zeros_like(taps[0])
    blocks = [[taps[i - o + 1] if 0 <= i - o + 1 < _SIDE else outside for o in output_rows] for i in input_rows]
    return jnp.concatenate([jnp.concatenate(line, axis=1) for line in blocks], axis=0)


def _multiply(first: jax.Array, second: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """A matrix product over the given axis of each, in float32."""
    dimensions = (axes[:1], axes[1:]), ((), ())
    # JAX's setting of the precision is for float32; Mosaic refuses to multiply bfloat16 in another one.
    precision = lax.Precision.DEFAULT if first.dtype == jnp.bfloat16 else None
    return lax.dot_general(first, second, dimensions, precision=precision, preferred_element_type=jnp.float32)


def _add_columns(products: jax.Array, width: int, moves: Iterable[int]) -> jax.Array:
    """Add the products `(n, 3 C)` of a kernel's columns, after each has been taken from so many pixels to the right."""
    return _add(map(functools.partial(_move, width), moves, jnp.split(products, _SIDE, axis=1)))


def _move(width: int, columns: int, images: jax.Array) -> jax.Array:
    """Take each pixel of `(n, C)` from so many columns to the right, zeros outside."""
    if columns == 0:
        return images
    source = lax.broadcasted_iota(jnp.int32, images.shape, 0) % width + columns
    moved = tpu.roll(images, -columns % images.shape[0], 0)
    return jnp.where((source >= 0) & (source < width), moved, 0)
