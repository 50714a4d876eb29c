"""Convolution of every sample with a kernel and a bias of its own: `y[b] = conv(x[b], kernels[b]) + biases[b]`.

XLA sees `vmap` of a convolution as one grouped convolution with B groups, which no backend does well. There are two
other forms:

    loop      one sample after another, each by XLA's own convolution: what one sample needs stays in the cache. For
              CPUs
    matmul    all samples at once, as a batched matrix product of each sample's patches and its kernels. For GPUs and
              TPUs, which a loop over samples would leave idle

The operation is linear in both arguments, so its derivatives are two of the same kind, and the two functions at the
end differentiate into each other to any order.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from nsr_jax.ops.bias import add_bias

# How much of an image a CPU correlates at once: a patch of training as a whole, a larger image by so many rows that
# what is copied of them stays in the caches.
_PIXELS_AT_ONCE = 48 * 48

Form = Literal['loop', 'matmul']
OfBatches = Callable[..., jax.Array]  # each argument and the result (B, ...)


def _convolve_by_loop(x: jax.Array, kernels: jax.Array, biases: jax.Array) -> jax.Array:
    def convolve_one(images: jax.Array, index: int | jax.Array) -> jax.Array:
        image, bias = (lax.dynamic_slice_in_dim(array, index, 1) for array in (images, biases))
        kernel = lax.dynamic_index_in_dim(kernels, index, keepdims=False)
        y = lax.conv_general_dilated(image, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
        return add_bias(y, bias[:, None, None])

    if x.shape[0] == 1:  # nothing to loop over, and nothing to copy
        return convolve_one(x, 0)
    # Where input and output have one shape, each sample is replaced by its result: in half the memory the caches serve
    # better, and on a CPU it takes a quarter less time than a second array.
    in_place = x.shape[3] == kernels.shape[-1]
    start = x if in_place else jnp.zeros((*x.shape[:3], kernels.shape[-1]), x.dtype)

    def body(index: jax.Array, y: jax.Array) -> jax.Array:
        return lax.dynamic_update_slice_in_dim(y, convolve_one(y if in_place else x, index), index, axis=0)

    return lax.fori_loop(0, x.shape[0], body, start)


def _convolve_by_matmul(x: jax.Array, kernels: jax.Array, biases: jax.Array) -> jax.Array:
    batch, kernel_height, kernel_width, _, outputs = kernels.shape
    patches = _shifts(x, _taps(kernel_height), _taps(kernel_width))
    flat = kernels.reshape(batch, -1, outputs)
    y = jnp.einsum('bpt,bto->bpo', patches, flat, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))
    return (y + biases[:, None]).astype(x.dtype).reshape(*x.shape[:3], outputs)


def _taps(side: int) -> range:
    """Shifts of an odd kernel's side, from the first tap to the last."""
    return range(-(side // 2), side // 2 + 1)


def _shifts(images: jax.Array, rows: Sequence[int], columns: Sequence[int]) -> jax.Array:
    """`(B, H, W, C)` moved up by each of `rows` and left by each of `columns`, zero outside: `(B, H W, taps C)`."""
    batch, height, width, _ = images.shape
    most_rows, most_columns = max(map(abs, rows)), max(map(abs, columns))
    padded = jnp.pad(images, ((0, 0), (most_rows,) * 2, (most_columns,) * 2, (0, 0)))
    moved = [
        padded[:, most_rows + row :, most_columns + column :][:, :height, :width] for row in rows for column in columns
    ]
    return jnp.concatenate(moved, axis=-1).reshape(batch, height * width, -1)


def _correlate(kernel_size: tuple[int, int], x: jax.Array, y: jax.Array) -> jax.Array:
    """One matrix product for each sample, of its x and y moved against each other by each tap of the kernel.

    A tap can be a shift of x or an opposite shift of y. All taps on one side copy that side kh kw times; the rows of
    the kernel on y and its columns on x copy them kh and kw times. What copies least is taken.
    """
    kernel_height, kernel_width = kernel_size
    x_channels, y_channels = x.shape[-1], y.shape[-1]
    rows, columns = _taps(kernel_height), _taps(kernel_width)
    copies = {
        (True, True): kernel_height * kernel_width * x_channels + y_channels,
        (False, True): kernel_width * x_channels + kernel_height * y_channels,
        (False, False): x_channels + kernel_height * kernel_width * y_channels,
    }
    rows_on_x, columns_on_x = min(copies, key=copies.get)
    x_rows, y_rows = (rows, (0,)) if rows_on_x else ((0,), [-row for row in rows])
    x_columns, y_columns = (columns, (0,)) if columns_on_x else ((0,), [-column for column in columns])

    product = jnp.einsum(
        'bpt,bps->bts',
        _shifts(y, y_rows, y_columns),
        _shifts(x, x_rows, x_columns),
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
    )
    shape = (x.shape[0], len(y_rows), len(y_columns), y_channels, len(x_rows), len(x_columns), x_channels)
    # Of each pair of axes for the taps one has length 1.
    taps = product.reshape(shape).transpose(0, 1, 4, 2, 5, 6, 3)
    return taps.reshape(x.shape[0], *kernel_size, x_channels, y_channels)


def _correlate_by_rows(kernel_size: tuple[int, int], x: jax.Array, y: jax.Array) -> jax.Array:
    """Of one sample, `(H, W, Cin)` and `(H, W, Cout)`, to `(kh, kw, Cin, Cout)`.

    A convolution in one dimension: x is a batch of Cin signals along the rows, with a channel for each column, and y
    holds Cout kernels as long as the image is high. XLA moves them against each other by rows without a copy, close to
    the peak of matrix products; by columns one of them is copied kw times. XLA's own derivative takes longer, and
    inside a loop it is naive.
    """
    if x.shape[-1] <= y.shape[-1]:  # signals are transposed, so they are better few
        return _slide_rows(kernel_size, x, y)
    flipped = _slide_rows(kernel_size, y, x)  # moving y is moving x in the opposite direction
    return flipped[::-1, ::-1].swapaxes(-1, -2)


def _slide_rows(kernel_size: tuple[int, int], moving: jax.Array, fixed: jax.Array) -> jax.Array:
    """`sum(moving[h + row, w + column, i] * fixed[h, w, j])` of each tap (row, column): `(kh, kw, I, J)`."""
    (height, width, signals), filters = moving.shape, fixed.shape[-1]
    kernel_height, kernel_width = kernel_size
    margin = kernel_height // 2
    moving = jnp.pad(moving, ((margin, margin), (0, 0), (0, 0)))
    columns_of_moving = kernel_width * signals < filters  # else of the other one: what costs less

    def add_rows(first: int | jax.Array, rows: int, total: jax.Array) -> jax.Array:
        signal = lax.dynamic_slice_in_dim(moving, first, rows + 2 * margin)
        kernel = lax.dynamic_slice_in_dim(fixed, first, rows)
        if columns_of_moving:
            signal = _shifts(signal[None], (0,), _taps(kernel_width)).reshape(rows + 2 * margin, width, -1)
        else:
            opposite = [-column for column in _taps(kernel_width)]
            kernel = _shifts(kernel[None], (0,), opposite).reshape(rows, width, -1)
        return total + lax.conv_general_dilated(
            signal.transpose(2, 0, 1),
            kernel,
            (1,),
            'VALID',
            dimension_numbers=('NHC', 'HIO', 'NHC'),
            preferred_element_type=total.dtype,
        )

    columns = (kernel_width, 1) if columns_of_moving else (1, kernel_width)
    shape = (columns[0] * signals, kernel_height, columns[1] * filters)
    total = jnp.zeros(shape, jnp.promote_types(moving.dtype, jnp.float32))
    rows = max(1, _PIXELS_AT_ONCE // width)
    num_blocks, rest = divmod(height, rows)
    if num_blocks:
        total = lax.fori_loop(0, num_blocks, lambda index, total: add_rows(index * rows, rows, total), total)
    if rest:
        total = add_rows(num_blocks * rows, rest, total)
    total = total.reshape(columns[0], signals, kernel_height, columns[1], filters)
    return total.transpose(2, 0, 3, 1, 4).reshape(*kernel_size, signals, filters)


def _correlate_by_loop(kernel_size: tuple[int, int], x: jax.Array, y: jax.Array) -> jax.Array:
    if x.shape[0] == 1:
        return _correlate_by_rows(kernel_size, x[0], y[0])[None]
    return lax.map(lambda sample: _correlate_by_rows(kernel_size, *sample), (x, y))


def _compute(loop: OfBatches, matmul: OfBatches, form: Form | None, *batches: jax.Array) -> jax.Array:
    """Apply one of two forms of a function of independent samples, on each device to its own samples.

    Which form is asked for, or else chosen by the platform that is compiled for. Which samples are a device's own says
    the mesh of the context, whose axes all split the batch: a loop over a sharded batch axis is opaque to XLA's
    partitioner, which would gather the whole batch on every device. That is what happens to a sharded batch without a
    mesh in the context (`jax.set_mesh`, or `use_abstract_mesh` where functions are traced), or one that does not
    divide: the results are right all the same.
    """

    def function(*batches: jax.Array) -> jax.Array:
        if form is None:
            return lax.platform_dependent(*batches, cpu=loop, default=matmul)
        return {'loop': loop, 'matmul': matmul}[form](*batches)

    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.are_all_axes_manual or batches[0].shape[0] % mesh.size:
        return function(*batches)
    batch = PartitionSpec(mesh.axis_names)
    return jax.shard_map(function, in_specs=batch, out_specs=batch, check_vma=False)(*batches)


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
    return _transposed_conv(output_gradient, kernels, form), kernel_gradient, bias_gradient


def _transposed_conv(y: jax.Array, kernels: jax.Array, form: Form | None) -> jax.Array:
    """From each output to the inputs that it was made of: kernels flipped in space, inputs and outputs exchanged."""
    transposed = kernels[:, ::-1, ::-1].swapaxes(-1, -2)
    return sample_conv(y, transposed, jnp.zeros((y.shape[0], transposed.shape[-1])), form)


sample_conv.defvjp(_sample_conv_forward, _sample_conv_backward)


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
    loop, matmul = (functools.partial(correlate, kernel_size) for correlate in (_correlate_by_loop, _correlate))
    return _compute(loop, matmul, form, x, y)


def _sample_correlation_forward(x, y, kernel_size, form):
    return sample_correlation(x, y, kernel_size, form), (x, y)


def _sample_correlation_backward(kernel_size, form, residuals, kernels):
    x, y = residuals
    kernels = kernels.astype(x.dtype)
    zeros = jnp.zeros((x.shape[0], kernels.shape[-1]))
    return _transposed_conv(y, kernels, form), sample_conv(x, kernels, zeros, form).astype(y.dtype)


sample_correlation.defvjp(_sample_correlation_forward, _sample_correlation_backward)
