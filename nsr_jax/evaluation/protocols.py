"""Evaluation protocols: what exactly is compared when a score is given.

A protocol says what a network is given, which channel of which rounded prediction is compared, and how much of the
border is left out. Its description belongs beside every score: the same prediction differs by 0.03 dB between two
roundings of Y, and by decibels between Y and RGB.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from nsr_jax.errors import UserError
from nsr_jax.evaluation.metrics import psnr, ssim
from nsr_jax.ops.colour import rgb_to_y, rgb_to_y_uint8
from nsr_jax.ops.imresize import imresize

if TYPE_CHECKING:
    from nsr_jax.data.sources import Example

# The authors' weights of R, G and B, which sum to 0.859: their Y differences are smaller than the image's.
AUTHORS_Y_WEIGHTS = np.array([0.257, 0.504, 0.098])


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How predictions are scored.

    Attributes:
        name: what the user types and the tables print.
        description: one line with channel, shave and rounding, printed beside each score.
        compared: from a uint8 image (H, W, 1 or 3) to what is compared: (H, W), or (H, W, C) whose channels share one
          MSE; uint8 or float64 on [0, 255].
        shave: from the scale to the number of border pixels left out on each side.
        network_input: from (source name, example, scale) to the image that the network is given: uint8, or float on
          [0, 1], (h, w, C).
    """

    name: str
    description: str
    compared: Callable[[np.ndarray], np.ndarray]
    shave: Callable[[int], int]
    network_input: Callable[[str, 'Example', int], np.ndarray]


def _y(image: np.ndarray) -> np.ndarray:
    return image[..., 0] if image.shape[-1] == 1 else rgb_to_y(image)


def _y_uint8(image: np.ndarray) -> np.ndarray:
    return image[..., 0] if image.shape[-1] == 1 else rgb_to_y_uint8(image)


def _authors_y(image: np.ndarray) -> np.ndarray:
    # The sum for 0.859 of the image plus a constant: PSNR sees differences alone; the constant (16) matters to SSIM.
    return image[..., 0] if image.shape[-1] == 1 else image @ AUTHORS_Y_WEIGHTS + 16


def _colours(image: np.ndarray) -> np.ndarray:
    return image


def low_resolution(source_name: str, example: 'Example', scale: int) -> np.ndarray:
    """The example's own low-resolution image, uint8 (h, w, C)."""
    if example.lr is None:
        raise UserError(f'{source_name} has no low-resolution images at scale {scale}; super-resolution needs them')
    return example.lr


def authors_resize(hr: np.ndarray, scale: int) -> np.ndarray:
    """Low-resolution image by the authors' own resize: bicubic, mirrored border, one rounding at the end, half to even.

    Args:
        hr: uint8 (H, W, C), both sides multiples of `scale`.
        scale: the factor to shrink by.

    Returns:
        uint8 (H / scale, W / scale, C).
    """
    return np.rint(imresize(hr.astype(np.float64), 1 / scale, border='mirror')).clip(0, 255).astype(np.uint8)


def authors_low_resolution(source_name: str, example: 'Example', scale: int) -> np.ndarray:
    """What the authors gave their network: DIV2K's own low-resolution images, their own resize of any other set."""
    if source_name.startswith('div2k') or example.lr is None:
        return low_resolution(source_name, example, scale)
    return authors_resize(example.hr, scale)


SR_Y = Protocol(
    'sr-y',
    'Y (BT.601, not rounded) of the prediction rounded to uint8, shave = scale',
    compared=_y,
    shave=lambda scale: scale,
    network_input=low_resolution,
)
SR_Y_UINT8 = Protocol(
    'sr-y-uint8',
    'Y (BT.601, rounded to uint8 as by MATLAB) of the prediction rounded to uint8, shave = scale',
    compared=_y_uint8,
    shave=lambda scale: scale,
    network_input=low_resolution,
)
SR_RGB = Protocol(
    'sr-rgb',
    'RGB with one MSE over the channels, prediction rounded to uint8, shave = scale + 6',
    compared=_colours,
    shave=lambda scale: scale + 6,
    network_input=low_resolution,
)
AUTHORS = Protocol(
    'authors',
    "Y with the authors' weights .257 .504 .098, not rounded, of the prediction rounded to uint8, shave = scale; "
    "low resolution by the authors' own resize (DIV2K: official)",
    compared=_authors_y,
    shave=lambda scale: scale,
    network_input=authors_low_resolution,
)

PROTOCOLS = {protocol.name: protocol for protocol in (SR_Y, SR_Y_UINT8, SR_RGB, AUTHORS)}


def find_protocols(names: Iterable[str]) -> tuple[Protocol, ...]:
    """The protocols of these names.

    Raises:
        UserError: a name is unknown, or there is none.
    """
    names = tuple(names)
    if not names:
        raise UserError(f'no protocol given: one or more of {", ".join(PROTOCOLS)} needed')
    for name in names:
        if name not in PROTOCOLS:
            raise UserError(f'unknown protocol {name!r}: one of {", ".join(PROTOCOLS)} needed')
    return tuple(PROTOCOLS[name] for name in names)


def round_prediction(prediction: np.ndarray, channels: int) -> np.ndarray:
    """A prediction as the picture that is saved and scored: uint8 (H, W, channels), rounded to the nearest.

    Args:
        prediction: finite floats (H, W, C), nominally on [0, 1]; clipped.
        channels: 1 or 3, those of the true image; a colour prediction of a gray image is averaged over its channels.

    Raises:
        UserError: a gray prediction of a colour image.
    """
    prediction = np.asarray(prediction, np.float64)
    if channels == 1 and prediction.shape[-1] == 3:
        prediction = prediction.mean(axis=-1, keepdims=True)
    if prediction.shape[-1] != channels:
        raise UserError(f'the prediction has {prediction.shape[-1]} channels, the true image {channels}')
    return np.rint(np.clip(prediction * 255, 0, 255)).astype(np.uint8)


def compared_images(
    protocol: Protocol, prediction: np.ndarray, hr: np.ndarray, scale: int
) -> tuple[np.ndarray, np.ndarray]:
    """What `protocol` compares: two arrays (H', W') or (H', W', C) on [0, 255], border removed.

    Args:
        protocol: one of `PROTOCOLS`.
        prediction: float (H, W, C), nominally on [0, 1].
        hr: the true image, uint8 (H, W, 1 or 3).
        scale: the super-resolution factor, which says how much border is left out.

    Raises:
        UserError: sizes or channels do not fit, or nothing is left inside the border.
    """
    if prediction.shape[:2] != hr.shape[:2]:
        raise UserError(f'the prediction has size {prediction.shape[:2]}, the true image {hr.shape[:2]}')
    shave = protocol.shave(scale)
    if min(hr.shape[:2]) <= 2 * shave:
        raise UserError(f'nothing is left of an image of size {hr.shape[:2]} without {shave} border pixels')
    inside = slice(shave, hr.shape[0] - shave), slice(shave, hr.shape[1] - shave)
    return protocol.compared(round_prediction(prediction[inside], hr.shape[-1])), protocol.compared(hr[inside])


def score(protocol: Protocol, prediction: np.ndarray, hr: np.ndarray, scale: int) -> tuple[float, float]:
    """(PSNR in dB, SSIM) of one prediction; arguments and errors as in `compared_images`.

    Both are not-a-number where the prediction holds a value that is not finite.

    Raises:
        UserError: also where less than SSIM's 11x11 pixels are left.
    """
    if not np.isfinite(prediction).all():
        return math.nan, math.nan
    images = compared_images(protocol, prediction, hr, scale)
    return psnr(*images), ssim(*images)
