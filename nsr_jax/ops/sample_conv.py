"""Convolution of every sample with a kernel of its own: `y[b] = conv(x[b], kernels[b])`.

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
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

Form = Literal['loop', 'matmul']


def _convolve_by_loop(x: jax.Array, kernels: jax.Array) -> jax.Array:
    def convolve_one(images: jax.Array, index: int | jax.Array) -> jax.Array:
        image = lax.dynamic_slice_in_dim(images, index, 1)
        kernel = lax.dynamic_index_in_dim(kernels, index, keepdims=False)
        return lax.conv_general_dilated(image, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

    if x.shape[0] == 1:  # nothing to loop over, and nothing to copy
        return convolve_one(x, 0)
    # Where input and output have one shape, each sample is replaced by its result: in half the memory the caches serve
    # better, and on a CPU it takes a quarter less time than a second array.
    in_place = x.shape[3] == kernels.shape[-1]
    start = x if in_place else jnp.zeros((*x.shape[:3], kernels.shape[-1]), x.dtype)

    def body(index: jax.Array, y: jax.Array) -> jax.Array:
        return lax.dynamic_update_slice_in_dim(y, convolve_one(y if in_place else x, index), index, axis=0)

    return lax.fori_loop(0, x.shape[0], body, start)


def _convolve_by_matmul(x: jax.Array, kernels: jax.Array) -> jax.Array:
    batch, height, width, _ = x.shape
    _, kernel_height, kernel_width, _, outputs = kernels.shape
    patches = jax.vmap(lambda image: _shifts(image, _taps(kernel_height), _taps(kernel_width)))(x)
    flat = kernels.reshape(batch, -1, outputs)
    y = jnp.einsum('bpt,bto->bpo', patches, flat, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))
    return y.astype(x.dtype).reshape(batch, height, width, outputs)


def _taps(side: int) -> range:
    """Shifts of an odd kernel's side, from the first tap to the last."""
    return range(-(side // 2), side // 2 + 1)


def _shifts(image: jax.Array, rows: Sequence[int], columns: Sequence[int]) -> jax.Array:
    """`(H, W, C)` moved up by each of `rows` and left by each of `columns`, zero outside: `(H W, rows columns C)`."""
    height, width, _ = image.shape
    most_rows, most_columns = max(map(abs, rows)), max(map(abs, columns))
    padded = jnp.pad(image, ((most_rows,) * 2, (most_columns,) * 2, (0, 0)))
    moved = [padded[most_rows + row :, most_columns + column :][:height, :width] for row in rows for column in columns]
    return jnp.concatenate(moved, axis=-1).reshape(height * width, -1)


def _correlate_one(x: jax.Array, y: jax.Array, kernel_size: tuple[int, int]) -> jax.Array:
    """One matrix product for each sample, of x and y moved against each other by each tap of the kernel.

    A tap can be a shift of x or an opposite shift of y. All taps on one side copy that side kh kw times; the rows of
    the kernel on y and its columns on x copy them kh and kw times. What copies least is taken. XLA's own derivative
    takes longer, and inside a loop it is naive.
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

    product = lax.dot_general(
        _shifts(y, y_rows, y_columns),
        _shifts(x, x_rows, x_columns),
        dimension_numbers=(((0,), (0,)), ((), ())),
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
    )
    shape = (len(y_rows), len(y_columns), y_channels, len(x_rows), len(x_columns), x_channels)
    # Of each pair of axes for the taps one has length 1.
    return product.reshape(shape).transpose(0, 3, 1, 4, 5, 2).reshape(*kernel_size, x_channels, y_channels)


def _correlate_by_loop(x: jax.Array, y: jax.Array, kernel_size: tuple[int, int]) -> jax.Array:
    if x.shape[0] == 1:
        return _correlate_one(x[0], y[0], kernel_size)[None]
    return lax.map(lambda sample: _correlate_one(*sample, kernel_size), (x, y))


def _correlate_by_matmul(x: jax.Array, y: jax.Array, kernel_size: tuple[int, int]) -> jax.Array:
    return jax.vmap(lambda x, y: _correlate_one(x, y, kernel_size))(x, y)


def _batch_local(function):
    """Let each device compute its own samples, by the mesh of the context, whose axes all split the batch.

    A loop over a sharded batch axis is opaque to XLA's partitioner, which would gather the whole batch on every
    device. The samples are independent. Without a mesh in the context (`jax.set_mesh`, or `use_abstract_mesh` where
    functions are traced) that is what happens to a sharded batch: the results are right all the same.
    """

    def compute(*arrays):
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or mesh.size == 1 or mesh.are_all_axes_manual or arrays[0].shape[0] % mesh.size:
            return function(*arrays)
        spec = PartitionSpec(mesh.axis_names)
        return jax.shard_map(function, in_specs=spec, out_specs=spec, check_vma=False)(*arrays)

    return compute


def _in_form(form: Form | None, loop, matmul):
    """The function of the form asked for, or one that chooses by the platform that it is compiled for."""
    if form is None:
        return lambda *arguments: lax.platform_dependent(*arguments, cpu=loop, default=matmul)
    return {'loop': loop, 'matmul': matmul}[form]


@functools.lru_cache
def _partitioned_convolve(form: Form | None):
    convolve = _in_form(form, _convolve_by_loop, _convolve_by_matmul)
    return _batch_local(convolve)


@functools.lru_cache
def _partitioned_correlate(kernel_size: tuple[int, int], form: Form | None):
    correlate = _in_form(
        form,
        lambda x, y: _correlate_by_loop(x, y, kernel_size),
        lambda x, y: _correlate_by_matmul(x, y, kernel_size),
    )
    return _batch_local(correlate)


def check_odd(kernel_size: tuple[int, ...]) -> None:
    """Raise ValueError unless both sides are odd: an even kernel has no middle, and no transposed twin."""
    if any(side % 2 == 0 for side in kernel_size):
        raise ValueError(f'the kernel must have odd sides, not {"x".join(map(str, kernel_size))}')


def _transposed(kernels: jax.Array) -> jax.Array:
    """Kernels of the transposed convolution: flipped in space, inputs and outputs exchanged."""
    return kernels[:, ::-1, ::-1].swapaxes(-1, -2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def sample_conv(x: jax.Array, kernels: jax.Array, form: Form | None = None) -> jax.Array:
    """Convolve each sample with its own kernel, zero padding, stride 1.

    Args:
        x: `(B, H, W, Cin)`.
        kernels: `(B, kh, kw, Cin, Cout)`, odd kh and kw, of x's dtype.
        form: see the top of this file; None chooses by the platform.

    Returns:
        `(B, H, W, Cout)` of x's dtype.

    Raises:
        ValueError: a kernel with an even side.
    """
    check_odd(kernels.shape[1:3])
    return _partitioned_convolve(form)(x, kernels)


def _sample_conv_forward(x, kernels, form):
    return sample_conv(x, kernels, form), (x, kernels)


def _sample_conv_backward(form, residuals, output_gradient):
    x, kernels = residuals
    kernel_gradient = sample_correlation(x, output_gradient, kernels.shape[1:3], form)
    return sample_conv(output_gradient, _transposed(kernels), form), kernel_gradient.astype(kernels.dtype)


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
    return _partitioned_correlate(kernel_size, form)(x, y)


def _sample_correlation_forward(x, y, kernel_size, form):
    return sample_correlation(x, y, kernel_size, form), (x, y)


def _sample_correlation_backward(kernel_size, form, residuals, kernels):
    x, y = residuals
    kernels = kernels.astype(x.dtype)
    return sample_conv(y, _transposed(kernels), form), sample_conv(x, kernels, form).astype(y.dtype)


sample_correlation.defvjp(_sample_correlation_forward, _sample_correlation_backward)
