"""Convolution of every sample with a kernel of its own: `y[b] = conv(x[b], kernels[b])`.

XLA sees `vmap` of a convolution as one grouped convolution with B groups, which no backend does well. Here the samples
are taken one after another, each with all cores, so that what one sample needs stays in the cache. The operation is
linear in both arguments, so its derivatives are two of the same kind, and the two functions below differentiate into
each other to any order.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec


def _convolve_samples(x: jax.Array, kernels: jax.Array) -> jax.Array:
    def convolve_one(sample: tuple[jax.Array, jax.Array]) -> jax.Array:
        image, kernel = sample
        dimensions = ('NHWC', 'HWIO', 'NHWC')
        return lax.conv_general_dilated(image[None], kernel, (1, 1), 'SAME', dimension_numbers=dimensions)[0]

    return lax.map(convolve_one, (x, kernels))


def _correlate_samples(x: jax.Array, y: jax.Array, kernel_size: tuple[int, int]) -> jax.Array:
    """One matrix product for each kernel row: XLA's own derivative of a convolution is naive inside a loop."""
    kernel_height, kernel_width = kernel_size

    def correlate_one(sample: tuple[jax.Array, jax.Array]) -> jax.Array:
        image, output = sample
        height, width, channels = image.shape
        padded = jnp.pad(image, ((kernel_height // 2,) * 2, (kernel_width // 2,) * 2, (0, 0)))
        shifted = jnp.concatenate([padded[:, column : column + width] for column in range(kernel_width)], axis=-1)
        output = output.reshape(height * width, -1)
        kernel_rows = [
            lax.dot_general(
                shifted[row : row + height].reshape(height * width, -1),
                output,
                dimension_numbers=(((0,), (0,)), ((), ())),
                preferred_element_type=jnp.promote_types(image.dtype, jnp.float32),
            )
            for row in range(kernel_height)
        ]
        return jnp.stack(kernel_rows).reshape(*kernel_size, channels, -1)

    return lax.map(correlate_one, (x, y))


def _batch_local(function, sharding_rule: str):
    """Let the partitioner run `function` on each device's own samples.

    A loop over a sharded batch axis is opaque to XLA's partitioner, which would gather the whole batch on every
    device. The samples are independent, so the batch axis passes through and every other axis is replicated.
    """
    partitioned = custom_partitioning(function)

    def partition(mesh, arguments, result):
        batch = next((a.sharding.spec[0] for a in arguments if a.sharding.spec), None)

        def local(shape) -> NamedSharding:
            return NamedSharding(mesh, PartitionSpec(batch, *[None] * (len(shape.shape) - 1)))

        return mesh, function, local(result), tuple(local(argument) for argument in arguments)

    factors = dict.fromkeys(sharding_rule.replace(',', ' ').replace('->', ' ').split())  # in order of appearance
    replicated = tuple(factor for factor in factors if factor != 'b')
    partitioned.def_partition(partition=partition, sharding_rule=sharding_rule, need_replication_factors=replicated)
    return partitioned


_partitioned_convolve = _batch_local(_convolve_samples, 'b h w i, b m n i o -> b h w o')


@functools.lru_cache
def _partitioned_correlate(kernel_size: tuple[int, int]):
    def correlate(x, y):
        return _correlate_samples(x, y, kernel_size)

    return _batch_local(correlate, 'b h w i, b h w o -> b m n i o')


def check_odd(kernel_size: tuple[int, ...]) -> None:
    """Raise ValueError unless both sides are odd: an even kernel has no middle, and no transposed twin."""
    if any(side % 2 == 0 for side in kernel_size):
        raise ValueError(f'the kernel must have odd sides, not {"x".join(map(str, kernel_size))}')


def _transposed(kernels: jax.Array) -> jax.Array:
    """Kernels of the transposed convolution: flipped in space, inputs and outputs exchanged."""
    return kernels[:, ::-1, ::-1].swapaxes(-1, -2)


@jax.custom_vjp
def sample_conv(x: jax.Array, kernels: jax.Array) -> jax.Array:
    """Convolve each sample with its own kernel, zero padding, stride 1.

    Args:
        x: `(B, H, W, Cin)`.
        kernels: `(B, kh, kw, Cin, Cout)`, odd kh and kw, of x's dtype.

    Returns:
        `(B, H, W, Cout)` of x's dtype.

    Raises:
        ValueError: a kernel with an even side.
    """
    check_odd(kernels.shape[1:3])
    return _partitioned_convolve(x, kernels)


def _sample_conv_forward(x, kernels):
    return sample_conv(x, kernels), (x, kernels)


def _sample_conv_backward(residuals, output_gradient):
    x, kernels = residuals
    kernel_gradient = sample_correlation(x, output_gradient, kernels.shape[1:3])
    return sample_conv(output_gradient, _transposed(kernels)), kernel_gradient.astype(kernels.dtype)


sample_conv.defvjp(_sample_conv_forward, _sample_conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def sample_correlation(x: jax.Array, y: jax.Array, kernel_size: tuple[int, int]) -> jax.Array:
    """The gradient of `sum(y * sample_conv(x, kernels))` with respect to the kernels.

    Args:
        x: `(B, H, W, Cin)`.
        y: `(B, H, W, Cout)`.
        kernel_size: `(kh, kw)`, both odd.

    Returns:
        `(B, kh, kw, Cin, Cout)` in float32 at least, and summed in it, whatever the dtype of x.
    """
    return _partitioned_correlate(kernel_size)(x, y)


def _sample_correlation_forward(x, y, kernel_size):
    return sample_correlation(x, y, kernel_size), (x, y)


def _sample_correlation_backward(kernel_size, residuals, kernels):
    x, y = residuals
    kernels = kernels.astype(x.dtype)
    return sample_conv(y, _transposed(kernels)), sample_conv(x, kernels).astype(y.dtype)


sample_correlation.defvjp(_sample_correlation_forward, _sample_correlation_backward)
