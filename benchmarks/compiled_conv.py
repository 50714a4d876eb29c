"""Compare the sparse convolution with XLA's static one by what compilers say, for chips that need not be there.

    python -m benchmarks.compiled_conv --compile_for=v5e:2x2 --compile_for=v6e:2x2 --output=compiled_conv.json

needs the compilers that `train.py --compile_for` needs. Nothing is run, and no number is a measurement. For one device
of each chip it counts the bytes that each program moves between memory and chip. For TPUs it also estimates cycles: for
each operation the larger of its schedule's (tpu_schedules.py), as if nothing stalled, and its bytes over the bandwidth
of the memory. The sparse convolution mixes its kernels and its biases, and the backward pass gives all gradients; the
static one has no bias. Each takes and gives its arrays in the layouts that suit it.
"""

import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
from absl import flags, logging
from jax.experimental.layout import Format, Layout
from jax.sharding import SingleDeviceSharding

from benchmarks import report
from benchmarks.sample_conv import PASSES, parse_shape
from benchmarks.tpu_schedules import UNITS, dump_schedules, take_schedules
from nsr_jax import command_line
from nsr_jax.errors import UserError
from nsr_jax.ops.conv import Implementation, sparse_conv
from nsr_jax.planning import hlo
from nsr_jax.planning.target import Target, find_target, hide_accelerators
from nsr_jax.planning.work import find_versions

# (B, H, W, C, k, d)
SHAPES = ((64, 48, 48, 64, 4, 16), (16, 48, 48, 64, 4, 16), (64, 48, 48, 128, 4, 16), (16, 96, 96, 64, 4, 16))
# By kind of chip: additions and multiplications of all its matrix units in a cycle, which gives the clock.
_FLOPS_A_CYCLE = {'v5e': 4 * 2 * 128**2, 'v6e': 2 * 2 * 256**2}
_COLUMNS = {
    '(B, H, W, C, k, d)': lambda row: str(tuple(row['shape'])),
    'pass': lambda row: row['pass'],
    'static: thousand cycles': lambda row: _thousands(row['static']['cycles']),
    'sparse': lambda row: _thousands(row['sparse']['cycles']),
    'ratio': lambda row: f'{row["ratio"]:.2f}' if row['ratio'] else '-',
    'static: MB moved': lambda row: f'{row["static"]["moved_bytes"] / 1e6:.1f}',
    'sparse: MB': lambda row: f'{row["sparse"]["moved_bytes"] / 1e6:.1f}',
}


def _thousands(cycles: float | None) -> str:
    return '-' if cycles is None else f'{cycles / 1e3:,.1f}'


def compare(target: Target, shapes: Sequence[Sequence[int]], dtype: str, compute_sparse: Callable, dumped: str) -> dict:
    """The table for one device of a chip.

    Args:
        target: the chip.
        shapes: each (B, H, W, C, k, d).
        dtype: of images.
        compute_sparse: with the arguments of `sparse_conv`.
        dumped: the folder of `dump_schedules`.
    """
    rows = []
    for shape in shapes:
        for name, (compute, _) in PASSES.items():
            found = {}
            for kind, (convolve, arguments, gradient) in _candidates(shape, dtype, compute_sparse):
                compiled = _compile(target, functools.partial(compute, convolve), arguments, gradient)
                found[kind] = _read(
                    target, compiled, take_schedules(dumped, UNITS[target.kind]) if target.kind in UNITS else {}
                )
                logging.info('%s %s: %s %s, %s', target.name, tuple(shape), name, kind, found[kind])
            static, sparse = found['static']['cycles'], found['sparse']['cycles']
            rows.append({'shape': list(shape), 'pass': name, 'ratio': sparse / static if static else None, **found})
    versions = ', '.join(f'{package} {version}' for package, version in find_versions().items())
    note = f'Answers of the compiler ({versions}), not measurements.'
    return {'title': f'{target.name}, {dtype}', 'rows': rows, 'note': note}


