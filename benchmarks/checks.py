"""How far results may be from the oracle's."""

from collections.abc import Mapping

import jax
import numpy as np


def relative_errors(results: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`||result - expected|| / ||expected||` of each array of `results`; `expected` may hold more.

    Raises:
        ArithmeticError: an array has another shape.
    """
    errors = {}
    for name, result in results.items():
        ours, right = (np.asarray(array).astype(np.float64) for array in (result, expected[name]))
        if ours.shape != right.shape:
            raise ArithmeticError(f'wrong: {name} is {ours.shape}, the oracle gives {right.shape}')
        errors[name] = float(np.linalg.norm(ours - right) / np.linalg.norm(right))
    return errors


def check_errors(errors: Mapping[str, float], tolerance: float) -> float:
    """The largest error.

    Raises:
        ArithmeticError: one is above the tolerance or not a number.
    """
    wrong = {name: error for name, error in errors.items() if not error < tolerance}
    if wrong:
        listed = ', '.join(f'{name} by {error:.1e}' for name, error in wrong.items())
        raise ArithmeticError(f'wrong: differs from the oracle: {listed} of its norm, {tolerance:.0e} is allowed')
    return max(errors.values())


def convolution_tolerance(dtype: str) -> float:
    """Of one convolution and its gradients. A GPU multiplies float32 in TF32, with 11 bits."""
    if dtype == 'bfloat16':
        return 2e-2
    return 1e-4 if jax.default_backend() == 'cpu' else 3e-3
