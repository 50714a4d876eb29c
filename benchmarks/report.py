"""What the benchmark commands share: their flags, tables, and the report that is printed and written."""

import dataclasses
import json
import math
import os
import pathlib
import platform
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata, util
from typing import Any

import jax
from absl import flags
from jax.experimental.compilation_cache import compilation_cache

from benchmarks.timing import MATMUL, Measurement, peak_of, ratio, spread_of
from nsr_jax import markdown
from nsr_jax.atomic_files import write_atomically
from nsr_jax.errors import UserError

_VARIABLES = ('XLA_FLAGS', 'JAX_DEFAULT_MATMUL_PRECISION', 'OMP_NUM_THREADS', 'OMP_WAIT_POLICY')
Column = Callable[[Mapping[str, Any]], object]  # from a row to the text of its cell
TORCH_MODES = ('eager', 'default', 'reduce-overhead')


def define_flags() -> None:
    """The flags of every benchmark whose candidates take turns."""
    flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of convolutions; PyTorch: under autocast.')
    flags.DEFINE_integer('rounds', 7, 'How often each candidate is timed.', lower_bound=3)
    flags.DEFINE_integer('calls', 0, 'In one timing, without waiting between; 0: as many as needed.', lower_bound=0)
    flags.DEFINE_bool('torch', None, 'Whether PyTorch takes part; default: where it is installed.')
    modes = "'eager', or a mode of torch.compile; reduce-overhead: with CUDA graphs."
    flags.DEFINE_multi_enum('torch_mode', ['eager', 'default'], TORCH_MODES, f'How PyTorch runs, repeatable: {modes}')
    flags.DEFINE_string('output', None, 'JSON file for every time; the tables are written beside it as .md.')


def compile_anew() -> None:
    """Reuse no compiled programs of earlier runs, so that compilation is measured too."""
    jax.config.update('jax_enable_compilation_cache', False)
    compilation_cache.reset_cache()  # JAX reads the option only once


def torch_variants(options: flags.FlagValues) -> list[Any]:
    """The `torch_peers.Variant`s that take part; none if PyTorch does not.

    Raises:
        UserError: the flag --torch is given and PyTorch is not installed, or it cannot run on JAX's device.
    """
    installed = util.find_spec('torch') is not None
    if options.torch and not installed:
        raise UserError('--torch: PyTorch is not installed (pip install torch)')
    if not installed or options.torch is False:
        return []
    from benchmarks import torch_peers

    return torch_peers.variants(options.torch_mode)


