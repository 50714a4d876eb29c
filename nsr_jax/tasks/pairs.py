"""Restoration learnt from pairs of real images, such as blurred and sharp photographs of the same scene.

The pairs are two folders, `input/` and `target/`, whose files have the same names.
"""

import numpy as np

from nsr_jax.errors import UserError
from nsr_jax.tasks.sr import bicubic, luma
from nsr_jax.tasks.task import Example, Predictor, Protocol, Task, degraded


def given(example: Example, scale: float) -> np.ndarray:
    """The example's own input, uint8 (h, w, C)."""
    if example.lr is None:
        raise UserError(f'there is no input image at scale {scale:g}: pairs are folders input/ and target/')
    return example.lr


PAIRS_RGB = Protocol(
    'pairs-rgb', 'all channels with one MSE, prediction rounded to uint8, no shave; the given input', given
)
PAIRS_Y = Protocol(
    'pairs-y',
    'Y (BT.601, rounded to uint8 as by MATLAB; gray as it is) of the prediction rounded to uint8, no shave; the given '
    'input',
    given,
    compared=luma,
)


def unchanged(scale: float) -> Predictor:
    """The input as it is, or enlarged by MATLAB's bicubic `imresize` if the scale is above 1."""
    return degraded(scale) if scale == 1 else bicubic(scale)


TASK = Task(
    name='pairs',
    protocols=(PAIRS_RGB, PAIRS_Y),
    scales=(),
    inputs='given',
    label=lambda scale: 'pairs' if scale == 1 else f'pairs x{scale:g}',
    baselines={'input': unchanged},
)
