"""Transparency: the network sees premultiplied colours, and alpha is enlarged by bicubic interpolation.

What a fully transparent pixel's colour is, nobody sees, and editors leave anything there. Premultiplied, it is black
and cannot bleed into what is seen. Dividing what the network answers by the enlarged alpha gives a picture that, laid
over any background, is what the network answered to the premultiplied one. What colour fully transparent pixels had is
lost.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from nsr_jax.ops.imresize import KERNEL_WIDTH, imresize


def to_floats(samples: np.ndarray) -> np.ndarray:
    """Samples of uint8 or uint16 as float32 on [0, 1]."""
    return samples.astype(np.float32) / np.iinfo(samples.dtype).max


def to_samples(values: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """Finite floats, nominally on [0, 1], clipped and rounded to the nearest of uint8 or uint16."""
    largest = np.iinfo(dtype).max
    return np.rint(np.clip(values.astype(np.float64) * largest, 0, largest)).astype(dtype)


def premultiply(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """What a network is given of an image with transparency: its colours times its alpha.

    Args:
        pixels: (H, W, C), uint8 or uint16.
        alpha: (H, W), likewise.

    Returns:
        float32 (H, W, C) on [0, 1]; exactly `to_floats(pixels)` where the image is opaque.
    """
    colours = to_floats(pixels)
    colours *= to_floats(alpha)[..., None]
    return colours


def restore_alpha(strips: Iterable[np.ndarray], alpha: np.ndarray, scale: int) -> Iterator[np.ndarray]:
    """Divide a network's answer by the enlarged alpha and put that beside it.

    Args:
        strips: of what the network answers to `premultiply`'s image, from top to bottom: float32 (rows, scale W, C).
        alpha: of the image as it came, (H, W), uint8 or uint16.
        scale: of the network; at 1 the alpha stays as it is.

    Yields:
        float32 (rows, scale W, C + 1), of as many rows as the strip: colours and alpha on [0, 1]. Where the alpha is
        full, the colours are those of the strip, clipped; where it is zero, they are.
    """
    done = 0
    for strip in strips:
        rows = _enlarged_rows(alpha, scale, done, done + len(strip))[..., None]
        done += len(strip)
        colours = np.divide(strip, rows, out=np.zeros_like(strip), where=rows > 0)
        yield np.concatenate([colours.clip(0, 1), rows], axis=-1)


def _enlarged_rows(alpha: np.ndarray, scale: int, first: int, last: int) -> np.ndarray:
    """Rows first … last - 1 of the enlarged alpha: float32 on [0, 1]. Only the rows that they depend on are touched."""
    if scale == 1:
        return to_floats(alpha[first:last])
    reach = KERNEL_WIDTH // 2 + 1
    start = max(0, first // scale - reach)
    rows = alpha[start : -(-last // scale) + reach]
    enlarged = imresize(rows / np.iinfo(alpha.dtype).max, scale)[first - start * scale : last - start * scale]
    return enlarged.clip(0, 1).astype(np.float32)
