"""A check before a run's first step that the device computes the sparse convolutions as they are defined.

TPUs compute them by kernels of our own, which tests can only interpret and compile.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nsr_jax.errors import UserError
from nsr_jax.ops.conv import sparse_conv

# Of the largest number. In bfloat16, in which matrix units multiply float32 as well, errors are about 0.005.
_TOLERANCE = 0.03


def check_sparse_convolutions(params: dict, side: int, dtype: str) -> None:
    """Compare the values and gradients of each kind of sparse convolution with the definition, for one sample.

    Args:
        params: of a network, or their shapes.
        side: of the image, in pixels.
        dtype: of the convolution.

    Raises:
        UserError: they differ.
    """
    for bank_shape in sorted({leaf.shape for leaf in jax.tree.leaves(params) if len(leaf.shape) == 6}):
        arguments = _random_arguments(bank_shape, side, dtype)
        computed = jax.jit(functools.partial(_value_and_gradients, None))(*arguments)
        with jax.default_matmul_precision('highest'):
            exact = [argument.astype(jnp.float32) for argument in arguments]
            expected = jax.jit(functools.partial(_value_and_gradients, 'vmap'))(*exact)
        names = ('the output', *(f'the gradient of {name}' for name in ('x', 'the bank', 'the biases', 'the gate')))
        for name, actual, wanted in zip(names, computed, expected, strict=True):
            error = float(jnp.abs(actual.astype(jnp.float32) - wanted).max() / jnp.abs(wanted).max())
            if not error <= _TOLERANCE:
                raise UserError(
                    f'{jax.local_devices()[0].device_kind} computes a sparse convolution of '
                    f'{side}x{side}x{bank_shape[2]} in {dtype} wrongly: {name} differs from the definition by '
                    f'{error:.3g} of its largest number, where {_TOLERANCE} is allowed; other versions of jax, jaxlib '
                    'and libtpu may be right'
                )


def _random_arguments(bank_shape: Sequence[int], side: int, dtype: str) -> tuple[jax.Array, ...]:
    generator = np.random.default_rng(0)
    shapes = ((1, side, side, bank_shape[2]), bank_shape, bank_shape[3:], (1, *bank_shape[3:5]))
    x, *others = (jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in shapes)
    return x.astype(dtype), *others


def _value_and_gradients(implementation, *arguments: jax.Array) -> tuple[jax.Array, ...]:
    value, transpose = jax.vjp(functools.partial(sparse_conv, implementation=implementation), *arguments)
    weights = jnp.sin(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape)
    return value, *transpose(weights.astype(value.dtype))
