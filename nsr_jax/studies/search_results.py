"""The results of a search: its trials from the best to the worst, what became of each, and a plot over each field."""

import csv
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nsr_jax.atomic_files import write_atomically
from nsr_jax.studies.one_run import read_failure, read_result
from nsr_jax.studies.plots import draw_trials
from nsr_jax.studies.search import Search
from nsr_jax.studies.table import Plot, Section, to_html, to_json, to_markdown

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_ENDED = ('done', 'stopped')  # before those that failed, and those that have not ended


def collect_search(search: Search) -> str:
    """Write table.md, table.html, table.csv, table.json and trials.png for the trials so far.

    Returns:
        The text of table.md.

    Raises:
        UserError: a file of the search is damaged or cannot be written.
    """
    metric = search.study.runs[0].config.validation.metric
    fields = list(search.study.ranges)
    trials = sorted((_describe(search, trial) for trial in search.trials()), key=_rank)
    head = ['trial', *fields, 'outcome', 'steps', f'merit ({metric})']
    rows = [
        [
            each['trial'],
            *(_short(each['values'].get(field, '')) for field in fields),
            each['outcome'] + (f': {each["reason"]}' if each['reason'] else ''),
            '' if each['steps'] is None else f'{each["steps"]:,}',
            '' if each['merit'] is None else f'{each["merit"]:.5g}',
        ]
        for each in trials
    ]
    text = (
        f'Trials from the best to the worst, by the {metric} of the validation images (larger is better). One that was '
        'stopped was not among the better ones at its last step.'
    )
    sections = [Section(text, head, rows, left=len(fields) + 2)]
    title = f'{search.study.name}: a search from {search.study.config}'
    scored = [each for each in trials if each['merit'] is not None and math.isfinite(each['merit'])]
    plots = []
    if scored:
        picture = draw_trials(
            {field: [each['values'][field] for each in scored] for field in fields},
            [each['merit'] for each in scored],
            ended=[each['outcome'] == 'done' for each in scored],
            log=[field for field, each in search.study.ranges.items() if each.kind == 'log'],
            label=f'{metric} at the last step of each trial',
        )
        plots.append(Plot('trials', f'{metric} of each trial over the fields; pale: stopped before the end', picture))
    markdown = to_markdown(title, sections)
    write_atomically(search.workdir / 'table.md', markdown)
    write_atomically(search.workdir / 'table.html', to_html(title, sections, plots))
    write_atomically(search.workdir / 'table.csv', _to_csv(fields, trials))
    contents = {'sweep': search.study.name, 'config': search.study.config, 'metric': metric, 'trials': trials}
    write_atomically(search.workdir / 'table.json', to_json(contents))
    for plot in plots:
        write_atomically(search.workdir / f'{plot.name}.png', plot.png)
    return markdown


def count_done(search: Search) -> int:
    """How many trials have taken their last step."""
    return sum(trial.state.name == 'COMPLETE' for trial in search.trials())


def count_ended(search: Search) -> int:
    """How many trials have ended: at their last step, before it, or by a failure."""
    return sum(trial.state.is_finished() for trial in search.trials())


def _describe(search: Search, trial: 'FrozenTrial') -> dict[str, Any]:
    """A trial in plain values; its merit is that of its last validation, None before the first."""
    folder = search.folder(trial.number)
    outcome = {'COMPLETE': 'done', 'PRUNED': 'stopped', 'FAIL': 'failed'}.get(trial.state.name, 'not done yet')
    result = read_result(folder) if outcome == 'done' else None
    step = trial.last_step
    return {
        'trial': f'trial_{trial.number}',
        'values': dict(trial.params),
        'outcome': outcome,
        'reason': read_failure(folder) or '' if outcome == 'failed' else '',
        'steps': result['steps'] if result else step,
        'merit': trial.value if outcome == 'done' else None if step is None else trial.intermediate_values[step],
        'scores': result['scores'] if result else {},
    }


def _rank(trial: dict[str, Any]) -> tuple:
    """The order of the table: first the trials that went furthest."""
    merit = trial['merit']
    kind = _ENDED.index(trial['outcome']) if trial['outcome'] in _ENDED else len(_ENDED)
    return kind, merit is None, -(trial['steps'] or 0), 0 if merit is None else -merit


def _short(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _to_csv(fields: Sequence[str], trials: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    names = ('outcome', 'steps', 'merit', 'reason')
    writer.writerow(['trial', *fields, *names])
    for each in trials:
        writer.writerow(
            [each['trial'], *(each['values'].get(field, '') for field in fields), *(each[name] for name in names)]
        )
    return text.getvalue()
