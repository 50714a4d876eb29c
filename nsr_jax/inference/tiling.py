"""Where the tiles of a large image lie and how much each of them weighs; pure NumPy.

A gate pools over all that it sees, so a network restores a whole image differently from its tiles: the choice of tiling
changes the result, not only the memory. Sizes and places are in input pixels, weights in output pixels.
"""

import dataclasses
import itertools
import numbers
from collections.abc import Iterable, Iterator

import numpy as np

from nsr_jax.errors import UserError

NAMES = ('whole', 'authors', 'feathered')

# The rule of the paper's code.
PATCH = 48  # the side of the low-resolution patches that the authors trained on
BORDER = 4  # what is cut off on each side of a patch's output
KEPT = PATCH - 2 * BORDER
STRIDE = KEPT - 8
SMALLEST_SIDE = 4 * PATCH  # images with a shorter side are seen whole
EDGE_WEIGHT = 0.3

# Sides of the arrays that small images are padded to: compiling for another shape takes as long as tens of such images.
_SMALLEST_SHAPE = 48
_SMALL_SHAPE = 96


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How an image is given to a network.

    Attributes:
        name: 'whole': the whole image at once. 'authors': as in the paper's code; where a network has gates and both
            sides are at least 192, all of it but the skip convolution sees 48x48 patches, whose weighted mean is the
            output; otherwise the whole image. 'feathered': overlapping square tiles, which fade into one another.
        tile: side of the feathered tiles. Tiles are never longer than the image: gates then pool over fewer pixels
            rather than over invented ones.
        overlap: over how many pixels feathered tiles fade, from 1 to half a tile. Tiles are spread evenly, so
            neighbours share at least as many.

    Raises:
        UserError: the name is unknown, or the sizes do not fit.
    """

    name: str
    tile: int = 96
    overlap: int = 16

    def __post_init__(self):
        if self.name not in NAMES:
            raise UserError(f'unknown tiling {self.name!r}: one of {", ".join(NAMES)} needed')
        for name, size, least in (('tile', self.tile, 2), ('overlap', self.overlap, 1)):
            if not isinstance(size, numbers.Integral) or isinstance(size, bool) or size < least:
                raise UserError(f'the {name} of a tiling must be a whole number from {least}, not {size!r}')
            object.__setattr__(self, name, int(size))  # NumPy's integers would look different in tables
        if self.overlap > self.tile // 2:
            raise UserError(f'overlap {self.overlap} is more than half of tile {self.tile}')

    def __str__(self) -> str:
        """The name, and the sizes where they matter, as in tables."""
        return f'{self.name} {self.tile}/{self.overlap}' if self.name == 'feathered' else self.name


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Tile:
    """One tile of an image.

    Attributes:
        row: row of the first input pixel whose output is used.
        column: its column.
        row_weights: (h,), one for each used row of the output; a pixel's weight is that of its row times its column's.
        column_weights: (w,), one for each used column.
    """

    row: int
    column: int
    row_weights: np.ndarray
    column_weights: np.ndarray


def shape_for(height: int, width: int, largest: int | None = None) -> tuple[int, int]:
    """One of a few array shapes, which holds the image: one compiled program then serves images of many sizes.

    An image of at most 48 pixels a side gets 48x48. Otherwise each side is at least 96 and takes four steps to double.

    Args:
        height: of the image.
        width: of the image.
        largest: limit of the sides, which the image keeps; None: no limit.
    """

    def rounded(side: int) -> int:
        step = 2 ** max(0, (side - 1).bit_length() - 3)
        return max(_SMALL_SHAPE, -(-side // step) * step)

    small = max(height, width) <= _SMALLEST_SHAPE
    shape = (_SMALLEST_SHAPE, _SMALLEST_SHAPE) if small else (rounded(height), rounded(width))
    return shape if largest is None else (min(shape[0], largest), min(shape[1], largest))


def authors_tiles(height: int, width: int, scale: int) -> list[Tile]:
    """The authors' patches of an image of at least 192 pixels in both sides, sorted by row.

    A patch is its tile and `BORDER` pixels on each side, reflected at the image's edges. Regular patches in the middle
    weigh 1; one line of patches along each edge weighs 0.3 and covers what the regular ones leave out. The weights of a
    pixel do not sum to one.
    """
    rows, columns = ((side - KEPT) // STRIDE + 1 for side in (height, width))
    last_row, last_column = height - KEPT, width - KEPT
    spare_row, spare_column = last_row - (rows - 1) * STRIDE, last_column - (columns - 1) * STRIDE
    down, across = range(0, rows * STRIDE, STRIDE), range(0, columns * STRIDE, STRIDE)
    places = [(row + spare_row // 2, column + spare_column // 2, 1.0) for row in down for column in across]
    places += [(0, column, EDGE_WEIGHT) for column in across]
    places += [(last_row, column + spare_column, EDGE_WEIGHT) for column in across]
    places += [(row, last_column, EDGE_WEIGHT) for row in down]
    places += [(row + spare_row, 0, EDGE_WEIGHT) for row in down]
    weights = {weight: np.full(scale * KEPT, weight, np.float32) for weight in (1.0, EDGE_WEIGHT)}
    return [Tile(row, column, weights[weight], weights[1.0]) for row, column, weight in sorted(places)]


def feathered_tiles(height: int, width: int, scale: int, tile: int, overlap: int) -> list[Tile]:
    """Tiles of one size, min(tile, height) by min(tile, width), sorted by row; a pixel's weights sum to one."""
    down = _fading(height, tile, overlap, scale)
    across = _fading(width, tile, overlap, scale)
    return [Tile(row, column, falling, sideways) for row, falling in down for column, sideways in across]


