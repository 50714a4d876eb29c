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
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

Form = Literal['loop', 'matmul']
Binary = Callable[[jax.Array, jax.Array], jax.Array]  # of two batches


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


def _correlate_one(kernel_size: tuple[int, int], x: jax.Array, y: jax.Array) -> jax.Array:
    """One matrix product, of one sample's x and y moved against each other by each tap of the kernel.

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


def _correlate_by_loop(kernel_size: tuple[int, int], x: jax.Array, y: jax.Array) -> jax.Array:
    if x.shape[0] == 1:
        return _correlate_one(kernel_size, x[0], y[0])[None]
    return lax.map(lambda sample: _correlate_one(kernel_size, *sample), (x, y))


def _correlate_by_matmul(kernel_size: tuple[int, int], x: jax.Array, y: jax.Array) -> jax.Array:
    return jax.vmap(functools.partial(_correlate_one, kernel_size))(x, y)


def _compute(loop: Binary, matmul: Binary, form: Form | None, x: jax.Array, y: jax.Array) -> jax.Array:
    """Apply one of two forms of a function of independent samples, on each device to its own samples.

    Which form is asked for, or else chosen by the platform that is compiled for. Which samples are a device's own says
    the mesh of the context, whose axes all split the batch: a loop over a sharded batch axis is opaque to XLA's
    partitioner, which would gather the whole batch on every device. That is what happens to a sharded batch without a
    mesh in the context (`jax.set_mesh`, or `use_abstract_mesh` where functions are traced), or one that does not
    divide: the results are right all the same.
    """

    def function(x: jax.Array, y: jax.Array) -> jax.Array:
        if form is None:
            return lax.platform_dependent(x, y, cpu=loop, default=matmul)
        return {'loop': loop, 'matmul': matmul}[form](x, y)

    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.are_all_axes_manual or x.shape[0] % mesh.size:
        return function(x, y)
    batch = PartitionSpec(mesh.axis_names)
    return jax.shard_map(function, in_specs=batch, out_specs=batch, check_vma=False)(x, y)


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
    return _compute(_convolve_by_loop, _convolve_by_matmul, form, x, kernels)


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
    loop, matmul = (
        functools.partial(correlate, kernel_size) for correlate in (_correlate_by_loop, _correlate_by_matmul)
    )
    return _compute(loop, matmul, form, x, y)


def _sample_correlation_forward(x, y, kernel_size, form):
    return sample_correlation(x, y, kernel_size, form), (x, y)


def _sample_correlation_backward(kernel_size, form, residuals, kernels):
    x, y = residuals
    kernels = kernels.astype(x.dtype)
    return sample_conv(y, _transposed(kernels), form), sample_conv(x, kernels, form).astype(y.dtype)


sample_correlation.defvjp(_sample_correlation_forward, _sample_correlation_backward)
