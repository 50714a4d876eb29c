"""Gray images that are stored as colours."""

import numpy as np

_ROUNDING = 2.5 / 255  # how far a decoder's rounding of neutral chroma may move channels apart
_LARGEST_SHARE = 0.1  # of the range of values: dark and flat images may hold colours within the rounding
_ROWS_AT_ONCE = 256


def find_gray(pixels: np.ndarray, alpha: np.ndarray | None = None) -> np.ndarray | None:
    """Find the gray image that is stored as an image of three channels.

    An image is gray if the channels of each pixel differ by no more than decoders round, 2 of 255 (or that share of the
    range of other types), and by no more than a tenth of the range between the darkest and the brightest value. So the
    channels of a dark or flat image have to be closer, and R = G = B is always gray. Invisible pixels, whose alpha is
    zero, do not count.

    Args:
        pixels: (H, W, 3), uint8, uint16, or floats on [0, 1].
        alpha: (H, W); None: all pixels are visible.

    Returns:
        (H, W, 1), of the pixels' dtype: the middle one of each pixel's channels, which was the luma before neutral
        chroma was rounded. None: there are colours.
    """
    most = _ROUNDING * (1 if pixels.dtype.kind == 'f' else np.iinfo(pixels.dtype).max)
    gray = np.empty((*pixels.shape[:2], 1), pixels.dtype)
    apart, lowest, highest = 0.0, np.inf, -np.inf
    for first in range(0, len(pixels), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        low, gray[rows, :, 0], high = np.moveaxis(np.sort(pixels[rows], axis=-1), -1, 0)
        if alpha is not None:
            seen = alpha[rows] > 0
            low, high = low[seen], high[seen]
        if low.size:
            apart = max(apart, float((high - low).max()))
            lowest, highest = min(lowest, float(low.min())), max(highest, float(high.max()))
        if apart > most:
            return None
    return gray if apart == 0 or apart <= _LARGEST_SHARE * (highest - lowest) else None
