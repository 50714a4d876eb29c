"""The chip's peak as it can be measured: a large product of two square matrices."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks.checks import check_errors, convolution_tolerance, relative_errors
from benchmarks.tables import section
from benchmarks.timing import Candidate, Measurement

GROUP = 'matmul'


def matmul_candidate(dtype: str, size: int | None = None) -> Candidate:
    """Multiply two square matrices of `dtype`, the rows of the first spread over all devices.

    Args:
        dtype: of both.
        size: of a side, rounded down to a multiple of the devices; by default what the platform needs for its peak.
    """
    size = size or (2048 if jax.default_backend() == 'cpu' else 8192)
    size -= size % jax.device_count()
    mesh = jax.make_mesh((jax.device_count(),), ('rows',), axis_types=(AxisType.Auto,))
    shardings = NamedSharding(mesh, PartitionSpec('rows')), NamedSharding(mesh, PartitionSpec())

    def prepare(seed: int) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(jax.random.key(seed))
        return jax.device_put(tuple(jax.random.normal(key, (size, size), dtype) for key in keys), shardings)

    def check(product: jax.Array) -> float:
        a, b = (np.asarray(matrix).astype(np.float64) for matrix in prepare(0))
        errors = relative_errors({'first row': product[0]}, {'first row': a[0] @ b})
        return check_errors(errors, convolution_tolerance(dtype))

    multiply = jax.jit(jnp.matmul)
    return Candidate(
        name=f'{size} x {size} x {size}',
        group=GROUP,
        prepare=prepare,
        run=lambda matrices: multiply(*matrices),
        wait=jax.block_until_ready,
        flops=2.0 * size**3,
        check=check,
    )


def peak_of(measurements: Sequence[Measurement]) -> float | None:
    """FLOP/s of the fastest round of the matrix product; None where it failed."""
    products = [each for each in measurements if each.candidate.group == GROUP and each.seconds]
    return max((each.candidate.flops / min(each.seconds) for each in products), default=None)


def peak_table(measurements: Sequence[Measurement], dtype: str) -> dict[str, Any]:
    """The matrix product's own table."""
    rows = [each for each in measurements if each.candidate.group == GROUP]
    return section(f'matrix product, {dtype}: its fastest round is the peak', rows, None, peak_of(measurements))
