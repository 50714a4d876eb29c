"""Maps of the gates' choices in an image (Fan et al., figure 5): gamma for each local window, drawn and summarised."""

import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import matplotlib
import matplotlib.figure
import matplotlib.patches
import numpy as np
from absl import logging

from nsr_jax.atomic_files import write_atomically
from nsr_jax.errors import UserError
from nsr_jax.evaluation.pictures import DOTS_PER_INCH, PANEL_INCHES, save_figure
from nsr_jax.evaluation.protocols import round_prediction
from nsr_jax.inference.prediction import checked_image, to_network_input
from nsr_jax.models.build import Network


@dataclasses.dataclass(frozen=True, eq=False)
class GateMaps:
    """The gates' weights over the local windows of an image.

    Attributes:
        gammas: by convolution, 'block_00/conv_1' and so on: float32 (rows, columns, k, d), k sparsity groups and d
            cardinal positions. Softmax gates sum to one over k.
        rows: (rows,), the first pixel of each row of windows.
        columns: (columns,), the first pixel of each column of windows.
        window: side of the windows, in pixels.
    """

    gammas: Mapping[str, np.ndarray]
    rows: np.ndarray
    columns: np.ndarray
    window: int


def gate_names(network: Network) -> tuple[str, ...]:
    """The convolutions of a `RestorationNetwork` whose gate chooses: 'block_00/conv_1', 'block_00/conv_2', …"""
    if network.groups == 1 or not network.is_gated:
        return ()
    return tuple(f'block_{block:02}/conv_{conv}' for block in range(network.num_blocks) for conv in (1, 2))


def check_gates(network: Network, names: Sequence[str]) -> None:
    """Raise `UserError` if a network has no gates, or none of one of these names."""
    known = gate_names(network)
    if not known:
        raise UserError('this network has no gates: there is nothing to map')
    for name in names:
        if name not in known:
            raise UserError(f'no gate is called {name!r}: there are {known[0]} to {known[-1]}')


@functools.partial(jax.jit, static_argnames=('network', 'names'))
def _gammas(network: Network, params, windows: jax.Array, names: tuple[str, ...]) -> dict[str, jax.Array]:
    _, state = network.apply({'params': params}, windows, method='body', mutable='intermediates')
    gammas = {}
    for name in names:
        block, conv = name.split('/')
        (gammas[name],) = state['intermediates'][block][conv]['gate']['gamma']
    return gammas


def map_gates(
    network: Network,
    params: Any,
    image: np.ndarray,
    names: Sequence[str] = (),
    *,
    window: int = 48,
    stride: int = 16,
    window_batch: int = 16,
) -> GateMaps:
    """Apply a network to each local window of an image separately, and return the choices of its gates.

    All windows of all images share one compiled function.

    Args:
        network: a `RestorationNetwork` with gates.
        image: (H, W, C), uint8 or float on [0, 1], as for `inference.prediction`.
        names: some of `gate_names`; none: all of them.
        window: side of the square windows, in pixels; networks are trained on 48.
        stride: pixels from one window to the next. Pixels outside of whole windows are split evenly between the edges.
        window_batch: how many windows run at once.

    Raises:
        UserError: as in `check_gates`; the image does not fit the network or is smaller than a window; or a size is
            below one.
    """
    pixels = checked_image(network, image)
    check_gates(network, names)
    names = tuple(names) or gate_names(network)
    for name, size in (('window', window), ('stride', stride), ('window_batch', window_batch)):
        if size < 1:
            raise UserError(f'the {name} of gate maps must be at least 1, not {size}')
    if min(pixels.shape[:2]) < window:
        raise UserError(f'an image of size {pixels.shape[:2]} has no window of {window} pixels')
    rows, columns = (
        (side - window) % stride // 2 + np.arange(0, side - window + 1, stride) for side in pixels.shape[:2]
    )
    places = [(row, column) for row in rows for column in columns]
    batches = []
    for start in range(0, len(places), window_batch):
        batch = places[start : start + window_batch]
        batch += [batch[-1]] * (window_batch - len(batch))
        windows = np.stack([pixels[row : row + window, column : column + window] for row, column in batch])
        with jax.default_matmul_precision('float32'):
            batches.append(_gammas(network, params, to_network_input(windows, network.channels), names))
    gammas = {
        name: np.concatenate([batch[name] for batch in batches])[: len(places)].reshape(
            len(rows), len(columns), network.groups, network.cardinality
        )
        for name in batches[0]
    }
    return GateMaps(gammas, rows, columns, window)


def gate_entropy(gamma: np.ndarray) -> float:
    """Mean entropy of gates in bits: 0 if each chooses one of k groups, log2(k) if all groups have equal weights.

    Args:
        gamma: (..., k, d), not negative; it is divided by its sum over k, which matters for sigmoid gates.
    """
    gamma = gamma.astype(np.float64)
    shares = gamma / gamma.sum(axis=-2, keepdims=True)
    logarithms = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return float(0 - (shares * logarithms).sum(axis=-2).mean())  # a minus sign alone would make -0 of 0


