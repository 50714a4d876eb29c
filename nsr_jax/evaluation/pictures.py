"""Draws crops side by side, and the loss over the steps, without a window or global state."""

import io
import json
import os
import pathlib
from collections.abc import Sequence

import matplotlib.figure
import matplotlib.patches
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.lib.stride_tricks import sliding_window_view

from nsr_jax.atomic_files import write_atomically
from nsr_jax.errors import UserError

PANEL_INCHES = 2.6
DOTS_PER_INCH = 150


def save_figure(figure: matplotlib.figure.Figure, path: str | os.PathLike) -> None:
    """Write a figure as a PNG file. Raises `UserError` if it cannot be written."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomically(path, buffer.getvalue())


def choose_crop(hr: np.ndarray, prediction: np.ndarray, baseline: np.ndarray, size: int) -> tuple[int, int]:
    """The square in which a prediction lowers a baseline's squared error most.

    Such a crop shows a network at its best: say so where it is published.

    Args:
        hr: the true image, (H, W, C), any numbers; the other two have the same size and range.
        size: side of the square, in pixels; limited by the image.

    Returns:
        Row and column of the square's first pixel.
    """
    hr, prediction, baseline = (image.astype(np.float64) for image in (hr, prediction, baseline))
    gain = (np.square(baseline - hr) - np.square(prediction - hr)).sum(axis=-1)
    sums = np.pad(gain.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    height, width = (min(size, side) for side in gain.shape)
    corners = sliding_window_view(sums, (height + 1, width + 1))
    gains = corners[..., -1, -1] - corners[..., 0, -1] - corners[..., -1, 0] + corners[..., 0, 0]
    row, column = np.unravel_index(np.argmax(gains), gains.shape)
    return int(row), int(column)


def draw_comparison(
    path: str | os.PathLike,
    title: str,
    panels: Sequence[tuple[str, np.ndarray]],
    place: tuple[int, int],
    size: int,
) -> None:
    """Write a PNG with the whole true image, in which the crop is marked, and the same crop of every panel beside it.

    Args:
        panels: caption and image, uint8 (H, W, 1 or 3), all of one size; the last one is the true image.
        place: row and column of the crop's first pixel.
        size: side of the crop in pixels; limited by the image.

    Raises:
        UserError: the file cannot be written.
    """
    figure = matplotlib.figure.Figure(
        figsize=(PANEL_INCHES * (len(panels) + 1), PANEL_INCHES + 0.7), dpi=DOTS_PER_INCH, layout='constrained'
    )
    figure.suptitle(title, fontsize='medium', parse_math=False)  # names may hold $
    row, column = place
    axes = figure.subplots(1, len(panels) + 1)
    crops = [(caption, image[row : row + size, column : column + size]) for caption, image in panels]
    for axis, (caption, image) in zip(axes, [('crop marked', panels[-1][1]), *crops], strict=True):
        axis.imshow(image, cmap='gray', vmin=0, vmax=255, interpolation='nearest')
        axis.set_title(caption, fontsize='small', parse_math=False)
        axis.set_axis_off()
    height, width = crops[-1][1].shape[:2]
    corner = column - 0.5, row - 0.5
    axes[0].add_patch(matplotlib.patches.Rectangle(corner, width, height, fill=False, edgecolor='red', linewidth=1.5))
    save_figure(figure, path)


def read_curves(path: str | os.PathLike) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The curves in a metrics.jsonl by name ('loss' and others): steps and values, sorted by step.

    Args:
        path: of a file with one JSON object of numbers a line; later lines override earlier ones of the same step.

    Raises:
        UserError: the file cannot be read, a line is not such an object, or there is no loss.
    """
    path = pathlib.Path(path)
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path}: cannot be read: {error}') from error
    curves: dict[str, dict[int, float]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            step = int(record.pop('step'))
            for name, value in record.items():
                curves.setdefault(name, {})[step] = float(value)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f'{path}, line {number}: not numbers with a "step": {line[:80]!r}') from error
    if 'loss' not in curves:
        raise UserError(f'{path}: no line with "step" and "loss"')
    return {
        name: (np.array(sorted(found)), np.array([found[step] for step in sorted(found)]))
        for name, found in curves.items()
    }


def plot_losses(metrics_path: str | os.PathLike, picture_path: str | os.PathLike) -> None:
    """Write a PNG of the training loss over the steps, on a logarithmic axis.

    Raises:
        UserError: as in `read_curves`, or the picture cannot be written.
    """
    steps, losses = read_curves(metrics_path)['loss']
    figure = matplotlib.figure.Figure(figsize=(7, 4), dpi=DOTS_PER_INCH, layout='constrained')
    axis = figure.subplots()
    axis.plot(steps, losses, linewidth=1, marker='.' if len(steps) < 3 else '')
    axis.set(xlabel='step', ylabel='loss', yscale='log' if (losses > 0).all() else 'linear')
    axis.grid(visible=True, which='both', alpha=0.3)
    save_figure(figure, picture_path)
