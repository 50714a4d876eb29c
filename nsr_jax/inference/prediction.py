"""Predictions of whole images and of tiles, by compiled functions of fixed shapes.

All arithmetic is float32 on every backend, unless the network's own dtype is lower.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nsr_jax.errors import UserError
from nsr_jax.forks import check_not_forked
from nsr_jax.inference.alpha import to_floats
from nsr_jax.inference.devices import apply_on_mesh, on_first_device, own_part
from nsr_jax.inference.ensemble import average
from nsr_jax.inference.tiling import (
    BORDER,
    PATCH,
    SMALLEST_SIDE,
    Tile,
    Tiling,
    authors_tiles,
    blend,
    feathered_tiles,
    shape_for,
)
from nsr_jax.models.build import Network
from nsr_jax.ops.arrays import View, plain_array

PIXELS_AT_ONCE = 16 * PATCH**2  # in the tiles that run together on a device: bounds its memory


@functools.partial(jax.jit, static_argnames='network')
def _restore(network: Network, params, images: jax.Array, extents: jax.Array | None = None) -> jax.Array:
    options = {} if extents is None else {'extents': extents}
    return network.apply({'params': params}, images, **options).astype(jnp.float32)


@functools.partial(jax.jit, static_argnames='network')
def _restore_patches(network: Network, params, patches: jax.Array, inside: jax.Array) -> jax.Array:
    """The kept part of the authors' patches: the body sees the patch alone, the skip convolution the whole image.

    Both are averaged in the same way afterwards. The skip convolution reaches two pixels, less than a patch's border;
    beyond the image it sees the mean, which the network subtracts, so it pads with zeros.
    """
    body = network.apply({'params': params}, patches, method='body')
    skip = network.apply({'params': params}, jnp.where(inside, patches, network.mean), method='skip')
    kept = (body.astype(jnp.float32) + skip.astype(jnp.float32))[:, BORDER:-BORDER, BORDER:-BORDER]
    return network.apply({'params': params}, kept, method='assemble')


_restore_ensemble, _restore_patches_ensemble = average(_restore), average(_restore_patches)


def _run(
    function: Callable[..., jax.Array],
    network: Network,
    params: Any,
    cut: Callable[[Tile], tuple[np.ndarray, ...]],
    tiles: Sequence[Tile],
    *,
    tile_batch: int,
    mesh: Mesh | None,
) -> Iterator[tuple[Tile, np.ndarray]]:
    """Outputs of `function` on batches of the tiles that `cut` cuts out; the last tile fills up the last batch."""
    if mesh is not None:
        tile_batch *= mesh.size
    running: tuple[Sequence[Tile], Any] = (), ()
    for start in range(0, len(tiles), tile_batch):
        batch = list(tiles[start : start + tile_batch])
        filled = batch + [batch[-1]] * (tile_batch - len(batch))
        own = filled if mesh is None else own_part(filled, mesh)
        arrays = [np.stack(parts) for parts in zip(*map(cut, own), strict=True)]
        # Without this, GPUs would multiply in TF32, which moves scores.
        with jax.default_matmul_precision('float32'):
            if mesh is None:
                outputs = function(network, params, *arrays)
            else:
                outputs = apply_on_mesh(function, network, params, arrays, mesh)
        # The device works on this batch while the host blends the one before.
        yield from zip(running[0], np.asarray(running[1]), strict=False)
        running = batch, outputs
    yield from zip(running[0], np.asarray(running[1]), strict=False)


def checked_image(network: Network, image: Any) -> np.ndarray | View:
    """The image as a plain array or view that the network accepts.

    Raises:
        UserError: it is not an array, not (height, width, 1 or 3), neither uint8 nor floats, or in colour although the
            network is for gray images.
    """
    image = image if isinstance(image, View) else plain_array(image)
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise UserError(f'an image must be (height, width, 1 or 3), not {image.shape}')
    if 0 in image.shape:
        raise UserError(f'an image must have pixels, but {image.shape} has none')
    if image.dtype != np.uint8 and image.dtype.kind != 'f':
        raise UserError(f'an image for a network must be uint8 or floats on [0, 1], not {image.dtype}')
    if image.shape[-1] > network.channels:
        raise UserError('a network for gray images cannot restore a colour image')
    return image


def to_network_input(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Pixels (..., 1 or 3), uint8 or float on [0, 1], as float32 (..., channels); gray is repeated for RGB."""
    pixels = to_floats(pixels)
    return np.repeat(pixels, channels, axis=-1) if pixels.shape[-1] < channels else pixels


def _fit(network: Network, pixels: np.ndarray, largest: int | None) -> tuple[np.ndarray, ...]:
    """A network's input (h, w, C), padded to a shape that many sizes share, and its extent.

    A whole tile, or an image that fills its array anyway, is returned without an extent.
    """
    extent = pixels.shape[:2]
    if not getattr(network, 'takes_extents', False):
        return (pixels,)
    shape = shape_for(extent[0], extent[1], largest)
    if extent == (shape if largest is None else (largest, largest)):
        return (pixels,)
    margins = [(0, most - side) for most, side in zip(shape, extent, strict=True)]
    return np.pad(pixels, [*margins, (0, 0)]), np.array(extent, np.int32)


