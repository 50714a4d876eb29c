"""The results of a sweep: means and spreads over seeds, and the differences of each member from the first one."""

import base64
import csv
import dataclasses
import io
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.figure
import numpy as np
import scipy.stats
from matplotlib.backends.backend_agg import FigureCanvasAgg

from nsr_jax import markdown
from nsr_jax.atomic_files import write_atomically
from nsr_jax.errors import UserError
from nsr_jax.page import render
from nsr_jax.studies.one_run import read_failure, read_result
from nsr_jax.studies.study import RECORD, Study, describe, read_record

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Summary:
    """Statistics of some numbers, one for each seed.

    Attributes:
        count: how many numbers there are.
        mean: their mean; NaN if there are none.
        deviation: their sample standard deviation (n - 1); NaN if there are fewer than two.
        low: lower end of the confidence interval of the mean, by Student's t, at `CONFIDENCE`; NaN as for `deviation`.
        high: its upper end.
    """

    count: int
    mean: float
    deviation: float
    low: float
    high: float


class _Section(NamedTuple):
    """A table and the sentence above it; the first `left` columns hold text."""

    text: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    left: int


def summarize(values: Sequence[float]) -> Summary:
    """The mean of some numbers, their spread, and the confidence interval of the mean."""
    if len(values) < 2 or not np.all(np.isfinite(values)):
        mean = float(np.mean(values)) if len(values) else math.nan
        return Summary(len(values), mean, math.nan, math.nan, math.nan)
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    reach = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Summary(len(values), mean, deviation, mean - reach, mean + reach)


def differences(scores: Mapping[int, float], reference: Mapping[int, float]) -> list[float]:
    """Each score minus the reference's score of the same seed, for the seeds that both have."""
    return [score - reference[seed] for seed, score in scores.items() if seed in reference]


def collect(study: Study, workdir: pathlib.Path) -> str:
    """Write table.md, table.html, table.csv, table.json and differences.png for all runs that are done.

    Args:
        study: of the runs; the other members are compared with its first one.
        workdir: of the sweep.

    Returns:
        The text of table.md.

    Raises:
        UserError: the folder holds another sweep or none; a file in it is damaged or cannot be written.
    """
    record = read_record(workdir / RECORD)
    if record is None or record['sweep'] != study.name:
        raise UserError(f'{workdir} holds {"no sweep" if record is None else "the sweep " + record["sweep"]}')
    results: dict[str, dict[int, dict[str, Any]]] = {member: {} for member in study.members}
    notes = []
    for run in study.runs:
        result = read_result(run.folder(workdir))
        if result is not None:
            results[run.member][run.seed] = result
        else:
            reason = read_failure(run.folder(workdir))
            notes.append([str(run), f'failed: {reason}' if reason else 'not done yet'])
    names = list(dict.fromkeys(name for runs in results.values() for each in runs.values() for name in each['scores']))
    scores = {
        member: {
            name: {seed: each['scores'][name] for seed, each in runs.items() if name in each['scores']}
            for name in names
        }
        for member, runs in results.items()
    }
    first = next(iter(study.members))
    rows = [
        {'member': member, 'score': name, 'seeds': each[name]}
        | {'values': summarize(list(each[name].values()))}
        | {'differences': summarize([] if member == first else differences(each[name], scores[first][name]))}
        for member, each in scores.items()
        for name in names
    ]
    sections = _sections(study, results, rows, names, notes)
    text = _to_markdown(study, sections)
    plot = _draw(study, scores, names[0]) if names else b''
    write_atomically(workdir / 'table.md', text)
    write_atomically(workdir / 'table.html', _to_html(study, sections, plot))
    write_atomically(workdir / 'table.csv', _to_csv(rows))
    write_atomically(workdir / 'table.json', _to_json(study, results, rows, notes))
    if plot:
        write_atomically(workdir / 'differences.png', plot)
    return text


