"""Plots of a sweep as PNG files: a dot for each seed, and the mean with its spread."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.figure
import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

_FAR = 4  # the largest place over the smallest, from which an axis is logarithmic


class Points(NamedTuple):
    """Numbers of one member: one for each seed, their mean, and how far the bar reaches above and below it (or NaN)."""

    values: Sequence[float]
    mean: float
    reach: float


def draw_rows(members: Mapping[str, Points], label: str, *, zero: bool = False) -> bytes:
    """One row for each member.

    Args:
        members: by name, from top to bottom.
        label: of the horizontal axis.
        zero: whether a line marks zero.
    """
    figure = matplotlib.figure.Figure(figsize=(7, 1.2 + 0.4 * len(members)), dpi=150, layout='constrained')
    axis = figure.subplots()
    if zero:
        axis.axvline(0, color='0.6', linewidth=1)
    for row, points in enumerate(members.values()):
        axis.plot(points.values, [row] * len(points.values), 'o', color='tab:blue', markersize=4, alpha=0.6)
        if not math.isnan(points.reach):
            axis.errorbar(points.mean, row, xerr=points.reach, fmt='d', color='black', capsize=3)
    axis.set_yticks(range(len(members)), list(members), parse_math=False)
    axis.set_ylim(max(len(members), 1) - 0.5, -0.5)
    axis.set_xlabel(label, parse_math=False)
    return _png(figure)


def draw_curves(
    members: Mapping[str, Points], places: Mapping[str, float], curves: Sequence[Sequence[str]], labels: tuple[str, str]
) -> bytes:
    """The means of members over a field, as in the paper's figure 4.

    Args:
        members: by name.
        places: of each on the horizontal axis.
        curves: members that differ in their place alone, each group joined by a line. A dashed line marks the height of
            one that stands alone.
        labels: of the horizontal and the vertical axis.
    """
    figure, axis = _axes(labels)
    for index, names in enumerate(curves):
        colour = f'C{index % 10}'
        names = sorted(names, key=places.__getitem__)
        means = [members[name].mean for name in names]
        title = f'{names[0]} to {names[-1]}' if len(names) > 1 else names[0]
        if len(names) > 1:
            axis.plot([places[name] for name in names], means, color=colour)
        else:
            axis.axhline(means[0], color=colour, linewidth=1, linestyle='--')
        for name in names:
            _mark(axis, places[name], members[name], colour, title if name == names[0] else None)
    _set_places(axis, sorted(set(places.values())))
    legend = axis.legend(fontsize='small')
    for text in legend.get_texts():
        text.set_parse_math(False)
    return _png(figure)


def draw_sizes(members: Mapping[str, Points], sizes: Mapping[str, float], labels: tuple[str, str]) -> bytes:
    """The means of members over the size of their networks, each with its name, as the paper's table 2 compares them.

    Args:
        members: by name.
        sizes: of each.
        labels: of the horizontal and the vertical axis.
    """
    figure, axis = _axes(labels)
    for index, (name, points) in enumerate(members.items()):
        _mark(axis, sizes[name], points, f'C{index % 10}', None)
        axis.annotate(
            name,
            (sizes[name], points.mean),
            xytext=(6, 4),
            textcoords='offset points',
            fontsize='small',
            parse_math=False,
        )
    axis.margins(x=0.15)
    axis.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter())
    return _png(figure)


def draw_trials(
    values: Mapping[str, Sequence[Any]], heights: Sequence[float], ended: Sequence[bool], log: Sequence[str], label: str
) -> bytes:
    """A panel for each field of a search, with a dot for each trial.

    Args:
        values: by field, of each trial: numbers or texts.
        heights: of each trial on the vertical axis.
        ended: whether each has taken its last step; the others are drawn pale.
        log: fields whose axis is logarithmic.
        label: of the vertical axis.
    """
    figure = matplotlib.figure.Figure(figsize=(3.2 * len(values) + 1, 3.2), dpi=150, layout='constrained')
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for panel, (field, places) in zip(panels, values.items(), strict=True):
        numeric = all(isinstance(each, int | float) and not isinstance(each, bool) for each in places)
        names = sorted({str(each) for each in places})
        where = list(places) if numeric else [names.index(str(each)) for each in places]
        if not numeric:
            panel.set_xticks(range(len(names)), names, parse_math=False)
        for kind, alpha in ((True, 0.9), (False, 0.3)):
            chosen = [index for index, each in enumerate(ended) if each == kind]
            panel.plot(
                [where[index] for index in chosen],
                [heights[index] for index in chosen],
                'o',
                color='tab:blue',
                alpha=alpha,
            )
        panel.set_xscale('log' if field in log else 'linear')
        panel.set_xlabel(field, parse_math=False)
        panel.grid(visible=True, alpha=0.3)
    panels[0].set_ylabel(label, parse_math=False)
    return _png(figure)


def _axes(labels: tuple[str, str]) -> tuple[matplotlib.figure.Figure, Axes]:
    figure = matplotlib.figure.Figure(figsize=(7, 4.5), dpi=150, layout='constrained')
    axis = figure.subplots()
    axis.set_xlabel(labels[0], parse_math=False)
    axis.set_ylabel(labels[1].replace('; ', '\n'), parse_math=False)  # which is shorter than the axis
    axis.grid(visible=True, alpha=0.3)
    return figure, axis


def _mark(axis: Axes, place: float, points: Points, colour: str, label: str | None) -> None:
    axis.plot([place] * len(points.values), points.values, '.', color=colour, alpha=0.4)
    reach = None if math.isnan(points.reach) else points.reach
    axis.errorbar(place, points.mean, yerr=reach, fmt='o', color=colour, capsize=3, label=label)


def _set_places(axis: Axes, places: Sequence[float]) -> None:
    """Ticks where the members stand, on a logarithmic axis if they reach far."""
    if places[0] > 0 and places[-1] >= _FAR * places[0]:
        axis.set_xscale('log', base=2)
    axis.set_xticks(places, [f'{each:g}' for each in places])
    axis.minorticks_off()


def _png(figure: matplotlib.figure.Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
