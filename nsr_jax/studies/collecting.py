"""The results of a sweep: means and spreads over seeds, and the differences of each member from the first one."""

import csv
import dataclasses
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from nsr_jax.atomic_files import write_atomically
from nsr_jax.errors import UserError
from nsr_jax.studies.one_run import read_failure, read_result
from nsr_jax.studies.plots import Points, draw_curves, draw_rows, draw_sizes
from nsr_jax.studies.study import RECORD, SIZES, Study, describe, read_record
from nsr_jax.studies.table import Plot, Section, to_html, to_json, to_markdown

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
    """Write table.md, table.html, table.csv, table.json, scores.png and differences.png for all runs that are done.

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
    if 'search' in record:
        raise UserError(f'{workdir} holds {record["search"]}: give its --search with --collect')
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
    text = to_markdown(_title(study), sections)
    plots = _draw(study, results, scores, names[0]) if names else []
    write_atomically(workdir / 'table.md', text)
    write_atomically(workdir / 'table.html', to_html(_title(study), sections, plots))
    write_atomically(workdir / 'table.csv', _to_csv(rows))
    write_atomically(workdir / 'table.json', _to_json(study, results, rows, notes))
    for plot in plots:
        write_atomically(workdir / f'{plot.name}.png', plot.png)
    return text


def _sections(study: Study, results: Mapping, rows: Sequence[dict], names: Sequence[str], notes: list) -> list[Section]:
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
    sections = [Section(scored, [*head, *names], values, left=2)]
    if compared:
        text = f'Differences to `{first}`, seed by seed: mean and its {CONFIDENCE:.0%} confidence interval.'
        sections.append(Section(text, ['member', *names], compared, left=1))
    if notes:
        sections.append(Section('Missing:', ['run', 'why'], notes, left=2))
    return sections


def _title(study: Study) -> str:
    return f'{study.name}: {study.config}'


def _draw(study: Study, results: Mapping, scores: Mapping, name: str) -> list[Plot]:
    """The plots of one score: its values, and their differences from the first member's."""
    first, *others = study.members
    values, compared = {}, {}
    for member in study.members:
        seeds = scores[member][name]
        if seeds:
            summary = summarize(list(seeds.values()))
            values[member] = Points(list(seeds.values()), summary.mean, summary.deviation)
        if member in others:
            found = differences(seeds, scores[first][name])
            summary = summarize(found)
            compared[member] = Points(found, summary.mean, summary.high - summary.mean)
    text = f'{name} of each member, for each seed, and their mean'
    label = f'{name}; mean ± standard deviation over seeds'
    against = f'{name}, difference to {first}; mean with {CONFIDENCE:.0%} confidence'
    return [
        Plot('scores', text, _draw_scores(study, results, values, label)),
        Plot(
            'differences',
            f'Differences to {first} for each seed, and their mean',
            draw_rows(compared, against, zero=True),
        ),
    ]


def _draw_scores(study: Study, results: Mapping, values: Mapping[str, Points], label: str) -> bytes:
    if not study.axis:
        return draw_rows(values, label)
    if study.axis in SIZES:
        sizes = {member: next(iter(results[member].values()))[study.axis] for member in values}
        return draw_sizes(values, sizes, (SIZES[study.axis], label))
    places = {member: study.value_of(member, study.axis) for member in values}
    curves: dict[str, list[str]] = {}
    for member in values:
        rest = {field: value for field, value in study.members[member].items() if field != study.axis}
        curves.setdefault(describe(rest), []).append(member)
    return draw_curves(values, places, list(curves.values()), (study.axis, label))


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
            member: {'overrides': study.members[member], 'runs': {str(seed): each for seed, each in runs.items()}}
            for member, runs in results.items()
        },
        'summaries': [
            {'member': row['member'], 'score': row['score']}
            | {name: dataclasses.asdict(row[name]) for name in ('values', 'differences')}
            for row in rows
        ],
        'missing': dict(notes),
    }
    return to_json(contents)
