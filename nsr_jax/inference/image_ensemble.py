"""Self-ensemble: the mean over the eight flips and transposes of an image (Lim et al., 2017, section 3.4)."""

import itertools
from collections.abc import Callable

import numpy as np


def self_ensemble(predictor: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
    """Predict the eight flips and transposes of an image, undo them and take the mean; eight times the work.

    Images that are not square are given in two sizes, (H, W) and (W, H).

    Args:
        predictor: from an image (H, W, C) to its restoration (scale H, scale W, C').
        image: (H, W, C), as the predictor takes it.

    Returns:
        float32 (scale H, scale W, C'); summed in float64, so that the mean of equal predictions is exactly those.
    """
    total = None
    for transposed, *steps in itertools.product((False, True), (1, -1), (1, -1)):
        flips = tuple(slice(None, None, step) for step in steps)
        given = (image.swapaxes(0, 1) if transposed else image)[flips]
        prediction = predictor(np.ascontiguousarray(given))[flips]
        prediction = prediction.swapaxes(0, 1) if transposed else prediction
        total = prediction.astype(np.float64) if total is None else np.add(total, prediction, out=total)
    return (total / 8).astype(np.float32)
