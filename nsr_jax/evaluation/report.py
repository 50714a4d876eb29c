"""The report: one HTML page of scores, pictures and training curves that works offline."""

import base64
import dataclasses
import io
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import matplotlib.figure
import matplotlib.ticker
import numpy as np
import PIL.Image

from nsr_jax.atomic_files import write_atomically
from nsr_jax.evaluation.pictures import read_curves
from nsr_jax.evaluation.scores import Mean, Score, means
from nsr_jax.evaluation.tables import metrics_of
from nsr_jax.metrics import METRICS, Metric
from nsr_jax.page import render
from nsr_jax.tasks import protocol_in_words, published_for
from nsr_jax.tasks.task import Published

ZOOM_SIZE = 64  # side in pixels of the square that is shown enlarged
WINDOW_SIZE = 512  # side in pixels of the part around the square that the page shows
CURVE_POINTS = 500  # longer curves are shortened by averaging neighbouring points

_FIELDS = ('dataset', 'degradation', 'model', 'protocol', 'images')
_FILTERS = ('dataset', 'degradation', 'protocol')
# Colours for light and dark backgrounds, because an embedded SVG does not know the page's.
_INK, _STYLES = '#7b7f83', ('solid', 'dashed', 'dotted')
_LINES = ('#2f7fc1', '#d4691e', '#2a9460', '#b8519f', '#7f6bd0', '#94801f')


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """One image to look at, as each model restored it.

    Attributes:
        name: the example's name.
        images: at least two by label, all uint8 (H, W, 1 or 3) of one H and W: the (enlarged) input, each model's
            prediction, the true image. The page opens with the first beside the last but one.
        scores: numbers by label and metric; labels may be missing.
        place: row and column of the square of `ZOOM_SIZE` pixels that is zoomed first, as from `pictures.choose_crop`.
    """

    dataset: str
    name: str
    images: Mapping[str, np.ndarray]
    scores: Mapping[str, Mapping[str, float]]
    place: tuple[int, int]

    def __post_init__(self):
        shapes = {image.shape[:2] for image in self.images.values()}
        if len(self.images) < 2 or len(shapes) != 1:
            raise ValueError(f'{self.dataset}, {self.name}: two or more images of one size needed, got {shapes}')


def write_report(
    folder: str | os.PathLike,
    title: str,
    scores: Sequence[Score],
    pictures: Sequence[Picture],
    curves: Mapping[str, str | os.PathLike],
    labels: Mapping[str, str] | None = None,
) -> None:
    """Write index.html, which contains everything it shows, into an existing folder.

    Pictures are lossless, with up to `WINDOW_SIZE` pixels a side: each of their images takes some 0.4 MB.

    Args:
        scores: the first table shows their means beside published scores for the same datasets and degradations, which
            are marked and name their protocol; further tables show each image's scores.
        curves: metrics.jsonl of the training by model; the page draws the losses, and the scores during training by the
            metrics of `scores`.
        labels: short names, which stand for those of models everywhere but in a legend of both.

    Raises:
        UserError: a metrics.jsonl cannot be read, or the page cannot be written.
    """
    labels = labels or {}
    metrics = metrics_of(scores)
    rows = _rows(scores, metrics, labels)
    page = render(
        'nsr_jax.evaluation',
        'report.html',
        title=title,
        fields=_FIELDS,
        metrics=metrics,
        rows=rows,
        filters={name: list(dict.fromkeys(getattr(score, name) for score in scores)) for name in _FILTERS},
        protocols={row.protocol: protocol_in_words(row.protocol) for row in rows},
        labels={short: model for model, short in labels.items() if short != model},
        image_tables=_image_tables(scores, metrics, labels),
        pictures=[_picture_to_page(picture, labels) for picture in pictures],
        legend={model: _line(i) for i, model in enumerate(curves)},
        curves=_draw_curves(curves, metrics),
    )
    write_atomically(pathlib.Path(folder) / 'index.html', page)


class _Cell(NamedTuple):
    text: str
    number: str | None  # sort key, in JavaScript's notation; None: the text


def _number(value: float | None, decimals: int) -> _Cell:
    if value is None:
        return _Cell('–', 'NaN')
    if math.isnan(value):
        return _Cell('not a number', 'NaN')
    if math.isinf(value):
        return _Cell('∞' if value > 0 else '−∞', 'Infinity' if value > 0 else '-Infinity')
    return _Cell(f'{value:.{decimals}f}', repr(float(value)))


class _Row(NamedTuple):
    cells: list[_Cell]  # one for each of `_FIELDS`, then one for each metric
    protocol: str
    published: str | None  # training data of a published row, in words; None: the row is ours


def _rows(scores: Sequence[Score], metrics: Mapping[str, Metric], labels: Mapping[str, str]) -> list[_Row]:
    """Our means, then published scores for the same datasets, under the names that these have here."""

    def cells(row: Mean | Published, dataset: str, images: int | None) -> list[_Cell]:
        model = labels.get(row.model, row.model) if isinstance(row, Mean) else row.model
        texts = [_Cell(text, None) for text in (dataset, row.degradation, model, row.protocol)]
        numbers = [_number(row.values.get(name), metric.decimals) for name, metric in metrics.items()]
        return [*texts, _number(images, 0), *numbers]

    rows = [_Row(cells(mean, mean.dataset, mean.images), mean.protocol, None) for mean in means(scores)]
    for dataset, degradation in dict.fromkeys((score.dataset, score.degradation) for score in scores):
        for published in published_for(dataset, degradation):
            training = f'training data: {published.training}' if published.training else 'not trained'
            if metrics.keys() & published.values.keys():
                rows.append(_Row(cells(published, dataset, None), published.protocol, training))
    return rows


