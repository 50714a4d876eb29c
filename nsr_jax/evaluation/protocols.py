"""Scores of predictions by the tasks' protocols."""

import math
from collections.abc import Mapping

import numpy as np

from nsr_jax.errors import UserError
from nsr_jax.metrics import Metric
from nsr_jax.tasks.task import Protocol


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
    if given < channels and not protocol.gray_as_colour:
        raise UserError(
            f'a network for colour images is not scored on a gray image under protocol {protocol.name}: '
            'give a network for gray images'
        )


def check_size(protocol: Protocol, size: tuple[int, int], scale: int, metrics: Mapping[str, Metric]) -> None:
    """Raise `UserError` where an image of this height and width is too small to be scored by one of the metrics."""
    shave = protocol.shave(scale)
    metric = max(metrics.values(), key=lambda each: each.smallest_side)
    side, smallest = metric.smallest_side, metric.smallest_side + 2 * shave
    if min(size) < smallest:
        border = f' inside of {shave} border pixels' if shave else ''
        raise UserError(
            f'{size[1]}x{size[0]} pixels are too few for protocol {protocol.name}: {metric.title} needs '
            f'{side}x{side}{border}, so {smallest}x{smallest}'
        )


def compared_images(
    protocol: Protocol, prediction: np.ndarray, hr: np.ndarray, scale: int
) -> tuple[np.ndarray, np.ndarray]:
    """What `protocol` compares: two arrays (H', W') or (H', W', C) on [0, 255], border removed.

    Args:
        protocol: a task's.
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


def score(
    protocol: Protocol, prediction: np.ndarray, hr: np.ndarray, scale: int, metrics: Mapping[str, Metric]
) -> dict[str, float]:
    """Each metric's number for one prediction; the other arguments and errors as in `compared_images`.

    All are not-a-number where the prediction holds a value that is not finite.

    Raises:
        UserError: also where fewer pixels are left than a metric needs.
    """
    if not np.isfinite(prediction).all():
        return dict.fromkeys(metrics, math.nan)
    images = compared_images(protocol, prediction, hr, scale)
    return {name: float(metric.function(*images)) for name, metric in metrics.items()}
