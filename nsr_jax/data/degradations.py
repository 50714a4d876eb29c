"""Degradations that a network learns to undo, made inside the jitted step from each sample's own key.

A degradation says how large a region of the clean image it needs for a patch, and makes of that region the patch as
the network is given it and the clean patch at the same place.
"""

import dataclasses
import math
import numbers
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import lax

from nsr_jax.errors import UserError
from nsr_jax.ops.jpeg_codec import BLOCK, jpeg

LARGEST_SIGMA = 255
QUALITIES = range(1, 101)


class Degradation(Protocol):
    """What the sampler calls; frozen and hashable, so that a compiled step can be made for it."""

    def region_size(self, patch_size: int, channels: int) -> int:
        """Side of the square region that a patch of this side is made from."""

    def __call__(self, key: jax.Array, region: jax.Array, patch_size: int) -> tuple[jax.Array, jax.Array]:
        """Degrade one sample.

        Args:
            key: the sample's own.
            region: uint8 (R, R, C) of a clean image, R = `region_size(patch_size, C)`.
            patch_size: P.

        Returns:
            input and target (P, P, C), float32; the target is on [0, 1], the input nominally.
        """


@dataclasses.dataclass(frozen=True)
class Noise:
    """White Gaussian noise, not clipped, of a standard deviation drawn uniformly for each sample.

    Attributes:
        lowest: the smallest standard deviation, in 1/255 of the range.
        highest: the largest; equal to `lowest` for a fixed one.

    Raises:
        UserError: they are not numbers from 0 to 255, or not in this order.
    """

    lowest: float
    highest: float

    def __post_init__(self):
        check_sigma(self.lowest)
        check_sigma(self.highest)
        _check_order('sigma', self.lowest, self.highest)

    def region_size(self, patch_size: int, channels: int) -> int:
        """Just the patch."""
        del channels
        return patch_size

    def __call__(self, key: jax.Array, region: jax.Array, patch_size: int) -> tuple[jax.Array, jax.Array]:
        """See `Degradation`."""
        if region.shape[:2] != (patch_size, patch_size):
            raise ValueError(f'region must be the patch of side {patch_size}, got {region.shape}')
        sigma_key, noise_key = jax.random.split(key)
        sigma = jax.random.uniform(sigma_key, (), jnp.float32, self.lowest, self.highest)
        target = region.astype(jnp.float32) / 255
        return target + sigma / 255 * jax.random.normal(noise_key, target.shape, jnp.float32), target


@dataclasses.dataclass(frozen=True)
class Jpeg:
    """JPEG compression of a quality drawn uniformly for each sample, with the patch anywhere on the grid of blocks.

    The region is compressed as if the grid of 8x8 blocks (16x16 for RGB, whose chroma is stored at half the
    resolution) started at its corner, and the patch is cut from it at a random offset below one block. A gray patch is
    then what it would be in a whole image on that grid; so is an RGB one, but for the chroma of pixels on the
    region's border, which a decoder would blend with the next block's.

    Attributes:
        lowest: the lowest quality by libjpeg's rule, 1 to 100.
        highest: the highest; equal to `lowest` for a fixed one.

    Raises:
        UserError: they are not whole numbers from 1 to 100, or not in this order.
    """

    lowest: int
    highest: int

    def __post_init__(self):
        check_quality(self.lowest)
        check_quality(self.highest)
        _check_order('quality', self.lowest, self.highest)

    def region_size(self, patch_size: int, channels: int) -> int:
        """Whole blocks that hold the patch at every offset on the grid."""
        grid = _grid(channels)
        return math.ceil((patch_size + grid - 1) / grid) * grid

    def __call__(self, key: jax.Array, region: jax.Array, patch_size: int) -> tuple[jax.Array, jax.Array]:
        """See `Degradation`."""
        channels = region.shape[-1]
        size = self.region_size(patch_size, channels)
        if region.shape[:2] != (size, size):
            raise ValueError(f'a patch of side {patch_size} needs a region of side {size}, got {region.shape}')
        quality_key, offset_key = jax.random.split(key)
        quality = jax.random.randint(quality_key, (), self.lowest, self.highest + 1, jnp.int32)
        row, column = jax.random.randint(offset_key, (2,), 0, _grid(channels), jnp.int32)
        place, shape = (row, column, jnp.int32(0)), (patch_size, patch_size, channels)
        patches = (lax.dynamic_slice(image, place, shape) for image in (jpeg(region, quality), region))
        degraded, clean = (patch.astype(jnp.float32) / 255 for patch in patches)
        return degraded, clean


def _grid(channels: int) -> int:
    return BLOCK if channels == 1 else 2 * BLOCK


def check_sigma(sigma: float) -> float:
    """Return a standard deviation of noise in 1/255 of the range; UserError unless it is a number from 0 to 255."""
    if not isinstance(sigma, numbers.Real) or isinstance(sigma, bool) or not 0 <= sigma <= LARGEST_SIGMA:
        raise UserError(f'sigma must be a number from 0 to {LARGEST_SIGMA} (of 255 gray levels), not {sigma!r}')
    return sigma


def check_quality(quality: int) -> int:
    """Return a JPEG quality; UserError unless it is a whole number from 1 to 100."""
    if not isinstance(quality, numbers.Integral) or isinstance(quality, bool) or quality not in QUALITIES:
        raise UserError(f'JPEG quality must be a whole number from 1 to 100, not {quality!r}')
    return quality


def _check_order(name: str, lowest: float, highest: float) -> None:
    if lowest > highest:
        raise UserError(f'the range of {name} must go from low to high, not from {lowest} to {highest}')
