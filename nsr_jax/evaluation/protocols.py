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
from nsr_jax.evaluation.degradation import (
    authors_low_resolution,
    authors_noisy,
    compressed,
    compressed_luma,
    low_resolution,
    low_resolution_luma,
    luma,
    noisy,
)
from nsr_jax.evaluation.metrics import SSIM_WINDOW, psnr, ssim
from nsr_jax.ops.colour import rgb_to_y, rgb_to_y_uint8

if TYPE_CHECKING:
    from nsr_jax.data.sources import Example

# The authors' weights of R, G and B, which sum to 0.859: their Y differences are smaller than the image's.
AUTHORS_Y_WEIGHTS = np.array([0.257, 0.504, 0.098])


def _as_it_is(image: np.ndarray) -> np.ndarray:
    return image


def _nothing(scale: int) -> int:
    del scale
    return 0


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How predictions are scored.

    Attributes:
        name: what the user types and the tables print.
        task: what the network is to undo, one of `degradation.TASKS`.
        description: one line with channel, shave and rounding, printed beside each score.
        network_input: from (source name, example, level of the degradation) to the image that the network is given:
            uint8, or float on [0, 1], (h, w, C).
        truth: from the example's uint8 image (H, W, 1 or 3) to the one that the network is to restore.
        compared: from a uint8 image (H, W, 1 or 3) to what is compared: (H, W), or (H, W, C) whose channels share one
            MSE; uint8 or float64 on [0, 255].
        shave: from the scale to the number of border pixels left out on each side.
    """

    name: str
    task: str
    description: str
    network_input: Callable[[str, 'Example', float], np.ndarray]
    truth: Callable[[np.ndarray], np.ndarray] = _as_it_is
    compared: Callable[[np.ndarray], np.ndarray] = _as_it_is
    shave: Callable[[int], int] = _nothing


def _y(image: np.ndarray) -> np.ndarray:
    return image[..., 0] if image.shape[-1] == 1 else rgb_to_y(image)


def _y_uint8(image: np.ndarray) -> np.ndarray:
    return image[..., 0] if image.shape[-1] == 1 else rgb_to_y_uint8(image)


def _authors_y(image: np.ndarray) -> np.ndarray:
    # The sum for 0.859 of the image plus a constant: PSNR sees differences alone; the constant (16) matters to SSIM.
    return image[..., 0] if image.shape[-1] == 1 else image @ AUTHORS_Y_WEIGHTS + 16


SR_Y = Protocol(
    'sr-y',
    'sr',
    'Y (BT.601, not rounded) of the prediction rounded to uint8, shave = scale',
    compared=_y,
    shave=lambda scale: scale,
    network_input=low_resolution,
)
SR_Y_UINT8 = Protocol(
    'sr-y-uint8',
    'sr',
    'Y (BT.601, rounded to uint8 as by MATLAB) of the prediction rounded to uint8, shave = scale',
    compared=_y_uint8,
    shave=lambda scale: scale,
    network_input=low_resolution,
)
SR_RGB = Protocol(
    'sr-rgb',
    'sr',
    'RGB with one MSE over the channels, prediction rounded to uint8, shave = scale + 6',
    shave=lambda scale: scale + 6,
    network_input=low_resolution,
)
SR_LUMA = Protocol(
    'sr-luma',
    'sr',
    'Y alone, for networks of one channel: Y (BT.601, rounded to uint8 as by MATLAB) of the low-resolution image is '
    'given, the prediction rounded to uint8 is compared with Y of the true one, shave = scale',
    shave=lambda scale: scale,
    network_input=low_resolution_luma,
    truth=luma,
)
AUTHORS = Protocol(
    'authors',
    'sr',
    "Y with the authors' weights .257 .504 .098, not rounded, of the prediction rounded to uint8, shave = scale; "
    "low resolution by the authors' own resize (DIV2K: official)",
    compared=_authors_y,
    shave=lambda scale: scale,
    network_input=authors_low_resolution,
)
DENOISE = Protocol(
    'denoise',
    'denoise',
    'all channels with one MSE, prediction rounded to uint8, no shave; noise not clipped, NumPy seed 0 for each image',
    network_input=noisy,
)
DENOISE_AUTHORS = Protocol(
    'denoise-authors',
    'denoise',
    'all channels with one MSE, prediction rounded to uint8, no shave; noise not clipped, seeded by the SHA-256 of the '
    "file name as in the authors' code",
    network_input=authors_noisy,
)
JPEG_Y = Protocol(
    'jpeg-y',
    'jpeg',
    'Y (BT.601, rounded to uint8 as by MATLAB; gray as it is) compressed by libjpeg as a gray image, prediction '
    'rounded to uint8, no shave',
    network_input=compressed_luma,
    truth=luma,
)
JPEG_RGB = Protocol(
    'jpeg-rgb',
    'jpeg',
    'all channels with one MSE, compressed by libjpeg with 4:2:0 chroma, prediction rounded to uint8, no shave',
    network_input=compressed,
)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (SR_Y, SR_Y_UINT8, SR_RGB, SR_LUMA, AUTHORS, DENOISE, DENOISE_AUTHORS, JPEG_Y, JPEG_RGB)
}


def find_protocols(names: Iterable[str]) -> tuple[Protocol, ...]:
    """The protocols of these names, which must be of one task.

    Raises:
        UserError: a name is unknown, there is none, or they are of several tasks.
    """
    names = tuple(names)
    if not names:
        raise UserError(f'no protocol given: one or more of {", ".join(PROTOCOLS)} needed')
    for name in names:
        if name not in PROTOCOLS:
            raise UserError(f'unknown protocol {name!r}: one of {", ".join(PROTOCOLS)} needed')
        if PROTOCOLS[name].task != PROTOCOLS[names[0]].task:
            raise UserError(f'protocols {names[0]} and {name} are of two tasks and cannot score one network')
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


def check_channels(protocol: Protocol, given: int, channels: int) -> None:
    """Check that a network for images of `channels` channels may be scored on an image that has `given`.

    In super-resolution a network of colours takes gray images too (Set14 holds one): replicated, and its output's
    channels averaged. Noise and compression differ between gray and colour, so there it is a mistake.

    Raises:
        UserError: the network is for gray and the image has colours; or the reverse, but for super-resolution.
    """
    if given > channels:
        raise UserError(f'a network for gray images cannot restore a colour image (protocol {protocol.name})')
    if given < channels and protocol.task != 'sr':
        raise UserError(
            f'a network for colour images is not scored on a gray image under protocol {protocol.name}: '
            'give a network for gray images'
        )


def check_size(protocol: Protocol, size: tuple[int, int], scale: int) -> None:
    """Raise `UserError` where an image of this height and width is too small to be scored."""
    shave = protocol.shave(scale)
    smallest = SSIM_WINDOW + 2 * shave
    if min(size) < smallest:
        border = f' inside of {shave} border pixels' if shave else ''
        raise UserError(
            f'{size[1]}x{size[0]} pixels are too few for protocol {protocol.name}: SSIM needs '
            f'{SSIM_WINDOW}x{SSIM_WINDOW}{border}, so {smallest}x{smallest}'
        )


def compared_images(
    protocol: Protocol, prediction: np.ndarray, hr: np.ndarray, scale: int
) -> tuple[np.ndarray, np.ndarray]:
    """What `protocol` compares: two arrays (H', W') or (H', W', C) on [0, 255], border removed.

    Args:
        protocol: one of `PROTOCOLS`.
        prediction: float (H, W, C), nominally on [0, 1].
        hr: the true image, uint8 (H, W, 1 or 3).
        scale: the super-resolution factor, which says how much border is left out; 1 for other tasks.

    Raises:
        UserError: sizes or channels do not fit, or nothing is left inside the border.
    """
    truth = protocol.truth(hr)
    if prediction.shape[:2] != truth.shape[:2]:
        raise UserError(f'the prediction has size {prediction.shape[:2]}, the true image {truth.shape[:2]}')
    check_channels(protocol, truth.shape[-1], prediction.shape[-1])
    shave = protocol.shave(scale)
    if min(truth.shape[:2]) <= 2 * shave:
        raise UserError(f'nothing is left of an image of size {truth.shape[:2]} without {shave} border pixels')
    inside = slice(shave, truth.shape[0] - shave), slice(shave, truth.shape[1] - shave)
    return protocol.compared(round_prediction(prediction[inside], truth.shape[-1])), protocol.compared(truth[inside])


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
