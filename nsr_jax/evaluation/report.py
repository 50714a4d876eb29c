"""The report that people look at: one HTML page of scores, pictures and training curves that needs no network."""

import base64
import dataclasses
import importlib.resources
import io
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2
import markupsafe
import matplotlib
import matplotlib.figure
import matplotlib.ticker
import numpy as np
import PIL.Image
from matplotlib.backends.backend_svg import FigureCanvasSVG

from nsr_jax.atomic_files import write_atomically
from nsr_jax.errors import UserError
from nsr_jax.evaluation.pictures import read_losses
from nsr_jax.evaluation.scoring import Mean, Score, means
from nsr_jax.tasks import all_protocols, published_for

ZOOM_SIZE = 64  # side in pixels of the square that is shown enlarged
WINDOW_SIZE = 512  # what lies farther out than this window around the square is left out of the page
CURVE_POINTS = 500  # of a longer curve, neighbouring points are averaged

_HEADINGS = {'psnr': 'PSNR (dB)', 'ssim': 'SSIM'}
_DECIMALS = {'psnr': 2, 'ssim': 4}
_FILTERS = ('dataset', 'degradation', 'protocol')
# Colours to draw curves with, which the page's own, light or dark, then take the place of.
_INK, _LINES, _STYLES = '#010100', [f'#01010{i}' for i in range(1, 7)], ('solid', 'dashed', 'dotted')


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """One image to look at, as each model restored it.

    Attributes:
        dataset: the source's name.
        name: the example's name.
        images: by label, at least two, all (H, W, 1 or 3) of one H and W, uint8: what the networks were given
            (enlarged), each model's prediction, the true image. The page opens with the first beside the last but one.
        scores: (PSNR in dB, SSIM) of the labels that have them.
        place: row and column of the first pixel of the square of `ZOOM_SIZE` pixels that is zoomed first, as from
            `pictures.choose_crop`.
    """

    dataset: str
    name: str
    images: Mapping[str, np.ndarray]
    scores: Mapping[str, tuple[float, float]]
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
) -> None:
    """Write index.html, which holds all that it shows, into an existing folder.

    Pictures are kept without loss, up to `WINDOW_SIZE` pixels a side: some 0.4 MB for each of their images.

    Args:
        folder: where to.
        title: above everything.
        scores: means over the images stand in the first table, with what was published for the same datasets and
            degradations, marked so and with the protocol that it follows; each image's in a table for each dataset,
            degradation and protocol.
        pictures: what to look at.
        curves: by the model's name, the metrics.jsonl of its training.

    Raises:
        UserError: a metrics.jsonl cannot be read, or the page cannot be written.
    """
    names = [field.name for field in dataclasses.fields(Mean)]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        (importlib.resources.files('nsr_jax.evaluation') / 'report.html').read_text(encoding='utf-8')
    )
    page = template.render(
        title=title,
        names=names,
        headings=[_HEADINGS.get(name, name) for name in names],
        rows=_rows(scores),
        filters={name: list(dict.fromkeys(getattr(score, name) for score in scores)) for name in _FILTERS},
        protocols={name: all_protocols()[name].description for name in _protocols(scores)},
        image_tables=_image_tables(scores),
        pictures=[_picture_to_page(picture) for picture in pictures],
        legend={model: (i % len(_LINES) + 1, _style(i)) for i, model in enumerate(curves)},
        curves=_draw_curves(curves),
    )
    write_atomically(pathlib.Path(folder) / 'index.html', page)


class _Cell(NamedTuple):
    text: str
    number: str | None  # what the cell is sorted by, as JavaScript writes it; None: by its text


def _cell(name: str, value: str | float | None) -> _Cell:
    if isinstance(value, str):
        return _Cell(value, None)
    if value is None:
        return _Cell('–', 'NaN')
    if math.isnan(value):
        return _Cell('not a number', 'NaN')
    if math.isinf(value):
        return _Cell('∞' if value > 0 else '−∞', 'Infinity' if value > 0 else '-Infinity')
    return _Cell(f'{value:.{_DECIMALS.get(name, 0)}f}', repr(float(value)))


class _Row(NamedTuple):
    cells: list[_Cell]  # for each field of `Mean`
    published: str | None  # of a published row, in words that and on what it was trained; None: it is ours


def _rows(scores: Sequence[Score]) -> list[_Row]:
    """Means, then what was published for the same datasets, under the names that they have here."""
    rows = [_Row([_cell(*item) for item in dataclasses.asdict(mean).items()], None) for mean in means(scores)]
    for dataset, degradation in dict.fromkeys((score.dataset, score.degradation) for score in scores):
        for published in published_for(dataset, degradation):
            known = dataclasses.asdict(published) | {'dataset': dataset}
            cells = [_cell(field.name, known.get(field.name)) for field in dataclasses.fields(Mean)]
            rows.append(_Row(cells, f'training data: {published.training}' if published.training else 'not trained'))
    return rows


def _protocols(scores: Sequence[Score]) -> list[str]:
    """Those of the scores, then those of what was published beside them."""
    cells = dict.fromkeys((score.dataset, score.degradation) for score in scores)
    published = (row.protocol for cell in cells for row in published_for(*cell))
    return list(dict.fromkeys([*(score.protocol for score in scores), *published]))


