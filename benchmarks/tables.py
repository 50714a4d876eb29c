"""From measurements to tables: as data for JSON, and from that as Markdown."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.timing import Measurement, ratio, spread_of


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
        floor: what ratios are to; None where it failed.
        peak: FLOP/s of the chip's matrix product.
        work: by name, how much of it is done in one call: {'images': 16} makes a column images/s.
        note: what stands below it.
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


def to_markdown(table: Mapping[str, Any]) -> str:
    """The table of a `section`."""
    rows = table['rows']
    work = next((list(row['per_second']) for row in rows if 'per_second' in row), [])
    heads = [
        'candidate',
        'ms',
        'ratio' if table['floor'] is None else f'ratio to {table["floor"]}',
        *(f'{name}/s' for name in work),
    ]
    heads += ['GFLOP/s', 'of peak', 'compile (s)', 'error']
    lines = [f'**{table["title"]}**', '', f'| {" | ".join(heads)} |', '| --- ' + '| ---: ' * (len(heads) - 1) + '|']
    for row in rows:
        error = '–' if row['error'] is None else f'{row["error"]:.1e}'
        if row['failure']:
            cells = [f'failed: {row["failure"]}'.replace('|', '/'), *[''] * (len(heads) - 3), error]
        else:
            rate, share = row['flops_per_second'], row['share_of_peak']
            cells = [
                _spread(row['time'], lambda seconds: _significant(1e3 * seconds)),
                '–' if row['ratio'] is None else _spread(row['ratio'], '{:.2f}'.format),
                *(_significant(row['per_second'][name]) for name in work),
                '–' if rate is None else _significant(rate / 1e9),
                '–' if share is None else f'{share:.0%}',
                f'{row["compile_seconds"]:.1f}',
                error,
            ]
        lines.append(f'| {" | ".join([row["candidate"], *cells])} |')
    return '\n'.join([*lines, '', table['note'], ''] if table['note'] else [*lines, ''])


def _spread(spread: Mapping[str, float], to_text: Callable[[float], str]) -> str:
    return f'{to_text(spread["median"])} ({to_text(spread["lowest"])}–{to_text(spread["highest"])})'


def _significant(value: float) -> str:
    """At least three digits, and none of them lost before the point."""
    return f'{value:.{max(0, 2 - math.floor(math.log10(value)))}f}' if value > 0 else '0'


def comparison(ours: Measurement | None, theirs: Measurement | None) -> str:
    """A sentence on our candidate and the fastest in PyTorch; '' where one of them is missing."""
    if ours is None or theirs is None:
        return ''
    quotient = _spread(dataclasses.asdict(ratio(ours, theirs)), '{:.2f}'.format)
    return f'{ours.candidate.name} takes {quotient} of the time of {theirs.candidate.name}, the fastest in PyTorch.'
