"""A metric of which lower is better."""

import numpy as np

from nsr_jax.metrics import METRICS, Metric


def worst(a, b):
    """The largest absolute difference, of 255."""
    return float(np.max(np.abs(a.astype(np.float64) - b)))


METRICS['worst'] = Metric(worst, 'worst pixel', decimals=1, higher_is_better=False)
