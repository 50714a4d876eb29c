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

    multiply = functools.partial(
        lax.dot_general,
        dimension_numbers=(((0,), (0,)), ((), ())),
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
    )
    moved = _shifts(y, y_rows, y_columns), _shifts(x, x_rows, x_columns)
    # With a batch axis of 1, XLA's product has no name, and a profile would not tell what it belongs to.
    product = multiply(moved[0][0], moved[1][0]) if x.shape[0] == 1 else jax.vmap(multiply)(*moved)
    shape = (x.shape[0], len(y_rows), len(y_columns), y_channels, len(x_rows), len(x_columns), x_channels)
    # Of each pair of axes for the taps one has length 1.
    taps = product.reshape(shape).transpose(0, 1, 4, 2, 5, 6, 3)
    return taps.reshape(x.shape[0], *kernel_size, x_channels, y_channels)


def _correlate_by_loop(kernel_size: tuple[int, int], x: jax.Array, y: jax.Array) -> jax.Array:
    if x.shape[0] == 1:
        return _correlate(kernel_size, x, y)
    return lax.map(lambda sample: _correlate(kernel_size, sample[0][None], sample[1][None])[0], (x, y))


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