def _candidates(shape: Sequence[int], dtype: str, compute_sparse: Callable) -> Iterator[tuple[str, tuple]]:
    """By kind: the convolution, its arguments and the gradient of its output, as shapes."""
    batch, height, width, channels, groups, cardinality = shape
    filters = (groups, cardinality, channels // cardinality)
    x = jax.ShapeDtypeStruct((batch, height, width, channels), dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, channels, channels), dtype)
    bank, bias, gamma = (
        jax.ShapeDtypeStruct(sides, jnp.float32)
        for sides in ((3, 3, channels, *filters), filters, (batch, groups, cardinality))
    )
    yield 'static', (_convolve_by_xla, (x, kernel), x)
    yield 'sparse', (compute_sparse, (x, bank, bias, gamma), x)


def _convolve_by_xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _compile(target: Target, function: Callable, *arguments: Any) -> jax.stages.Compiled:
    format_ = Format(Layout.AUTO, SingleDeviceSharding(target.devices[0]))
    return jax.jit(function, in_shardings=format_, out_shardings=format_).lower(*arguments).compile()


def _read(target: Target, compiled: jax.stages.Compiled, schedules: dict[str, int]) -> dict[str, Any]:
    """What is said of a program: cycles are None for GPUs."""
    program = hlo.parse(compiled.as_text() or '')
    flops_a_cycle = _FLOPS_A_CYCLE.get(target.kind)
    cycles_a_byte = target.chip.peak_flops / flops_a_cycle / target.chip.memory_bandwidth if flops_a_cycle else 0.0
    moved, cycles, kernels = 0, 0.0, []
    for each in hlo.find_executions(program):
        instruction, nbytes = each.instruction, hlo.count_moved(program, each)
        moved += each.times * nbytes
        if hlo.find_kind(program, instruction) == hlo.KERNELS:
            kernels.append(instruction.name.partition('.')[0])
        # What only loads ahead overlaps with the rest, but all bytes pass the same memory.
        if flops_a_cycle and not instruction.opcode.endswith('-start'):
            cycles += each.times * max(schedules.get(instruction.name, instruction.cycles), nbytes * cycles_a_byte)
    memory: Any = compiled.memory_analysis()
    return {
        'cycles': max(cycles, moved * cycles_a_byte) if flops_a_cycle else None,
        'moved_bytes': moved,
        'temporaries': memory.temp_size_in_bytes,
        'kernels': sorted(kernels),
    }


def main(argv: Sequence[str]) -> None:
    """Compile every shape for every chip and print the tables."""
    options = flags.FLAGS
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    shapes = [parse_shape(text) for text in options.shape] or SHAPES
    convolve = functools.partial(sparse_conv, implementation=options.implementation)
    report.compile_anew()
    with tempfile.TemporaryDirectory() as folder:
        dump_schedules(folder)
        targets = [find_target(name) for name in options.compile_for]
        for target in targets:
            if not target.kind.startswith('h') and target.kind not in _FLOPS_A_CYCLE:
                known = ', '.join(_FLOPS_A_CYCLE)
                raise UserError(f'--compile_for={target.name}: cycles are estimated for {known} alone, and GPUs')
        written = report.Report(options.output, options.dtype)
        for target in targets:
            written.add(compare(target, shapes, options.dtype, convolve, folder), _COLUMNS)


def _hide() -> bool:
    hide_accelerators()
    return False


if __name__ == '__main__':
    flags.DEFINE_multi_string('compile_for', ['v5e:2x2', 'v6e:2x2'], 'Chips: v5e or v6e with a topology, or a GPU.')
    flags.DEFINE_multi_string('shape', [], 'B,H,W,C,k,d; may be given several times; default: SHAPES.')
    flags.DEFINE_enum('dtype', 'bfloat16', ['float32', 'bfloat16'], 'Of images.')
    flags.DEFINE_enum('implementation', None, get_args(Implementation), 'Of the sparse convolution; default: its own.')
    flags.DEFINE_string('output', None, 'JSON file for every number; the tables are written beside it as .md.')
    command_line.run(main, _hide)
