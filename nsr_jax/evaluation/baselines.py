"""Predictors without a checkpoint, to score beside networks on the same degraded images."""

import functools
import importlib
from collections.abc import Callable, Sequence

import numpy as np

from nsr_jax.errors import UserError
from nsr_jax.evaluation.degradation import Degradation
from nsr_jax.ops.imresize import imresize


def bicubic(scale: int, image: np.ndarray) -> np.ndarray:
    """A uint8 image enlarged by MATLAB's bicubic `imresize`, float64 on [0, 1]."""
    return imresize(image, scale) / 255


def degraded(level: float, image: np.ndarray) -> np.ndarray:
    """What the network is given, uint8 or float on [0, 1], as it is: float on [0, 1]."""
    del level
    return image / 255 if image.dtype == np.uint8 else image


def bm3d(sigma: float, image: np.ndarray) -> np.ndarray:
    """BM3D (Dabov et al., 2007) by the `bm3d` package, told the noise's standard deviation.

    Args:
        sigma: above 0, in 1/255 of the range.
        image: float (H, W, C), nominally on [0, 1].

    Returns:
        float (H, W, C).
    """
    package = importlib.import_module('bm3d')
    if image.shape[-1] == 1:
        return package.bm3d(image[..., 0].astype(np.float64), sigma / 255).reshape(image.shape)
    return package.bm3d_rgb(image.astype(np.float64), sigma / 255)


# Each called with the level of the degradation and an image gives a prediction; and the tasks that it is for.
BASELINES = {
    'bicubic': (bicubic, ('sr',)),
    'degraded': (degraded, ('denoise', 'jpeg')),
    'bm3d': (bm3d, ('denoise',)),
}


def find_baselines(names: Sequence[str], degradation: Degradation) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """The predictors of these names for a degradation.

    Raises:
        UserError: a name is unknown, the baseline is for another task, or its package is missing.
    """
    for name in names:
        if name not in BASELINES:
            raise UserError(f'unknown baseline {name!r}: one of {", ".join(BASELINES)} needed')
        _, tasks = BASELINES[name]
        if degradation.task not in tasks:
            fitting = ', '.join(other for other, (_, tasks) in BASELINES.items() if degradation.task in tasks)
            raise UserError(f'baseline {name} is for {" and ".join(tasks)}; for {degradation.task} there is {fitting}')
    if 'bm3d' in names:
        _check_bm3d(degradation)
    return {name: functools.partial(BASELINES[name][0], degradation.level) for name in names}


def _check_bm3d(degradation: Degradation) -> None:
    if not degradation.level > 0:
        raise UserError(f'baseline bm3d needs noise of a sigma above 0, not {degradation.level}')
    try:
        importlib.import_module('bm3d')
    except ImportError as error:
        raise UserError(f'baseline bm3d needs an extra: pip install nsr-jax[bm3d] ({error})') from error
