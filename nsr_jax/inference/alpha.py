"""Transparency: the network sees premultiplied colours, and alpha is enlarged by bicubic interpolation.

Nobody sees the colour of a fully transparent pixel, and editors leave anything there. Premultiplied, it is black and
cannot bleed into its neighbours. The network's output is divided by the enlarged alpha, so that the result, laid over
any background, shows what the network made of the premultiplied image. The colours of fully transparent pixels are
lost.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from nsr_jax.ops.imresize import KERNEL_WIDTH, imresize


def to_floats(samples: np.ndarray) -> np.ndarray:
    """Samples of uint8, uint16 or floats on [0, 1] as a new float32 array on [0, 1]."""
    floats = samples.astype(np.float32)
    return floats if samples.dtype.kind == 'f' else floats / np.iinfo(samples.dtype).max


def to_samples(values: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """Finite floats, nominally on [0, 1], clipped; and rounded to the nearest if the dtype is uint8 or uint16."""
    dtype = np.dtype(dtype)
    if dtype.kind == 'f':
        return values.clip(0, 1).astype(dtype)
    largest = np.iinfo(dtype).max
    return np.rint(np.clip(values.astype(np.float64) * largest, 0, largest)).astype(dtype)


def premultiply(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The network's input for an image with transparency: its colours times its alpha.

    Args:
        pixels: (H, W, C), uint8, uint16, or floats on [0, 1].
        alpha: uint8 or uint16 (H, W).

    Returns:
        float32 (H, W, C) on [0, 1]; exactly `to_floats(pixels)` where the image is opaque.
    """
    colours = to_floats(pixels)
    colours *= to_floats(alpha)[..., None]
    return colours


def restore_alpha(strips: Iterable[np.ndarray], alpha: np.ndarray, scale: int) -> Iterator[np.ndarray]:
    """Divide a network's output by the enlarged alpha and append that alpha as a channel.

    Args:
        strips: the network's output for `premultiply`'s image, from top to bottom: float32 (rows, scale W, C).
        alpha: the original alpha, uint8 or uint16 (H, W).
        scale: of the network; at 1 the alpha does not change.

    Yields:
        float32 (rows, scale W, C + 1) with the rows of one strip: colours and alpha on [0, 1]. Colours are zero where
        the alpha is zero, and the clipped strip where it is one.
    """
    done = 0
    for strip in strips:
        rows = _enlarged_rows(alpha, scale, done, done + len(strip))[..., None]
        done += len(strip)
        colours = np.divide(strip, rows, out=np.zeros_like(strip), where=rows > 0)
        yield np.concatenate([colours.clip(0, 1), rows], axis=-1)


def _enlarged_rows(alpha: np.ndarray, scale: int, first: int, last: int) -> np.ndarray:
    """Rows first … last - 1 of the enlarged alpha, float32 on [0, 1]; reads only the rows that they depend on."""
    if scale == 1:
        return to_floats(alpha[first:last])
    reach = KERNEL_WIDTH // 2 + 1
    start = max(0, first // scale - reach)
    rows = alpha[start : -(-last // scale) + reach]
    enlarged = imresize(rows / np.iinfo(alpha.dtype).max, scale)[first - start * scale : last - start * scale]
    return enlarged.clip(0, 1).astype(np.float32)