def _reflected(indices: np.ndarray, side: int) -> np.ndarray:
    """Indices, mirrored at the first and the last pixel where they lie outside 0 … side - 1."""
    return side - 1 - np.abs(side - 1 - np.abs(indices))


def predict_strips(
    network: Network,
    params: Any,
    image: np.ndarray | View,
    *,
    tiling: Tiling,
    ensemble: bool = False,
    tile_batch: int | None = None,
    mesh: Mesh | None = None,
    on_progress: Callable[[float], object] | None = None,
) -> Iterator[np.ndarray]:
    """Restore one image strip by strip, from top to bottom; `np.concatenate` of the strips is what `predict` returns.

    With tiles, the host holds the input image and the rows of one tile, and each device one batch of tiles.

    Arguments and errors are those of `predict`, except that the image may be a `View`, errors are raised before the
    first strip is computed, each process of a mesh must take all strips, and `on_progress` is called after each tile
    with the share of the tiles that are done, up to 1. Strips are float32 (rows, scale W, the network's channels).
    """
    check_not_forked()
    image = checked_image(network, image)
    height, width = image.shape[:2]
    largest = tiling.tile if tiling.name == 'feathered' else None
    if tiling.name == 'authors' and network.has_parts and network.is_gated and min(height, width) >= SMALLEST_SIDE:
        side = PATCH
        tiles = authors_tiles(height, width, network.scale)
        function = _restore_patches_ensemble if ensemble else _restore_patches

        def cut(tile: Tile) -> tuple[np.ndarray, ...]:
            rows, columns = (np.arange(first - BORDER, first - BORDER + PATCH) for first in (tile.row, tile.column))
            pixels = image[_reflected(rows, height)[:, None], _reflected(columns, width)]
            inside = (rows == rows.clip(0, height - 1))[:, None] & (columns == columns.clip(0, width - 1))
            return to_network_input(pixels, network.channels), inside[..., None]

    else:  # an image that is seen whole is one tile
        side = largest or max(height, width)
        tiles = feathered_tiles(height, width, network.scale, side, tiling.overlap)
        function = _restore_ensemble if ensemble else _restore

        def cut(tile: Tile) -> tuple[np.ndarray, ...]:
            pixels = image[tile.row : tile.row + side, tile.column : tile.column + side]
            return _fit(network, to_network_input(pixels, network.channels), largest)

    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    default = 1 if platform == 'cpu' else max(1, PIXELS_AT_ONCE // side**2)
    at_once = 1 if len(tiles) == 1 else tile_batch or default
    if mesh is not None and len(tiles) <= at_once:  # several devices would be no faster
        mesh, params = None, on_first_device(params)

    def outputs() -> Iterator[tuple[Tile, np.ndarray]]:
        answers = _run(function, network, params, cut, tiles, tile_batch=at_once, mesh=mesh)
        for number, answer in enumerate(answers, start=1):
            if on_progress:
                on_progress(number / len(tiles))
            yield answer

    return blend(outputs(), width, network.scale)


def predict(
    network: Network,
    params: Any,
    image: np.ndarray,
    *,
    tiling: Tiling,
    ensemble: bool = False,
    tile_batch: int | None = None,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Restore one image.

    Args:
        network: restores; see `models.build.Network`.
        params: its 'params' collection; an argument of the compiled functions, so that new parameters cost no
            compilation.
        image: (H, W, C), uint8 or float on [0, 1], of any type that `ops.arrays.plain_array` takes; gray is repeated
            for an RGB network.
        tiling: what the network sees at once. One compiled function serves the tiles of all images. Smaller or whole
            images share one function for each of a few shapes (`tiling.shape_for`); the network is told where the image
            ends.
        ensemble: whether to average over the eight flips and transposes of each tile (or of an image that is seen
            whole), for eight times the work.
        tile_batch: how many tiles a device always computes at once; None: one on a CPU, whose caches hold no more,
            elsewhere as many as 36,864 pixels make up, at least one.
        mesh: devices that share the tiles, as from `devices.mesh_of`, with `params` replicated on it; an image with too
            few tiles to occupy several devices uses one. All its processes must call this alike, with the same image,
            and get the same prediction. None: one device.

    Returns:
        float32 (scale H, scale W, the network's channels), nominally on [0, 1], not clipped.

    Raises:
        UserError: the image's shape, type or channels do not fit, or this process was forked after JAX had been used.
    """
    options = {'tiling': tiling, 'ensemble': ensemble, 'tile_batch': tile_batch, 'mesh': mesh}
    pixels = checked_image(network, image)
    return join_strips(predict_strips(network, params, pixels, **options), network.scale * pixels.shape[0])


def join_strips(strips: Iterable[np.ndarray], height: int) -> np.ndarray:
    """The image (height, …) that strips make up, which is filled as they come, so that they are never held twice."""
    whole, done = None, 0
    for strip in strips:
        if len(strip) == height:
            return strip
        if whole is None:
            whole = np.empty((height, *strip.shape[1:]), strip.dtype)
        whole[done : done + len(strip)] = strip
        done += len(strip)
    assert whole is not None  # there is a strip at least
    return whole
