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
        channels: of the true image, 1 or 3; an RGB prediction of a gray image is averaged over its channels.

    Raises:
        UserError: the prediction is gray, and the true image in colour.
    """
    prediction = np.asarray(prediction, np.float64)
    if channels == 1 and prediction.shape[-1] == 3:
        prediction = prediction.mean(axis=-1, keepdims=True)
    if prediction.shape[-1] != channels:
        raise UserError(f'the prediction has {prediction.shape[-1]} channels, the true image {channels}')
    return np.rint(np.clip(prediction * 255, 0, 255)).astype(np.uint8)


def check_channels(protocol: Protocol, given: int, channels: int) -> None:
    """Check that a network for `channels` channels may be scored on an image of `given` channels.

    In super-resolution an RGB network may also restore gray images (Set14 holds one): it sees three equal channels, and
    its output's channels are averaged. Noise and compression differ between gray and colour, so there it is a mistake.

    Raises:
        UserError: a gray network is scored on a colour image; or, except in super-resolution, the reverse.
    """
    if given > channels:
        raise UserError(f'a network for gray images cannot restore a colour image (protocol {protocol.name})')
    if given < channels and not protocol.gray_as_colour:
        raise UserError(
            f'a network for colour images is not scored on a gray image under protocol {protocol.name}: '
            'give a network for gray images'
        )


def check_size(protocol: Protocol, size: tuple[int, int], scale: int, metrics: Mapping[str, Metric]) -> None:
    """Raise `UserError` if an image of this height and width is too small for one of the metrics."""
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
    """The two arrays that a protocol compares, (H', W') or (H', W', C) on [0, 255], without the border.

    Args:
        prediction: float (H, W, C), nominally on [0, 1].
        hr: the true image, uint8 (H, W, 1 or 3).
        scale: the super-resolution factor, on which the border depends; 1 for other tasks.

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

    All numbers are NaN if the prediction holds a value that is not finite.

    Raises:
        UserError: also if fewer pixels remain than a metric needs.
    """
    if not np.isfinite(prediction).all():
        return dict.fromkeys(metrics, math.nan)
    images = compared_images(protocol, prediction, hr, scale)
    return {name: float(metric.function(*images)) for name, metric in metrics.items()}
