"""Reliable timing: candidates take turns in one process, and ratios are between times of the same round.

The first call of each candidate compiles and is checked; one more warms up and is checked again. Then every round
gives each candidate fresh arguments, which are made outside the timed part. The order is reversed from round to round,
so that the other work of the machine disturbs all candidates alike.
"""

import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from absl import logging
from jax.sharding import AxisType, NamedSharding, PartitionSpec

MATMUL = 'matmul'  # group of the matrix product, whose fastest round gives the chip's peak


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A computation to time.

    Attributes:
        name: shown in tables; unique within its group.
        group: what it computes; candidates of one group are compared.
        prepare: makes fresh arguments of `run` from a seed, not timed; `check` knows those of seed 0.
        run: computes results from arguments; may return before the device is done.
        wait: returns when the device has computed the given results.
        calls: how many calls `run` makes one after another without waiting, so that the launch of a short one does not
            outweigh it.
        flops: useful floating-point operations of one call; 0 if they are not counted.
        check: returns the relative error of the results of seed 0, or raises ArithmeticError if it is too large; None:
            unchecked.
    """

    name: str
    group: str
    prepare: Callable[[int], Any]
    run: Callable[[Any], Any]
    wait: Callable[[Any], Any]
    calls: int = 1
    flops: float = 0
    check: Callable[[Any], float] | None = None


@dataclasses.dataclass
class Measurement:
    """The measurement of a candidate.

    Attributes:
        candidate: that was timed.
        first_seconds: time of the first run, with compilation.
        seconds: times of one call, one for each round; empty if the candidate failed.
        error: relative error of the results against the oracle; None if unchecked.
        failure: why the candidate was not timed; '' if it was.
    """

    candidate: Candidate
    first_seconds: float = 0.0
    seconds: list[float] = dataclasses.field(default_factory=list)
    error: float | None = None
    failure: str = ''

    @property
    def median(self) -> float:
        """Median seconds of one call."""
        return statistics.median(self.seconds)

    @property
    def compile_seconds(self) -> float:
        """How much longer the first run took than a later one."""
        return max(0.0, self.first_seconds - self.candidate.calls * self.median)


@dataclasses.dataclass(frozen=True)
class Spread:
    """The median, lowest and highest value of a quantity over all rounds."""

    median: float
    lowest: float
    highest: float


def spread_of(values: Sequence[float]) -> Spread:
    """Summarise the values of all rounds."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(measured: Measurement, floor: Measurement) -> Spread:
    """The ratio of its time to that of `floor`, round by round."""
    return spread_of([ours / theirs for ours, theirs in zip(measured.seconds, floor.seconds, strict=True)])


def fastest(measurements: Sequence[Measurement]) -> Measurement | None:
    """The measurement with the lowest median; None if all have failed."""
    return min((each for each in measurements if each.seconds), key=lambda each: each.median, default=None)


def take_turns(candidates: Sequence[Candidate], rounds: int) -> list[Measurement]:
    """Compile, check, warm up and time all candidates.

    A candidate that cannot run or gives wrong results is logged and not timed, and its `failure` says why; the others
    go on.
    """
    measurements = [Measurement(candidate) for candidate in candidates]
    bar = tqdm.tqdm(total=len(candidates) * (rounds + 2), desc='compiling', unit='run', dynamic_ncols=True)
    with bar:
        for number in range(-1, rounds + 1):  # -1 compiles, 0 warms up; both are checked
            bar.set_description('compiling' if number < 0 else 'timing')
            # The order changes in each round, as the candidate before affects the caches and the heap.
            shuffled = random.Random(number).sample(measurements, len(measurements))
            for measured in shuffled if number > 0 else measurements:
                if not measured.failure:
                    _take_turn(measured, number)
                bar.update()
    return measurements


def _take_turn(measured: Measurement, number: int) -> None:
    candidate = measured.candidate
    if number > 0:
        measured.seconds.append(_run(candidate, number)[1] / candidate.calls)
        return
    try:
        results, seconds = _run(candidate, 0)
        if number < 0:
            measured.first_seconds = seconds
        if candidate.check is not None:
            measured.error = max(measured.error or 0.0, candidate.check(results))
    except (ArithmeticError, RuntimeError, ValueError) as error:
        # RuntimeError: either framework failed to compile or ran out of memory. ValueError: a kernel refused a shape.
        measured.failure = f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
        logging.error('%s, %s: %s', candidate.group, candidate.name, measured.failure)


def _run(candidate: Candidate, seed: int) -> tuple[Any, float]:
    arguments = candidate.prepare(seed)
    candidate.wait(arguments)
    start = time.perf_counter()
    results = candidate.run(arguments)
    candidate.wait(results)
    return results, time.perf_counter() - start


# How much results may differ from the oracle's.


def relative_errors(results: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`||result - expected|| / ||expected||` of each array of `results`; `expected` may hold more.

    Raises:
        ArithmeticError: an array has another shape.
    """
    errors = {}
    for name, result in results.items():
        ours, right = (np.asarray(array).astype(np.float64) for array in (result, expected[name]))
        if ours.shape != right.shape:
            raise ArithmeticError(f'wrong: {name} is {ours.shape}, the oracle gives {right.shape}')
        errors[name] = float(np.linalg.norm(ours - right) / np.linalg.norm(right))
    return errors


def check_errors(errors: Mapping[str, float], tolerance: float) -> float:
    """The largest error.

    Raises:
        ArithmeticError: an error is above the tolerance or not a number.
    """
    wrong = {name: error for name, error in errors.items() if not error < tolerance}
    if wrong:
        listed = ', '.join(f'{name} by {error:.1e}' for name, error in wrong.items())
        raise ArithmeticError(f'wrong: differs from the oracle: {listed} of its norm, {tolerance:.0e} is allowed')
    return max(errors.values())


def convolution_tolerance(dtype: str) -> float:
    """The tolerance of one convolution and its gradients. A GPU multiplies float32 in TF32, with 11 bits."""
    if dtype == 'bfloat16':
        return 2e-2
    return 1e-4 if jax.default_backend() == 'cpu' else 3e-3


# The chip's measured peak: a large product of two square matrices.


def matmul_candidate(dtype: str, size: int | None = None) -> Candidate:
    """Multiply two square matrices of `dtype`, the rows of the first spread over all devices.

    Args:
        dtype: of both.
        size: of a side, rounded down to a multiple of the number of devices; default: enough for the platform's peak.
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
        group=MATMUL,
        prepare=prepare,
        run=lambda matrices: multiply(*matrices),
        wait=jax.block_until_ready,
        flops=2.0 * size**3,
        check=check,
    )


def peak_of(measurements: Sequence[Measurement]) -> float | None:
    """FLOP/s of the fastest round of the matrix product; None if it failed."""
    products = [each for each in measurements if each.candidate.group == MATMUL and each.seconds]
    return max((each.candidate.flops / min(each.seconds) for each in products), default=None)