def _sections(
    study: Study, results: Mapping, rows: Sequence[dict], names: Sequence[str], notes: list
) -> list[_Section]:
    first = next(iter(study.members))
    by_member: dict[str, dict[str, dict]] = {}
    for row in rows:
        by_member.setdefault(row['member'], {})[row['score']] = row
    values, compared = [], []
    for member, runs in results.items():
        size = next(iter(runs.values()), None)
        sizes = (
            [f'{size["parameters"]:,}', f'{size["multi_adds"] / 1e9:.2f}', f'{size["steps"]:,}'] if size else [''] * 3
        )
        cells = [by_member.get(member, {})[name] for name in names]
        overrides = describe(study.members[member])
        values.append([member, overrides, *sizes, len(runs), *(_spread(each['values']) for each in cells)])
        if member != first:
            compared.append([member, *(_interval(each['differences']) for each in cells)])
    head = ['member', 'overrides', 'parameters', 'G Multi-Adds', 'steps', 'seeds']
    scored = 'Scores of the validation images after the last step: mean ± standard deviation over seeds.'
    sections = [_Section(scored, [*head, *names], values, left=2)]
    if compared:
        text = f'Differences to `{first}`, seed by seed: mean and its {CONFIDENCE:.0%} confidence interval.'
        sections.append(_Section(text, ['member', *names], compared, left=1))
    if notes:
        sections.append(_Section('Missing:', ['run', 'why'], notes, left=2))
    return sections


def _title(study: Study) -> str:
    return f'{study.name}: {study.config}'


def _to_markdown(study: Study, sections: Sequence[_Section]) -> str:
    tables = [f'{text}\n\n{markdown.table(head, rows, left)}' for text, head, rows, left in sections]
    return f'# {_title(study)}\n\n' + '\n'.join(tables)


def _to_html(study: Study, sections: Sequence[_Section], plot: bytes) -> str:
    """A page that works offline; `plot` is a PNG, or empty."""
    return render(
        'nsr_jax.studies',
        'table.html',
        title=_title(study),
        sections=sections,
        plot=base64.b64encode(plot).decode(),
        first=next(iter(study.members)),
    )


def _spread(summary: Summary) -> str:
    if not summary.count:
        return ''
    deviation = '' if math.isnan(summary.deviation) else f' ± {summary.deviation:.2g}'
    return f'{summary.mean:.5g}{deviation}'


def _interval(summary: Summary) -> str:
    if not summary.count:
        return ''
    interval = '' if math.isnan(summary.low) else f' [{summary.low:+.2g}, {summary.high:+.2g}]'
    return f'{summary.mean:+.3g}{interval}'


def _to_csv(rows: Sequence[dict]) -> str:
    fields = [field.name for field in dataclasses.fields(Summary)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['member', 'score', *fields, *(f'difference_{name}' for name in fields)])
    for row in rows:
        numbers = [*dataclasses.astuple(row['values']), *dataclasses.astuple(row['differences'])]
        writer.writerow([row['member'], row['score'], *('' if math.isnan(each) else each for each in numbers)])
    return text.getvalue()


def _to_json(study: Study, results: Mapping, rows: Sequence[dict], notes: list) -> str:
    contents = {
        'sweep': study.name,
        'config': study.config,
        'compared_with': next(iter(study.members)),
        'confidence': CONFIDENCE,
        'members': {
            member: {'overrides': study.members[member]}
            | {'runs': {str(seed): each | {'scores': _storable(each['scores'])} for seed, each in runs.items()}}
            for member, runs in results.items()
        },
        'summaries': [
            {'member': row['member'], 'score': row['score']}
            | {name: _storable(dataclasses.asdict(row[name])) for name in ('values', 'differences')}
            for row in rows
        ],
        'missing': dict(notes),
    }
    return json.dumps(contents, indent=1, allow_nan=False) + '\n'


def _storable(numbers: Mapping[str, float]) -> dict[str, float | str | None]:
    """Numbers as JSON can hold them: NaN as null, an infinite one as the text "inf"."""
    return {
        name: None if math.isnan(number) else number if math.isfinite(number) else str(number)
        for name, number in numbers.items()
    }


def _draw(study: Study, scores: Mapping[str, Mapping[str, Mapping[int, float]]], name: str) -> bytes:
    """A plot of one score's differences from the first member: a dot for each seed, and the interval of their mean."""
    first, *others = study.members
    figure = matplotlib.figure.Figure(figsize=(7, 1.2 + 0.4 * len(others)), dpi=150, layout='constrained')
    axis = figure.subplots()
    axis.axvline(0, color='0.6', linewidth=1)
    for place, member in enumerate(others):
        found = differences(scores[member][name], scores[first][name])
        summary = summarize(found)
        axis.plot(found, [place] * len(found), 'o', color='tab:blue', markersize=4, alpha=0.6)
        if not math.isnan(summary.low):
            reach = summary.high - summary.mean
            axis.errorbar(summary.mean, place, xerr=reach, fmt='d', color='black', capsize=3)
    axis.set_yticks(range(len(others)), others, parse_math=False)
    axis.set_ylim(len(others) - 0.5, -0.5)
    axis.set_xlabel(f'{name}, difference to {first}; mean with {CONFIDENCE:.0%} confidence', parse_math=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
