"""What users may pass as arrays."""

import jax.numpy as jnp
import numpy as np
import pytest

from nsr_jax.errors import UserError
from nsr_jax.ops.arrays import plain_array
from nsr_jax.ops.colour import rgb_to_gray_uint8, rgb_to_y
from nsr_jax.ops.imresize import imresize

VALUES = np.arange(12, dtype=np.uint16).reshape(3, 4)


class Foreign:
    """Like a tensor of another library, which NumPy can ask for an array."""

    def __init__(self, values):
        self._values = values

    def __array__(self, dtype=None, copy=None):
        if isinstance(self._values, Exception):
            raise self._values
        return self._values


@pytest.mark.parametrize(
    'given',
    [
        VALUES,
        np.matrix(VALUES),
        np.ma.array(VALUES),
        np.ma.array(VALUES, mask=np.zeros((3, 4), bool)),
        VALUES.astype('>u2'),
        np.asfortranarray(VALUES),
        VALUES[::-1, ::-1].copy()[::-1, ::-1],
        jnp.asarray(VALUES),
        Foreign(VALUES),
        VALUES.view(np.recarray),
        VALUES.tolist(),
    ],
    ids=lambda given: type(given).__name__,
)
def test_all_become_plain_arrays(given):
    array = plain_array(given)
    assert type(array) is np.ndarray and array.dtype.isnative
    np.testing.assert_array_equal(array, VALUES)


def test_nothing_is_copied_that_need_not_be():
    assert plain_array(VALUES) is VALUES
    assert np.shares_memory(plain_array(np.ma.array(VALUES, copy=False)), VALUES)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (np.ma.array(VALUES, mask=VALUES == 5), 'masked values'),
        (None, 'of numbers, not of object'),
        ([[1, 2], [3]], 'must be an array, not list'),
        (Foreign(RuntimeError('call detach() first\nas the manual says')), 'Foreign: call detach.. first$'),
        (np.zeros(3, [('r', 'u1'), ('g', 'u1')]), 'of numbers'),
    ],
)
def test_others_are_refused_in_a_line(given, message):
    with pytest.raises(UserError, match=message):
        plain_array(given)


def test_operations_take_what_becomes_one_and_refuse_masks():
    image = VALUES.astype(np.uint8)
    resized = imresize(np.matrix(image), 2)
    assert type(resized) is np.ndarray
    np.testing.assert_array_equal(resized, imresize(image, 2))
    colours = np.stack([image] * 3, axis=-1)
    for function in (rgb_to_y, rgb_to_gray_uint8):
        np.testing.assert_array_equal(function(np.ma.array(colours)), function(colours))
        with pytest.raises(UserError, match='masked'):
            function(np.ma.array(colours, mask=colours > 3))
    with pytest.raises(UserError, match='masked'):
        imresize(np.ma.array(image, mask=image > 3), 2)
