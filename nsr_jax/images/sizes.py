"""Sizes of an image and its counterpart, which is `scale` times smaller."""

from collections.abc import Sequence

import numpy as np

from nsr_jax.errors import UserError


def crop_to_multiple(image: np.ndarray, scale: int, name: str) -> np.ndarray:
    """Crop (H, W, C) at the bottom and right to the largest multiples of `scale`, as is usual for HR images.

    Raises:
        UserError: a side is shorter than `scale`; the line names the image by `name`.
    """
    height, width = (side - side % scale for side in image.shape[:2])
    if not (height and width):
        raise UserError(f'{name}: {image.shape[1]}x{image.shape[0]} pixels are too few for scale {scale}')
    return image[:height, :width]


def check_pair(hr: np.ndarray, lr: np.ndarray, scale: int, hr_name: str, lr_name: str) -> None:
    """Raise `UserError` unless `lr` (h, w, C) is `hr` (H, W, C), cropped to a multiple of `scale`, at 1 / `scale`."""
    expected = (hr.shape[0] // scale, hr.shape[1] // scale, hr.shape[2])
    if lr.shape != expected:
        raise UserError(
            f'{lr_name}: {_size(lr.shape)}, but scale {scale} of {hr_name} ({_size(hr.shape)}) needs {_size(expected)}'
        )


def _size(shape: Sequence[int]) -> str:
    return f'{shape[1]}x{shape[0]} pixels of {shape[2]} channel{"s" if shape[2] > 1 else ""}'
