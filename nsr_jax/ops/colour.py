"""Luma of RGB images (ITU-R BT.601), on which restoration is scored."""

from collections.abc import Iterator

import jax
import numpy as np

from nsr_jax.ops.arrays import plain_array

Array = np.ndarray | jax.Array


def rgb_to_y(rgb: Array) -> Array:
    """Y = (65.481 R + 128.553 G + 24.966 B) / 255 + 16, not rounded.

    Args:
        rgb: (..., 3) on [0, 255], NumPy or JAX.

    Returns:
        (...) on [16, 235], of the same floating-point type; for integers, of the library's default (NumPy: float64).

    Raises:
        ValueError: the last axis does not have 3 channels.
    """
    rgb = rgb if isinstance(rgb, jax.Array) else plain_array(rgb)
    _check_channels(rgb)
    return (65.481 * rgb[..., 0] + 128.553 * rgb[..., 1] + 24.966 * rgb[..., 2]) / 255.0 + 16.0


def rgb_to_y_uint8(rgb: np.ndarray) -> np.ndarray:
    """Y of MATLAB's `rgb2ycbcr`, uint8 (..., 3) to uint8 (...): `rgb_to_y` rounded half up, by exact integers.

    Raises:
        ValueError: another type, or the last axis does not have 3 channels.
    """
    red, green, blue = _integers(rgb)
    return ((65481 * red + 128553 * green + 24966 * blue + 127500) // 255000 + 16).astype(np.uint8)


def rgb_to_gray_uint8(rgb: np.ndarray) -> np.ndarray:
    """Full-range gray as MATLAB's `rgb2gray` makes it (BT.601 weights), uint8 (..., 3) to uint8 (...), rounded half up.

    The gray denoising sets were made like this.

    Raises:
        ValueError: another type, or the last axis does not have 3 channels.
    """
    red, green, blue = _integers(rgb)
    return ((2989 * red + 5870 * green + 1140 * blue + 5000) // 10000).clip(max=255).astype(np.uint8)


def _check_channels(rgb: Array) -> None:
    if rgb.ndim == 0 or rgb.shape[-1] != 3:
        raise ValueError(f'rgb must have 3 channels on its last axis, got shape {rgb.shape}')


def _integers(rgb: np.ndarray) -> Iterator[np.ndarray]:
    """The three planes of a uint8 image as int32."""
    rgb = plain_array(rgb)
    _check_channels(rgb)
    if rgb.dtype != np.uint8:
        raise ValueError(f'rgb must be uint8, got {rgb.dtype}')
    return (rgb[..., channel].astype(np.int32) for channel in range(3))
