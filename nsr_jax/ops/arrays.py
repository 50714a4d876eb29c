"""Plain NumPy arrays from anything that users pass as arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from nsr_jax.errors import UserError


def plain_array(values: Any, name: str = 'an image') -> np.ndarray:
    """Convert to a plain array whatever NumPy can convert; subclasses of `np.ndarray` compute differently.

    Args:
        values: an array of NumPy, in any byte order and with any strides; of JAX or another library; a matrix, a
            masked array with nothing masked, or nested lists of numbers.
        name: of the values, for errors.

    Returns:
        an `np.ndarray`, of no subclass, in the machine's byte order; it shares the memory if that is possible.

    Raises:
        UserError: some values are masked or not numbers, or NumPy cannot read them.
    """
    if np.ma.is_masked(values):
        raise UserError(f'{name} has masked values, but needs them all: fill them first, for example by .filled(0)')
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f'{name} must be an array, not {type(values).__name__}: {reason}') from error
    if array.dtype.hasobject or array.dtype.names:
        raise UserError(f'{name} must be an array of numbers, not of {array.dtype}')
    return array.astype(array.dtype.newbyteorder('='), copy=False)


class View:
    """An image (H, W, C) whose pixels are converted to float32 when they are read.

    Args:
        shape: of the image.
        look: maps a pair of slices or index arrays to the pixels there, (h, w, C).
    """

    ndim = 3
    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, ...], look: Callable[[tuple[slice, slice]], np.ndarray]):
        self.shape, self._look = shape, look

    def __getitem__(self, place: Any) -> np.ndarray:
        return self._look(place)
