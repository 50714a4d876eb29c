"""Compare the sparse convolution with a static one of the same shape: forward, and forward with backward.

    python -m benchmarks.sample_conv --output=sample_conv.json
    python -m benchmarks.sample_conv --dtype=bfloat16 --shape=16,48,48,64,4,16 --rounds=15

All candidates take turns in one process, on fresh random inputs each round (see timing.py), with the samples spread
over all devices, as in training: a CPU has one for each core. Each result is checked against the definition by `vmap`,
computed in float32 at the highest precision in the same run. Ratios are to the floor: the fastest static convolution,
XLA's or one of our own implementations given one kernel for all samples. Where PyTorch is installed, the same layer in
PyTorch takes part. Prints Markdown tables; `--output` writes them and every time.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks import report
from benchmarks.timing import (
    Candidate,
    Measurement,
    check_errors,
    convolution_tolerance,
    fastest,
    matmul_candidate,
    peak_of,
    relative_errors,
    take_turns,
)
from nsr_jax import command_line
from nsr_jax.errors import UserError
from nsr_jax.ops.conv import Implementation, sparse_conv, static_conv

# (B, H, W, C, k, d): those of the paper's networks in training, more channels, more groups, and one large image.
SHAPES = (
    (16, 48, 48, 64, 4, 16),
    (16, 48, 48, 32, 2, 16),
    (64, 48, 48, 64, 4, 16),
    (16, 48, 48, 128, 4, 16),
    (16, 48, 48, 64, 16, 16),
    (1, 256, 256, 64, 4, 16),
)
Arguments = tuple[jax.Array, ...]  # x, bank, bias, gamma


def static_by_xla(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """XLA's convolution with XLA's derivatives."""
    dimensions = ('NHWC', 'HWIO', 'NHWC')
    return _add_bias(lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=dimensions), bias)


def static_by_us(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Our convolution with one kernel."""
    return _add_bias(static_conv(x, kernel), bias)


def _add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """Add the bias in float32, so that its gradient is summed in float32 too."""
    return (y.astype(jnp.float32) + bias).astype(y.dtype)


def by_definition(x: jax.Array, bank: jax.Array, bias: jax.Array, gamma: jax.Array) -> jax.Array:
    """The oracle, which shares no code with the candidates."""
    kernels = jnp.einsum('hwikde,bkd->bhwide', bank, gamma).reshape(x.shape[0], *bank.shape[:3], -1)
    biases = jnp.einsum('kde,bkd->bde', bias, gamma).reshape(x.shape[0], -1)
    return jax.vmap(lambda image, *parameters: static_by_xla(image[None], *parameters)[0])(x, kernels, biases)


def _all(x: jax.Array, bank: jax.Array, bias: jax.Array, gamma: jax.Array) -> Arguments:
    return x, bank, bias, gamma


def _one_kernel(x: jax.Array, bank: jax.Array, bias: jax.Array, gamma: jax.Array) -> Arguments:
    """The first group's kernels, in the dtype of the convolution."""
    kernel = bank[..., 0, :, :].reshape(*bank.shape[:3], -1)
    return x, kernel.astype(x.dtype), bias[0].reshape(-1)


def _one_group(x: jax.Array, bank: jax.Array, bias: jax.Array, gamma: jax.Array) -> Arguments:
    """The kernels of the first group as a bank of one group: a sparse convolution with one kernel for all samples."""
    return x, bank[..., :1, :, :], bias[:1], jnp.ones_like(gamma[:, :1])


# By kind: how its arguments are selected, their names, and the oracle, whose precision is set elsewhere.
_STATIC, _SHARED, _SPARSE = 'static', 'shared', 'sparse'
_SELECT = {_STATIC: _one_kernel, _SHARED: _one_group, _SPARSE: _all}
_NAMES = {_STATIC: ('x', 'kernel', 'bias'), **dict.fromkeys((_SHARED, _SPARSE), ('x', 'bank', 'bias', 'gamma'))}
_ORACLES = {_STATIC: static_by_xla, _SHARED: by_definition, _SPARSE: by_definition}


