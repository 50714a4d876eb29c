"""Turning photographs upright by their EXIF orientation."""

from typing import Any

import numpy as np

_TURNS = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}


def turn_upright(pixels: np.ndarray, orientation: Any) -> np.ndarray:
    """Turn an image.

    Args:
        pixels: (H, W) or (H, W, C).
        orientation: EXIF's, 1 to 8; any other value of a file counts as 1, upright.

    Returns:
        (H, W, ...), or (W, H, ...) if it lay on its side; the same memory.
    """
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return turn(pixels) if turn else pixels
