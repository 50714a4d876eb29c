"""Scores as JSON, CSV and Markdown files."""

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from nsr_jax import markdown
from nsr_jax.atomic_files import write_atomically
from nsr_jax.data.benchmark_sets import find_benchmark
from nsr_jax.errors import UserError
from nsr_jax.evaluation.scores import PUBLISHED_SO_FOR, Mean, Score, means
from nsr_jax.metrics import Metric, find_metrics
from nsr_jax.tasks import all_protocols, protocol_in_words, published_for, published_so_for

# Spreadsheets take a cell that begins with one of these for a formula.
_FORMULA_STARTS = ('=', '+', '-', '@', '\t', '\r', '\n')

_FIELDS = tuple(field.name for field in dataclasses.fields(Score) if field.name != 'values')


def to_record(score: Score | Mean) -> dict[str, str | int | float]:
    """A score for JSON: fields and numbers side by side; a number that is not finite is a text such as "inf"."""
    fields = dataclasses.asdict(score)
    values = fields.pop('values')
    return fields | {name: value if math.isfinite(value) else str(value) for name, value in values.items()}


def read_record(record: Mapping[str, Any]) -> Score:
    """The score in a record of `to_record`; every entry that is not a field of `Score` is a metric's number.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is something else.
    """
    values = {name: float(value) for name, value in record.items() if name not in _FIELDS}
    score = Score(**{name: record[name] for name in _FIELDS}, values=values)
    for name in _FIELDS:
        if not isinstance(record[name], str):
            raise ValueError(f'{name} is {record[name]!r}')
    return score


def to_json(scores: Sequence[Score], models: Mapping[str, Mapping[str, str | int]]) -> str:
    """Protocols in words and whose published scores follow them, how each model was applied, means, each image's score.

    Args:
        models: `Contender.applied` by the name in the scores.
    """
    used = dict.fromkeys(score.protocol for score in scores)
    contents = {
        'protocols': {name: all_protocols()[name].description for name in used},
        PUBLISHED_SO_FOR: {name: published_so_for(name) for name in used},
        'models': models,
        'means': [to_record(mean) for mean in means(scores)],
        'scores': [to_record(score) for score in scores],
    }
    return json.dumps(contents, indent=1, allow_nan=False) + '\n'


def from_json(text: str) -> list[Score]:
    """The scores in a text of `to_json`; raises `UserError` for another text."""
    try:
        return [read_record(record) for record in json.loads(text)['scores']]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'not a file of scores: {error}') from error


def read_models(text: str) -> dict[str, dict[str, Any]]:
    """The models in a text of `to_json`, which earlier versions do not have; raises `UserError` for another text."""
    try:
        return dict(json.loads(text).get('models', {}))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'not a file of scores: {error}') from error


def to_csv(scores: Sequence[Score]) -> str:
    """One line for each image and protocol, with a header; the last column names models with such published scores.

    Names that a spreadsheet would take for formulas begin with an apostrophe, which spreadsheets hide.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n', quoting=csv.QUOTE_NONNUMERIC)
    metrics = metrics_of(scores)
    writer.writerow((*_FIELDS, *metrics, PUBLISHED_SO_FOR))
    models = {name: ', '.join(published_so_for(name)) for name in {score.protocol for score in scores}}
    for score in scores:
        names = (_without_formula(getattr(score, name)) for name in _FIELDS)
        numbers = (score.values.get(name, '') for name in metrics)
        writer.writerow((*names, *numbers, models[score.protocol]))
    return buffer.getvalue()


def metrics_of(scores: Sequence[Score]) -> dict[str, Metric]:
    """The metrics of scores, in their order; raises `UserError` if one is unknown here."""
    names = dict.fromkeys(name for score in scores for name in score.values)
    return find_metrics(names) if names else {}


def _without_formula(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def to_markdown(scores: Sequence[Score]) -> str:
    """A table of means for each degradation and protocol, with models as rows, datasets as columns and cells "PSNR /
    SSIM", or of other metrics.

    Published scores for the same whole datasets follow below, marked as such, with their protocol.
    """
    all_means, metrics = means(scores), metrics_of(scores)
    parts = []
    for degradation, name in dict.fromkeys((mean.degradation, mean.protocol) for mean in all_means):
        chosen = [mean for mean in all_means if (mean.degradation, mean.protocol) == (degradation, name)]
        # Means over different numbers of images cannot be compared, so they do not share a column.
        cells = {(mean.model, f'{mean.dataset} ({mean.images})'): _cell(mean.values, metrics) for mean in chosen}
        models, columns = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
        for dataset, images in dict.fromkeys((mean.dataset, mean.images) for mean in chosen):
            known, column = find_benchmark(dataset), f'{dataset} ({images})'
            if not all_protocols()[name].comparable or known is None or known.images != images:
                continue
            for row in published_for(dataset, degradation):
                if cell := _cell(row.values, metrics):
                    model = row.described
                    models += [model] if model not in models else []
                    cells[model, column] = cell
        rows = [[model, *(cells.get((model, column), '') for column in columns)] for model in models]
        parts.append(
            f'## {degradation}, protocol `{name}`\n\n'
            f'{" / ".join(metric.heading for metric in metrics.values())}, mean over all images (their number in '
            f'brackets); {protocol_in_words(name)}.\n\n' + markdown.table(['model', *columns], rows)
        )
    return '\n'.join(parts)


def _cell(values: Mapping[str, float], metrics: Mapping[str, Metric]) -> str:
    """The numbers of a cell, with dashes for missing ones except at the end; '' if all are missing."""
    texts = [metric.text(values[name]) if name in values else '–' for name, metric in metrics.items()]
    while texts and texts[-1] == '–':
        texts.pop()
    return ' / '.join(texts)


def write_tables(
    folder: str | os.PathLike, scores: Sequence[Score], models: Mapping[str, Mapping[str, str | int]]
) -> None:
    """Write scores.json, scores.csv and scores.md into an existing folder; arguments as in `to_json`.

    Raises:
        UserError: a file cannot be written.
    """
    folder = pathlib.Path(folder)
    write_atomically(folder / 'scores.json', to_json(scores, models))
    write_atomically(folder / 'scores.csv', to_csv(scores))
    write_atomically(folder / 'scores.md', to_markdown(scores))