def convolutions() -> dict[str, tuple[str, Callable[..., jax.Array]]]:
    """By name: a kind in `_SELECT`, and the convolution."""
    found = {'static, XLA': (_STATIC, static_by_xla), 'static, ours': (_STATIC, static_by_us)}
    for kind in (_SHARED, _SPARSE):
        for name in get_args(Implementation):
            if name == 'pallas' and jax.default_backend() != 'tpu':  # interpreted elsewhere
                continue
            if (kind, name) != (_SHARED, 'vmap'):  # a grouped convolution even with one kernel, so never the floor
                label = name if kind == _SPARSE else f'{name}, one kernel'
                found[label] = kind, functools.partial(sparse_conv, implementation=name)
    if jax.default_backend() == 'gpu':
        from benchmarks import gpu_candidates

        found |= {'shifted': (_SPARSE, gpu_candidates.shifted), 'implicit': (_SPARSE, gpu_candidates.implicit)}
    return found


def random_arguments(shape: Sequence[int], dtype: str, seed: int) -> tuple[jax.Array, ...]:
    """Fresh x, bank, bias, gamma and output gradient."""
    batch, height, width, channels, groups, cardinality = shape
    keys = jax.random.split(jax.random.key(seed), 5)
    image = (batch, height, width, channels)
    filters = (groups, cardinality, channels // cardinality)
    return (
        jax.random.normal(keys[0], image, dtype),
        jax.random.normal(keys[1], (3, 3, channels, *filters)) / np.sqrt(9 * channels),
        jax.random.normal(keys[2], filters),
        jax.nn.softmax(jax.random.normal(keys[3], (batch, groups, cardinality)), axis=1),
        jax.random.normal(keys[4], image, dtype),
    )


def over_devices(batch: int) -> tuple[NamedSharding, NamedSharding]:
    """Lay arrays out as training does: samples over as many devices as divide their number, kernels on each."""
    count = max(size for size in range(1, jax.device_count() + 1) if batch % size == 0)
    mesh = jax.make_mesh((count,), ('data',), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    return NamedSharding(mesh, PartitionSpec('data')), NamedSharding(mesh, PartitionSpec())


def _forward(convolve: Callable, arguments: Arguments, gradient: jax.Array) -> tuple[jax.Array, ...]:
    del gradient
    return (convolve(*arguments),)


def _both(convolve: Callable, arguments: Arguments, gradient: jax.Array) -> tuple[jax.Array, ...]:
    output, transpose = jax.vjp(convolve, *arguments)
    return output, *transpose(gradient)


# By group: what it computes, and how many convolutions that amounts to.
PASSES = {'forward': (_forward, 1), 'forward + backward': (_both, 3)}


def candidates(shape: Sequence[int], dtype: str, calls: int, variants: Sequence[Any] = ()) -> list[Candidate]:
    """All candidates for a shape, in both groups, and the matrix product that shows the chip's peak.

    Args:
        shape: (B, H, W, C, k, d).
        dtype: of images, and of the kernels that they are convolved with.
        calls: in one timing.
        variants: `torch_peers.Variant`s of PyTorch.
    """
    tolerance = convolution_tolerance(dtype)

    @functools.cache
    def expected(kind: str) -> tuple[np.ndarray, ...]:
        *arguments, gradient = random_arguments(shape, dtype, 0)
        arguments = [array.astype(jnp.float32) for array in _SELECT[kind](*arguments)]
        with jax.default_matmul_precision('highest'):
            compute = jax.jit(functools.partial(_both, _ORACLES[kind]))
            return tuple(np.asarray(array) for array in compute(arguments, gradient.astype(jnp.float32)))

    def check(kind: str, computed: Sequence) -> float:
        names = ('output', *_NAMES[kind])
        errors = relative_errors(
            dict(zip(names, computed, strict=False)), dict(zip(names, expected(kind), strict=True))
        )
        return check_errors(errors, tolerance)

    by_samples, whole = over_devices(shape[0])

    def prepare(kind: str, calls: int, seed: int) -> list[tuple[Arguments, jax.Array]]:
        sets = [random_arguments(shape, dtype, seed * calls + index) for index in range(calls)]
        shardings = (by_samples, whole, whole, by_samples)[: len(_NAMES[kind])]
        return [
            (jax.device_put(_SELECT[kind](*arguments), shardings), jax.device_put(gradient, by_samples))
            for *arguments, gradient in sets
        ]

    flops = _flops(shape)
    found = []
    for group, (compute, convolutions_worth) in PASSES.items():
        for name, (kind, convolve) in convolutions().items():
            # On a CPU the definition takes up to 60 times as long as the others.
            own_calls = 1 if name == 'vmap' and jax.default_backend() == 'cpu' else calls

            def run(sets, convolve=convolve, compute=compute):
                with jax.sharding.use_abstract_mesh(by_samples.mesh.abstract_mesh):  # each device has its own samples
                    return [compute(convolve, arguments, gradient) for arguments, gradient in sets]

            found.append(
                Candidate(
                    name=name,
                    group=group,
                    prepare=functools.partial(prepare, kind, own_calls),
                    run=jax.jit(run),
                    wait=jax.block_until_ready,
                    calls=own_calls,
                    flops=convolutions_worth * flops,
                    check=lambda computed, kind=kind: check(kind, computed[0]),
                )
            )
    if variants:
        from benchmarks import torch_peers

        torch_peers.configure()
        example = functools.partial(random_arguments, shape, dtype, 0)
        passes = [(group, worth * flops, functools.partial(check, _SPARSE)) for group, (_, worth) in PASSES.items()]
        found += torch_peers.convolution_candidates(shape, dtype, calls, example, passes, variants)
    return [*found, matmul_candidate(dtype)]


def _flops(shape: Sequence[int]) -> float:
    """FLOPs of one static convolution, forward. Mixing is not counted, as it is overhead."""
    batch, height, width, channels = shape[:4]
    return 2.0 * batch * height * width * 9 * channels**2


def default_calls(shape: Sequence[int]) -> int:
    """How many calls take a tenth of a second on two CPU cores, and on a GPU far longer than launching them.

    A few milliseconds may double depending on the core that the system wakes for each of two threads. Small shapes get
    at most 30 calls, because compiling more takes too long.
    """
    return min(30, math.ceil(20e9 / _flops(shape))) if jax.default_backend() == 'cpu' else 10


def compare(shape: Sequence[int], dtype: str, measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """The tables of one shape, made by `report.section`: the peak, and each group with ratios to the floor."""
    kinds = {name: kind for name, (kind, _) in convolutions().items()}
    peak = peak_of(measurements)
    found = [report.peak_table(measurements, dtype)]
    for group in PASSES:
        rows = [each for each in measurements if each.candidate.group == group]
        floor = fastest([each for each in rows if kinds.get(each.candidate.name) in (_STATIC, _SHARED)])
        title = f'{group}, (B, H, W, C, k, d) = {tuple(shape)}, {dtype}'
        ours = fastest([each for each in rows if kinds.get(each.candidate.name) == _SPARSE])
        theirs = fastest([each for each in rows if each.candidate.name not in kinds])
        table = report.section(title, rows, floor, peak, note=report.comparison(ours, theirs))
        found.append(table | {'shape': list(shape), 'dtype': dtype})
    return found


def parse_shape(text: str) -> tuple[int, ...]:
    """Read `B,H,W,C,k,d`.

    Raises:
        UserError: the text is not six whole numbers from 1, or d does not divide C.
    """
    try:
        shape = tuple(int(number) for number in text.split(','))
    except ValueError:
        shape = ()
    if len(shape) != 6 or min(shape) < 1 or shape[3] % shape[5]:
        raise UserError(f'--shape must be B,H,W,C,k,d, whole numbers from 1 with d a divisor of C, not {text!r}')
    return shape


def main(argv: Sequence[str]) -> int:
    """Measure every shape and print its tables; returns 1 if a candidate failed."""
    options = flags.FLAGS
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    shapes = [parse_shape(text) for text in options.shape] or SHAPES
    variants = report.torch_variants(options)
    report.compile_anew()
    written = report.Report(options.output, options.dtype)
    for shape in shapes:
        calls = options.calls or default_calls(shape)
        measurements = take_turns(candidates(shape, options.dtype, calls, variants), options.rounds)
        for table in compare(shape, options.dtype, measurements):
            written.add(table)
    return written.exit_code


if __name__ == '__main__':
    flags.DEFINE_multi_string('shape', [], 'B,H,W,C,k,d; may be given several times; default: SHAPES.')
    report.define_flags()
    command_line.run(main)