class _ImageTable(NamedTuple):
    heading: str
    models: list[str]
    rows: list[list[_Cell]]


def _image_tables(scores: Sequence[Score]) -> list[_ImageTable]:
    """Images as rows, models as columns; a field of `Score` that says more of a model goes into its column's name."""
    shared = ('dataset', 'degradation', 'protocol', 'image', 'psnr', 'ssim')
    telling = [field.name for field in dataclasses.fields(Score) if field.name not in shared]
    groups: dict[str, dict[tuple[str, str], Score]] = {}
    for score in scores:
        model = ', '.join(str(getattr(score, name)) for name in telling)
        groups.setdefault(f'{score.dataset}, {score.degradation}, {score.protocol}', {})[score.image, model] = score
    tables = []
    for heading, group in groups.items():
        images, models = (list(dict.fromkeys(keys)) for keys in zip(*group, strict=True))
        rows = []
        for image in images:
            found = [group.get((image, model)) for model in models]
            numbers = [_cell(name, each and getattr(each, name)) for each in found for name in ('psnr', 'ssim')]
            rows.append([_cell('image', image), *numbers])
        tables.append(_ImageTable(heading, models, rows))
    return tables


def _picture_to_page(picture: Picture) -> dict[str, object]:
    """What the template shows of a picture: a window around the zoomed square, as data URIs."""
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
        score = [_cell(name, value).text for name, value in zip(_DECIMALS, picture.scores.get(label, ()), strict=False)]
        images.append((label, _data_uri(image[row : row + window[0], column : column + window[1]]), score))
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


def _data_uri(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, 'WEBP', lossless=True)
    return f'data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}'


def _read_psnrs(path: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By name, such as 'Set5/sr-y', steps and PSNRs of the evaluations in a file that `read_losses` has read."""
    psnrs: dict[str, dict[int, float]] = {}
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
        try:
            record = json.loads(line)
            for name, value in record.items():
                if name.endswith('/psnr'):
                    psnrs.setdefault(name.removesuffix('/psnr'), {})[int(record['step'])] = float(value)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f'{path}, line {number}: not numbers with a "step": {line[:80]!r}') from error
    return {
        name: (np.array(sorted(found)), np.array([found[step] for step in sorted(found)]))
        for name, found in psnrs.items()
    }


def _draw_curves(curves: Mapping[str, str | os.PathLike]) -> list[tuple[str, markupsafe.Markup]]:
    """Heading and picture of the losses, and of the PSNR in each evaluation that was made during training."""
    plots: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    for index, path in enumerate(curves.values()):
        plots.setdefault('Loss', {})[index] = read_losses(path)
        for name, points in _read_psnrs(pathlib.Path(path)).items():
            plots.setdefault(f'{name}: PSNR (dB)', {})[index] = points
    return [(heading, _draw(lines, is_loss=i == 0)) for i, (heading, lines) in enumerate(plots.items())]


def _style(index: int) -> str:
    return _STYLES[index // len(_LINES) % len(_STYLES)]


def _draw(lines: Mapping[int, tuple[np.ndarray, np.ndarray]], is_loss: bool) -> markupsafe.Markup:
    """Lines over the steps as SVG, for HTML; it holds no text but numbers and "step"."""
    figure = matplotlib.figure.Figure(figsize=(4.8, 3), layout='constrained')
    axis = figure.subplots()
    for index, points in lines.items():
        groups = max(1, min(CURVE_POINTS, len(points[0])))
        steps, values = ([part.mean() for part in np.array_split(each, groups)] for each in points)
        marker = '.' if groups < 3 else ''
        colour = _LINES[index % len(_LINES)]
        axis.plot(steps, values, color=colour, linestyle=_style(index), linewidth=1.5, marker=marker)
    if is_loss and all((values > 0).all() for _, values in lines.values()):
        axis.set_yscale('log')
    axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, steps=(1, 2, 5, 10), integer=True))
    axis.set_xlabel('step', color=_INK)
    axis.tick_params(which='both', colors=_INK, labelcolor=_INK)
    axis.spines[['top', 'right']].set_visible(False)
    axis.spines[['left', 'bottom']].set_color(_INK)
    axis.grid(visible=True, which='major', color=_INK, alpha=0.15, linewidth=0.8)
    figure.patch.set_visible(False)
    axis.patch.set_visible(False)
    buffer = io.StringIO()
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'nsr_jax'}):
        FigureCanvasSVG(figure).print_svg(buffer)
    # Only the element itself: what stands before it, and the metadata, name addresses on the network. The names of
    # groups would stand in a page once for each picture.
    svg = re.search('<svg.*</svg>', buffer.getvalue(), re.DOTALL).group()
    svg = re.sub(r'<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>| xmlns(:\w+)?="[^"]*"', '', svg, flags=re.DOTALL)
    svg = re.sub('<g id="[^"]*"', '<g', svg)
    svg = svg.replace(_INK, 'currentColor')
    for number, colour in enumerate(_LINES, start=1):
        svg = svg.replace(colour, f'var(--line-{number})')
    return markupsafe.Markup(svg)