class Report:
    """Tables, each printed and written to the files at once, so that a later failure loses none.

    Attributes:
        output: path of the JSON file, or None.
        contents: of that file.
        exit_code: 1 if a candidate failed.
    """

    def __init__(self, output: str | None, dtype: str):
        """Print the environment of this run.

        Raises:
            UserError: `output` does not end in .json, or its folder does not exist.
        """
        if output is not None and not output.endswith('.json'):
            raise UserError(f'--output must end in .json (the tables are written beside it as .md), not {output!r}')
        if output is not None and not pathlib.Path(output).absolute().parent.is_dir():
            raise UserError(f'--output={output}: its folder does not exist')
        self.output = output
        self.contents = {'command': sys.argv, 'environment': environment(dtype), 'tables': []}
        self.exit_code = 0
        self._text = ''
        line = ', '.join(f'{name} {value}' for name, value in self.contents['environment'].items())
        self._print(f'`{" ".join(["python -m", *_command()])}`\n\n{line}\n')

    def add(self, table: Mapping[str, Any], columns: Mapping[str, Column] | None = None) -> None:
        """Print a table and write all files anew.

        Args:
            table: 'title', 'rows' and optionally a 'note'; a row with a non-empty 'failure' makes the exit code 1.
            columns: by head, the function that makes a row's cell; None: the columns of a table of `section`.
        """
        self.contents['tables'].append(table)
        columns = measured_columns(table) if columns is None else columns
        rows = [[cell(row) for cell in columns.values()] for row in table['rows']]
        note = f'\n{table["note"]}\n' if table.get('note') else ''
        self._print(f'\n**{table["title"]}**\n\n{markdown.table(list(columns), rows)}{note}')
        if any(row.get('failure') for row in table['rows']):
            self.exit_code = 1
        if self.output is not None:
            write_atomically(self.output, json.dumps(self.contents, indent=1) + '\n')
            write_atomically(pathlib.Path(self.output).with_suffix('.md'), self._text)

    def _print(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self._text += text


def _command() -> list[str]:
    """The command line, with the name of the module instead of its path."""
    return [f'benchmarks.{pathlib.Path(sys.argv[0]).stem}', *sys.argv[1:]]


# The environment of a benchmark.


def environment(dtype: str) -> dict[str, str]:
    """The device, versions and settings that the numbers depend on."""
    device = jax.devices()[0]
    packages = [name for name in ('jax', 'jaxlib', 'flax', 'numpy', 'torch') if util.find_spec(name) is not None]
    found = {
        'device': f'{jax.device_count()} x {device.device_kind} ({device.platform})',
        'processor': f'{_processor()}, {len(os.sched_getaffinity(0))} cores',
        'python': platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        'dtype': dtype,
    }
    return found | {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def _processor() -> str:
    cpuinfo = pathlib.Path('/proc/cpuinfo')
    lines = cpuinfo.read_text(encoding='utf-8').splitlines() if cpuinfo.exists() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.machine()


def peak_memory() -> dict[str, object]:
    """The peak of memory use so far: of the device, or of the process if the device does not report one."""
    stats = jax.devices()[0].memory_stats()
    if stats and 'peak_bytes_in_use' in stats:
        return {'of': "the device, JAX's arrays and programs", 'bytes': stats['peak_bytes_in_use']}
    unit = 1 if sys.platform == 'darwin' else 1024
    return {'of': 'the process', 'bytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


# Tables of measurements: first as data for JSON, then as Markdown.


def peak_table(measurements: Sequence[Measurement], dtype: str) -> dict[str, Any]:
    """The table of the matrix product."""
    rows = [each for each in measurements if each.candidate.group == MATMUL]
    return section(f'matrix product, {dtype}: its fastest round is the peak', rows, None, peak_of(measurements))


def section(
    title: str,
    measurements: Sequence[Measurement],
    floor: Measurement | None,
    peak: float | None,
    work: Mapping[str, float] | None = None,
    note: str = '',
) -> dict[str, Any]:
    """One table as data.

    Args:
        title: what is compared.
        measurements: the rows.
        floor: of the ratios; None if it failed.
        peak: FLOP/s of the chip's matrix product.
        work: by name, how much one call does: {'images': 16} makes a column images/s.
        note: text below the table.
    """
    has_floor = floor is not None and bool(floor.seconds)
    return {
        'title': title,
        'floor': floor.candidate.name if has_floor else None,
        'peak_flops_per_second': peak,
        'rows': [_row(each, floor if has_floor else None, peak, work or {}) for each in measurements],
        'note': note,
    }


def _row(
    measured: Measurement, floor: Measurement | None, peak: float | None, work: Mapping[str, float]
) -> dict[str, Any]:
    candidate = measured.candidate
    row = {'candidate': candidate.name, 'group': candidate.group, 'failure': measured.failure, 'error': measured.error}
    if measured.failure:
        return row
    rate = candidate.flops / measured.median
    return row | {
        'time': dataclasses.asdict(spread_of(measured.seconds)),
        'ratio': None if floor is None else dataclasses.asdict(ratio(measured, floor)),
        'per_second': {name: amount / measured.median for name, amount in work.items()},
        'flops_per_second': rate or None,
        'share_of_peak': rate / peak if rate and peak else None,
        'compile_seconds': measured.compile_seconds,
        'seconds': measured.seconds,
    }


def measured_columns(table: Mapping[str, Any]) -> dict[str, Column]:
    """The columns of a table of `section`."""

    def timed(cell: Column) -> Column:
        return lambda row: '' if row['failure'] else cell(row)

    def milliseconds(row: Mapping[str, Any]) -> str:
        if row['failure']:
            return f'failed: {row["failure"]}'
        return _spread(row['time'], lambda seconds: _significant(1e3 * seconds))

    def rate(work: str) -> Column:
        return timed(lambda row: _significant(row['per_second'][work]))

    work = next((list(row['per_second']) for row in table['rows'] if 'per_second' in row), [])
    return {
        'candidate': lambda row: row['candidate'],
        'ms': milliseconds,
        f'ratio to {table["floor"]}' if table['floor'] else 'ratio': timed(
            lambda row: _or_dash(row['ratio'], lambda spread: _spread(spread, '{:.2f}'.format))
        ),
        **{f'{name}/s': rate(name) for name in work},
        'GFLOP/s': timed(lambda row: _or_dash(row['flops_per_second'], lambda rate: _significant(rate / 1e9))),
        'of peak': timed(lambda row: _or_dash(row['share_of_peak'], '{:.0%}'.format)),
        'compile (s)': timed(lambda row: f'{row["compile_seconds"]:.1f}'),
        'error': lambda row: _or_dash(row['error'], '{:.1e}'.format),
    }


def _or_dash(value: Any, to_text: Callable[[Any], str]) -> str:
    return '–' if value is None else to_text(value)


def _spread(spread: Mapping[str, float], to_text: Callable[[float], str]) -> str:
    return f'{to_text(spread["median"])} ({to_text(spread["lowest"])}–{to_text(spread["highest"])})'


def _significant(value: float) -> str:
    """A number with at least three digits, and with all digits before the point."""
    return f'{value:.{max(0, 2 - math.floor(math.log10(value)))}f}' if value > 0 else '0'


def comparison(ours: Measurement | None, theirs: Measurement | None) -> str:
    """A sentence that compares our candidate with PyTorch's fastest; '' if one of them is missing."""
    if ours is None or theirs is None:
        return ''
    quotient = _spread(dataclasses.asdict(ratio(ours, theirs)), '{:.2f}'.format)
    return f'{ours.candidate.name} takes {quotient} of the time of {theirs.candidate.name}, the fastest in PyTorch.'