def block_entropies(maps: GateMaps) -> dict[str, float]:
    """Mean entropy in bits of the gates of each mapped block, over windows, positions and convolutions."""
    blocks: dict[str, list[float]] = {}
    for name, gamma in maps.gammas.items():
        blocks.setdefault(name.partition('/')[0], []).append(gate_entropy(gamma))
    return {block: float(np.mean(entropies)) for block, entropies in blocks.items()}


def save_gate_maps(path: str | os.PathLike, maps: GateMaps) -> None:
    """Write the arrays as .npz: the names of `maps.gammas`, 'rows', 'columns' and 'window'.

    Raises:
        UserError: the file cannot be written.
    """
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {'rows': maps.rows, 'columns': maps.columns, 'window': maps.window, **maps.gammas}
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def draw_gate_maps(
    path: str | os.PathLike, title: str, image: np.ndarray, maps: GateMaps, positions: Sequence[int] = ()
) -> None:
    """Write a PNG with a row for each convolution: the image, and the strongest group of each window as a colour.

    Args:
        image: the mapped image, uint8 (H, W, 1 or 3).
        positions: the cardinal positions to show, of 0 … d - 1; none: the first four.

    Raises:
        UserError: a position does not exist, or the file cannot be written.
    """
    groups, cardinality = next(iter(maps.gammas.values())).shape[-2:]
    positions = tuple(positions) or range(min(4, cardinality))
    for position in positions:
        if not 0 <= position < cardinality:
            raise UserError(f'there is no cardinal position {position}: there are 0 to {cardinality - 1}')
    lines = len(maps.gammas)
    panel_height = PANEL_INCHES * image.shape[0] / image.shape[1] + 0.3
    size = PANEL_INCHES * (len(positions) + 1), panel_height * lines + 0.8
    figure = matplotlib.figure.Figure(figsize=size, dpi=DOTS_PER_INCH, layout='constrained')
    figure.suptitle(title, fontsize='medium', parse_math=False)  # names may hold $
    colours = _group_colours(groups)
    all_axes = figure.subplots(lines, len(positions) + 1, squeeze=False)
    for axes, (name, gamma) in zip(all_axes, maps.gammas.items(), strict=True):
        axes[0].imshow(image, cmap='gray', vmin=0, vmax=255, extent=(0, image.shape[1], image.shape[0], 0))
        axes[0].set_title(f'{name}: {gate_entropy(gamma):.2f} of {np.log2(groups):.3g} bits', fontsize='small')
        for axis, position in zip(axes[1:], positions, strict=True):
            strongest = gamma[:, :, :, position].argmax(axis=-1)
            axis.imshow(colours[strongest], extent=_extent(maps), interpolation='nearest')
            axis.set_title(f'position {position}', fontsize='small')
        for axis in axes:  # each cell of a map lies in the middle of its window
            axis.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0), xticks=[], yticks=[])
    keys = [matplotlib.patches.Patch(color=colour, label=f'group {group}') for group, colour in enumerate(colours)]
    figure.legend(handles=keys, loc='outside lower center', ncols=min(groups, 8), fontsize='small')
    save_figure(figure, path)


def write_gate_maps(
    path: str | os.PathLike, title: str, network: Network, params: Any, image: np.ndarray, names: Sequence[str]
) -> dict[str, float]:
    """Map an image with the default windows, write the maps of some gates, and log the entropies of all.

    Args:
        path: of the two files, to which .npz and .png are added.
        names: the gates to write, of `gate_names`.

    Returns:
        The mean entropy of each block in bits, as in `block_entropies`.

    Raises:
        UserError: as in `map_gates`, or a file cannot be written.
    """
    check_gates(network, names)
    maps = map_gates(network, params, image)
    chosen = dataclasses.replace(maps, gammas={name: maps.gammas[name] for name in names})
    path = pathlib.Path(path)
    save_gate_maps(path.with_name(f'{path.name}.npz'), chosen)
    pixels = image if image.dtype == np.uint8 else round_prediction(image, image.shape[-1])
    draw_gate_maps(path.with_name(f'{path.name}.png'), title, pixels, chosen)
    entropies = block_entropies(maps)
    told = ', '.join(f'{block} {entropy:.3f}' for block, entropy in entropies.items())
    logging.info('%s: entropy of the gates, in bits (at most %.3g): %s', path.name, np.log2(network.groups), told)
    return entropies


def _group_colours(groups: int) -> np.ndarray:
    """Distinct colours (k, 3): from a list of ten, or evenly spread hues if there are more groups."""
    if groups <= 10:
        return matplotlib.colormaps['tab10'](np.arange(groups))[:, :3]
    return matplotlib.colormaps['hsv'](np.arange(groups) / groups)[:, :3]


def _extent(maps: GateMaps) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of the maps in the image: each cell in the middle of its window."""

    def ends(starts: np.ndarray) -> tuple[float, float]:
        step = starts[1] - starts[0] if len(starts) > 1 else maps.window
        first = starts[0] + (maps.window - step) / 2
        return first, first + step * len(starts)

    (top, bottom), (left, right) = ends(maps.rows), ends(maps.columns)
    return left, right, bottom, top
