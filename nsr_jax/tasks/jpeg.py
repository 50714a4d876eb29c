"""Removal of JPEG artifacts: a network restores what compression took from an image."""

import dataclasses
import functools
import io
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from jax import lax

from nsr_jax.errors import UserError
from nsr_jax.ops.jpeg_codec import BLOCK, SUBSAMPLINGS, jpeg
from nsr_jax.tasks.sr import luma
from nsr_jax.tasks.task import Protocol, Task, check_range, published_rows, read_range


def check_quality(quality: Any) -> None:
    """Raise `UserError` unless a JPEG quality is a whole number from 1 to 100."""
    if not isinstance(quality, numbers.Integral) or isinstance(quality, bool) or quality not in range(1, 101):
        raise UserError(f'JPEG quality must be a whole number from 1 to 100, not {quality!r}')


@dataclasses.dataclass(frozen=True)
class Jpeg:
    """JPEG compression of a quality drawn uniformly for each sample, with the patch anywhere on the grid of blocks.

    The region is compressed as if the grid of 8x8 blocks (16x16 for RGB, whose chroma may be stored at half the
    resolution) started at its corner, and the patch is cut from it at a random offset below one block. So a gray patch
    is the same as in a whole image on that grid. An RGB patch is too, except halved chroma of pixels on the region's
    border, which a decoder would blend with the next block's.

    Attributes:
        lowest: the lowest quality by libjpeg's rule, 1 to 100.
        highest: the highest; equal to `lowest` for a fixed one.
        subsampling: of the chroma of RGB images, one or more of `SUBSAMPLINGS`, of which each sample draws one.

    Raises:
        UserError: the qualities are not whole numbers from 1 to 100, or not in this order; or there is no subsampling,
            or one that is unknown or given twice.
    """

    lowest: int
    highest: int
    subsampling: tuple[str, ...] = SUBSAMPLINGS[:1]

    def __post_init__(self):
        check_range('quality', self.lowest, self.highest, check_quality)
        known = [each for each in SUBSAMPLINGS if each in self.subsampling]
        if not known or len(known) != len(self.subsampling):
            raise UserError(f'subsampling must be one or more of {", ".join(SUBSAMPLINGS)}, not {self.subsampling!r}')

    def region_size(self, patch_size: int, channels: int) -> int:
        """Whole blocks that hold the patch at every offset on the grid."""
        grid = _grid(channels)
        return math.ceil((patch_size + grid - 1) / grid) * grid

    def __call__(self, key: jax.Array, region: jax.Array, patch_size: int) -> tuple[jax.Array, jax.Array]:
        """See `Corruption`."""
        channels = region.shape[-1]
        size = self.region_size(patch_size, channels)
        if region.shape[:2] != (size, size):
            raise ValueError(f'a patch of side {patch_size} needs a region of side {size}, got {region.shape}')
        ways = self.subsampling if channels == 3 else self.subsampling[:1]
        quality_key, offset_key, way_key = jax.random.split(key, 3)
        quality = jax.random.randint(quality_key, (), self.lowest, self.highest + 1, jnp.int32)
        row, column = jax.random.randint(offset_key, (2,), 0, _grid(channels), jnp.int32)
        place, shape = (row, column, jnp.int32(0)), (patch_size, patch_size, channels)
        way = jax.random.randint(way_key, (), 0, len(ways), jnp.int32)
        stored = lax.switch(way, [functools.partial(jpeg, subsampling=each) for each in ways], region, quality)
        patches = (lax.dynamic_slice(image, place, shape) for image in (stored, region))
        compressed, clean = (patch.astype(jnp.float32) / 255 for patch in patches)
        return compressed, clean


def _grid(channels: int) -> int:
    return BLOCK if channels == 1 else 2 * BLOCK


def compress(image: np.ndarray, quality: int, subsampling: str = '4:2:0') -> np.ndarray:
    """An image, uint8 (H, W, 1 or 3), compressed and decompressed by libjpeg; `subsampling` is of `SUBSAMPLINGS`."""
    buffer = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    PIL.Image.fromarray(pixels).save(buffer, 'JPEG', quality=quality, subsampling=subsampling)
    with PIL.Image.open(buffer) as stored:
        return np.array(stored).reshape(image.shape)


JPEG_Y = Protocol(
    'jpeg-y',
    'Y (BT.601, rounded to uint8 as by MATLAB; gray as it is) compressed by libjpeg as a gray image, prediction '
    'rounded to uint8, no shave',
    lambda example, quality: compress(luma(example.hr), int(quality)),
    truth=luma,
)
JPEG_RGB = Protocol(
    'jpeg-rgb',
    'all channels with one MSE, compressed by libjpeg with 4:2:0 chroma, prediction rounded to uint8, no shave',
    lambda example, quality: compress(example.hr, int(quality)),
    comparable=False,
)
JPEG_RGB_444 = Protocol(
    'jpeg-rgb-444',
    'all channels with one MSE, compressed by libjpeg with 4:4:4 chroma, prediction rounded to uint8, no shave',
    lambda example, quality: compress(example.hr, int(quality), '4:4:4'),
    comparable=False,
)

_LEVELS = ('quality 10', 'quality 20', 'quality 30', 'quality 40')
_IMAGES_291, _LARGE = '91 + 200 images', 'DIV2K, Flickr2K, BSD, WED'
# Printed SSIMs mix two implementations and are left out.
PUBLISHED = (
    *published_rows(
        'JPEG', '', 'jpeg-y', _LEVELS, LIVE1='27.77 30.07 31.41 32.35', Classic5='27.82 30.12 31.48 32.43'
    ),
    *published_rows(
        'ARCNN', 'BSDS500, 400 images', 'jpeg-y', _LEVELS,
        LIVE1='28.96 31.29 32.67 33.63', Classic5='29.03 31.15 32.51 33.34',
    ),
    *published_rows(
        'DnCNN-3', _IMAGES_291, 'jpeg-y', _LEVELS,
        LIVE1='29.19 31.59 32.98 33.96', Classic5='29.40 31.63 32.91 33.77',
    ),
    *published_rows(
        'DRUNet', _LARGE, 'jpeg-y', _LEVELS, LIVE1='29.79 32.17 33.59 34.58', Classic5='30.16 32.39 33.59 34.41'
    ),
    *published_rows(
        'SwinIR', _LARGE, 'jpeg-y', _LEVELS, LIVE1='29.86 32.25 33.69 34.67', Classic5='30.27 32.52 33.73 34.52'
    ),
)  # fmt: skip

TASK = Task(
    name='jpeg',
    protocols=(JPEG_Y, JPEG_RGB, JPEG_RGB_444),
    corruption=lambda options: Jpeg(
        *read_range(options, 'quality'), tuple(options.get('subsampling', SUBSAMPLINGS[:1]))
    ),
    check_level=check_quality,
    label=lambda quality: f'quality {quality:g}',
    keeps_chroma=True,
    published=PUBLISHED,
)
