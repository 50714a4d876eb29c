"""Scores as JSON, CSV and Markdown files; a file is whole or it is not there."""

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Sequence

from nsr_jax import markdown
from nsr_jax.atomic_files import write_atomically
from nsr_jax.data.benchmark_sets import find_benchmark
from nsr_jax.errors import UserError
from nsr_jax.evaluation.scoring import Mean, Score, means
from nsr_jax.tasks import all_protocols, published_for

# By the first character of a cell, spreadsheets know a formula.
_FORMULA_STARTS = ('=', '+', '-', '@', '\t', '\r', '\n')

_SPECIAL = {'inf': math.inf, '-inf': -math.inf, 'nan': math.nan}


def _number_to_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _record_to_json(record: Score | Mean) -> dict[str, str | int | float]:
    fields = dataclasses.asdict(record)
    return fields | {name: _number_to_json(fields[name]) for name in ('psnr', 'ssim')}


def to_json(scores: Sequence[Score]) -> str:
    """Protocols in words, means, and each image's score; an infinite PSNR is the string "inf": JSON has no infinity."""
    used = dict.fromkeys(score.protocol for score in scores)
    contents = {
        'protocols': {name: all_protocols()[name].description for name in used},
        'means': [_record_to_json(mean) for mean in means(scores)],
        'scores': [_record_to_json(score) for score in scores],
    }
    return json.dumps(contents, indent=1, allow_nan=False) + '\n'


def from_json(text: str) -> list[Score]:
    """The scores in what `to_json` wrote.

    Raises:
        UserError: the text is something else.
    """
    try:
        records = json.loads(text)['scores']
        numbers = [{name: _SPECIAL.get(record[name], record[name]) for name in ('psnr', 'ssim')} for record in records]
        scores = [Score(**(record | number)) for record, number in zip(records, numbers, strict=True)]
        for score in scores:
            for field in dataclasses.fields(Score):
                kind = (int, float) if field.name in ('psnr', 'ssim') else str
                if not isinstance(getattr(score, field.name), kind):
                    raise ValueError(f'{field.name} is {getattr(score, field.name)!r}')
        return scores
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f'not a file of scores: {error}') from error


def to_csv(scores: Sequence[Score]) -> str:
    """One line for each image and protocol, with a header.

    A name that a spreadsheet would take for a formula gets an apostrophe in front of it, which spreadsheets hide.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n', quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(field.name for field in dataclasses.fields(Score))
    writer.writerows(map(_without_formula, dataclasses.astuple(score)) for score in scores)
    return buffer.getvalue()


def _without_formula(cell: str | float) -> str | float:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell


def to_markdown(scores: Sequence[Score]) -> str:
    """A table of means for each degradation and protocol: models as rows, datasets as columns, cells "PSNR / SSIM".

    What was published for the same whole datasets stands below, marked so, with the protocol that it follows.
    """
    all_means = means(scores)
    parts = []
    for degradation, name in dict.fromkeys((mean.degradation, mean.protocol) for mean in all_means):
        chosen = [mean for mean in all_means if (mean.degradation, mean.protocol) == (degradation, name)]
        # Means over different numbers of images cannot be compared, so they do not share a column.
        cells = {
            (mean.model, f'{mean.dataset} ({mean.images})'): f'{mean.psnr:.2f} / {mean.ssim:.4f}' for mean in chosen
        }
        models, columns = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
        for dataset, images in dict.fromkeys((mean.dataset, mean.images) for mean in chosen):
            known, column = find_benchmark(dataset), f'{dataset} ({images})'
            if not all_protocols()[name].comparable or known is None or known.images != images:
                continue
            for row in published_for(dataset, degradation):
                model = row.described
                models += [model] if model not in models else []
                cells[model, column] = f'{row.psnr:.2f}' + (f' / {row.ssim:.4f}' if row.ssim else '')
        rows = [[model, *(cells.get((model, column), '') for column in columns)] for model in models]
        parts.append(
            f'## {degradation}, protocol `{name}`\n\n'
            'PSNR in dB / SSIM, mean over all images (their number in brackets); '
            f'{all_protocols()[name].description}.\n\n' + markdown.table(['model', *columns], rows)
        )
    return '\n'.join(parts)


def write_tables(folder: str | os.PathLike, scores: Sequence[Score]) -> None:
    """Write scores.json, scores.csv and scores.md into an existing folder.

    Raises:
        UserError: a file cannot be written.
    """
    folder = pathlib.Path(folder)
    write_atomically(folder / 'scores.json', to_json(scores))
    write_atomically(folder / 'scores.csv', to_csv(scores))
    write_atomically(folder / 'scores.md', to_markdown(scores))