class _ImageTable(NamedTuple):
    heading: str
    models: list[str]
    rows: list[list[_Cell]]


def _image_tables(
    scores: Sequence[Score], metrics: Mapping[str, Metric], labels: Mapping[str, str]
) -> list[_ImageTable]:
    """Tables with images as rows and each model's metrics as columns."""
    groups: dict[str, dict[tuple[str, str], Mapping[str, float]]] = {}
    for score in scores:
        heading = f'{score.dataset}, {score.degradation}, {score.protocol}'
        groups.setdefault(heading, {})[score.image, score.model] = score.values
    tables = []
    for heading, group in groups.items():
        images, models = (list(dict.fromkeys(keys)) for keys in zip(*group, strict=True))
        rows = []
        for image in images:
            found = [group.get((image, model), {}) for model in models]
            numbers = [_number(values.get(name), each.decimals) for values in found for name, each in metrics.items()]
            rows.append([_Cell(image, None), *numbers])
        tables.append(_ImageTable(heading, [labels.get(model, model) for model in models], rows))
    return tables


def _picture_to_page(picture: Picture, labels: Mapping[str, str]) -> dict[str, object]:
    """A picture as the template takes it: the window around the zoomed square, as data URIs."""
    sides = next(iter(picture.images.values())).shape[:2]
    window = [min(side, WINDOW_SIZE) for side in sides]
    zoom = min(ZOOM_SIZE, *sides)
    places = [min(max(first, 0), side - zoom) for first, side in zip(picture.place, sides, strict=True)]
    row, column = (
        min(max(place + zoom // 2 - size // 2, 0), side - size)
        for place, size, side in zip(places, window, sides, strict=True)
    )
    images = []
    for label, image in picture.images.items():
        values = picture.scores.get(label, {})
        score = ', '.join(METRICS[name].text_with_unit(value) for name, value in values.items())
        shown = _webp(image[row : row + window[0], column : column + window[1]])
        images.append((labels.get(label, label), shown, score))
    return {
        'heading': f'{picture.dataset}, {picture.name}',
        'images': images,
        'height': window[0],
        'width': window[1],
        'cut': f'{window[1]}×{window[0]} of {sides[1]}×{sides[0]} pixels' if tuple(window) != sides else '',
        'row': places[0] - row,
        'column': places[1] - column,
        'zoom': zoom,
    }


def _webp(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, 'WEBP', lossless=True)
    return _data_uri('image/webp', buffer.getvalue())


def _data_uri(kind: str, contents: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(contents).decode()}'


def _draw_curves(curves: Mapping[str, str | os.PathLike], metrics: Mapping[str, Metric]) -> list[tuple[str, str]]:
    """Heading and plot of the losses, of each metric in each evaluation during training, and of the gates' entropy."""
    plots: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {'Loss': {}} if curves else {}
    for index, path in enumerate(curves.values()):
        for name, points in read_curves(path).items():
            evaluation, _, metric = name.rpartition('/')  # 'loss/ms_ssim' is a term of the loss
            if name == 'loss':
                plots['Loss'][index] = points
            elif name.endswith('gates/entropy'):
                plots.setdefault(f'{evaluation}: entropy (bits)', {})[index] = points
            elif metric in metrics and evaluation not in ('', 'loss'):
                plots.setdefault(f'{evaluation}: {metrics[metric].heading}', {})[index] = points
    return [(heading, _draw(lines, is_loss=heading == 'Loss')) for heading, lines in plots.items()]


def _line(index: int) -> tuple[str, str]:
    """Colour and style of a curve."""
    return _LINES[index % len(_LINES)], _STYLES[index // len(_LINES) % len(_STYLES)]


def _draw(lines: Mapping[int, tuple[np.ndarray, np.ndarray]], *, is_loss: bool) -> str:
    """Lines over the steps, as the data URI of a transparent SVG."""
    figure = matplotlib.figure.Figure(figsize=(4.8, 3), layout='constrained')
    axis = figure.subplots()
    for index, points in lines.items():
        groups = max(1, min(CURVE_POINTS, len(points[0])))
        steps, values = ([part.mean() for part in np.array_split(each, groups)] for each in points)
        marker, (colour, style) = '.' if groups < 3 else '', _line(index)
        axis.plot(steps, values, color=colour, linestyle=style, linewidth=1.5, marker=marker, gid=f'curve_{index}')
    if is_loss and all((values > 0).all() for _, values in lines.values()):
        axis.set_yscale('log')
    axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, steps=(1, 2, 5, 10), integer=True))
    axis.set_xlabel('step', color=_INK)
    axis.tick_params(which='both', colors=_INK, labelcolor=_INK)
    axis.spines[['top', 'right']].set_visible(False)
    axis.spines[['left', 'bottom']].set_color(_INK)
    axis.grid(visible=True, which='major', color=_INK, alpha=0.25, linewidth=0.8)
    figure.patch.set_visible(False)
    axis.patch.set_visible(False)
    buffer = io.BytesIO()
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'nsr_jax'}):
        figure.savefig(buffer, format='svg', metadata={'Date': None})
    return _data_uri('image/svg+xml', buffer.getvalue())
