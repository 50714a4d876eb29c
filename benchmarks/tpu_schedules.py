"""How long the schedules are that libtpu writes for the operations of a program, without a TPU.

The compiler writes for each operation the instructions that a TPU issues, one bundle in a cycle unless it stalls. Times
the trips of its loops, their number is the least time that the operation takes. It may issue products faster than the
matrix units take them, a row of 128 numbers or more in a cycle each, so these are a second bound.
"""

import os
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

_NAME = re.compile(r'\d+-(.+)-\d+-final_bundles\.txt')
_BUNDLE = re.compile(r'\s*(?:0x[0-9a-f]+|0)\s+(?:[A-Z]{2})?\s*:\s')
_REGION = re.compile(r'Start region (\d+)\b')
_JUMP = re.compile(r'sbr\.rel \((!?%\w+)\) target = \$region(\d+)')
_PRODUCT = re.compile(r'= (vmatmul[a-z0-9.]*)')
_DELAY = 4  # bundles after a jump that still belong to the loop
_AROUND = 2  # trips of a loop in stages in which its computation does not take part


class Units(NamedTuple):
    """The matrix units of a chip: how many, and how many rows of bfloat16 an instruction gives one of them."""

    count: int
    rows: int


UNITS = {'v5e': Units(4, 16), 'v6e': Units(2, 8)}
_FEWER_ROWS = 8  # of float32, and where an instruction says so


def dump_schedules(folder: str | os.PathLike) -> None:
    """Let libtpu write its schedules into a folder. It must not have been loaded yet."""
    options = {'to': folder, 'llo_text': 'true', 'llo_html': 'false', 'llo_pass_label_regex': '.*final_bundles.*'}
    written = [f'--xla_jf_dump_{name}={value}' for name, value in options.items()]
    os.environ['LIBTPU_INIT_ARGS'] = ' '.join([*written, '--xla_jf_emit_annotations=true', '--xla_jf_debug_level=2'])


def take_schedules(folder: str | os.PathLike, units: Units) -> dict[str, float]:
    """The cycles of each operation that has been compiled since the last call, by its name in the program."""
    found = {}
    for path in sorted(pathlib.Path(folder).iterdir()):
        match = _NAME.fullmatch(path.name)
        if match and not match[1].startswith('<'):
            found[match[1]] = count_cycles(path.read_text(encoding='utf-8', errors='replace'), units)
        path.unlink()
    return found


def count_cycles(schedule: str, units: Units) -> float:
    """The bundles of an operation's schedule, or the rows of its products; those of loops as often as they run.

    Raises:
        ArithmeticError: only the run will know how often a loop runs.
    """
    bundles: list[str] = []
    for line in schedule.splitlines():
        if _BUNDLE.match(line):
            bundles.append(line)
        elif bundles:
            bundles[-1] += line
    times = [1] * len(bundles)
    for start, end, trips in _find_loops(bundles):
        for place in range(start, end):
            times[place] *= trips
    rows = sum(
        count * (_FEWER_ROWS if 'f32' in name or '8' in name.split('.') else units.rows)
        for bundle, count in zip(bundles, times, strict=True)
        for name in _PRODUCT.findall(bundle)
    )
    return max(sum(times), rows / units.count)


def _find_loops(bundles: list[str]) -> Iterator[tuple[int, int, int]]:
    """The first bundle of each loop, that after its last, and its trips: a loop is a jump back."""
    starts = {region: place for place, bundle in enumerate(bundles) for region in _REGION.findall(bundle)}
    for place, bundle in enumerate(bundles):
        for condition, region in _JUMP.findall(bundle):
            start = starts.get(region, place)
            if start >= place:
                continue
            test = re.compile(rf'{condition.lstrip("!")} = scmp\.(?:ge|eq)\.s32\.totalorder [^;]*?, (\d+)')
            limits = [match[1] for each in bundles[start : place + 1] for match in test.finditer(each)]
            if not limits:
                raise ArithmeticError(f'the trips of a loop are not known: {bundle.strip()[:200]}')
            trips = int(limits[-1])
            yield start, place + 1 + _DELAY, max(trips - _AROUND, 1) if 'stage =' in bundles[start] else trips