def count_feathered(height: int, width: int, tile: int, overlap: int) -> int:
    """How many tiles `feathered_tiles` makes."""
    return _count(height, tile, overlap) * _count(width, tile, overlap)


def _count(side: int, tile: int, overlap: int) -> int:
    """How many tiles there are along one side."""
    return 1 if tile >= side else -(-(side - overlap) // (tile - overlap))


def _fading(side: int, tile: int, overlap: int, scale: int) -> list[tuple[int, np.ndarray]]:
    """First pixel and weights (scale · tile,) of the tiles along one side."""
    tile, count = min(tile, side), _count(side, tile, overlap)
    starts = [round(place) for place in np.linspace(0, side - tile, count)]
    # Each tile's share is its rise minus that of the next one, so the shares sum to one however tiles overlap. It fades
    # around the middle of the pixels that two neighbours share, as far as possible from the edge of either.
    middles = [scale * (before + tile + after) // 2 for before, after in itertools.pairwise(starts)]

    def rise(middle: int, pixels: np.ndarray) -> np.ndarray:
        progress = (pixels + 0.5 - (middle - scale * overlap // 2)) / (scale * overlap)
        return np.square(np.sin(np.pi / 2 * progress.clip(0, 1)))

    shares = []
    for index, start in enumerate(starts):
        pixels = scale * start + np.arange(scale * tile)
        appearing = rise(middles[index - 1], pixels) if index > 0 else 1.0
        vanishing = rise(middles[index], pixels) if index < count - 1 else np.zeros(len(pixels))
        shares.append((start, (appearing - vanishing).astype(np.float32)))
    return shares


def blend(outputs: Iterable[tuple[Tile, np.ndarray]], width: int, scale: int) -> Iterator[np.ndarray]:
    """The weighted mean of overlapping outputs, as strips of finished rows from top to bottom.

    Only the rows of one tile are held at a time.

    Args:
        outputs: tiles sorted by row, which cover every pixel, and the network's output for each: (h, w, C), or larger
            at the bottom and the right, where it is cropped.
        width: of the image, in input pixels.
        scale: size of the output over size of the input.

    Yields:
        float32 (rows, scale · width, C).
    """
    done = 0
    canvas = weights = None
    for tile, output in outputs:
        output = output[: len(tile.row_weights), : len(tile.column_weights)]
        if canvas is None:
            canvas = np.zeros((len(output), scale * width, output.shape[-1]), np.float32)
            weights = np.zeros((len(output), scale * width, 1), np.float32)
        assert weights is not None
        if finished := scale * tile.row - done:
            yield canvas[:finished] / weights[:finished]
            for rows in (canvas, weights):
                rows[:-finished] = rows[finished:]
                rows[-finished:] = 0
            done += finished
        weight = (tile.row_weights[:, None] * tile.column_weights)[..., None]
        place = slice(scale * tile.column, scale * tile.column + output.shape[1])
        canvas[:, place] += weight * output
        weights[:, place] += weight
    assert canvas is not None and weights is not None  # there is a tile at least
    yield canvas / weights
