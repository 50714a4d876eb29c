"""Images that are cropped to a multiple of a scale, and pairs that do not fit."""

import numpy as np
import pytest

from nsr_jax.errors import UserError
from nsr_jax.images.sizes import check_pair, crop_to_multiple


def test_crop_to_multiple():
    image = np.arange(7 * 11 * 3).reshape(7, 11, 3)
    np.testing.assert_array_equal(crop_to_multiple(image, 3, 'x'), image[:6, :9])
    np.testing.assert_array_equal(crop_to_multiple(image, 1, 'x'), image)
    with pytest.raises(UserError, match='small: 11x7 pixels are too few for scale 8'):
        crop_to_multiple(image, 8, 'small')


def test_a_pair_that_does_not_fit_is_named_with_the_size_that_would():
    clean, small = np.zeros((8, 12, 3)), np.zeros((4, 6, 3))
    check_pair(clean, small, 2, 'a.png', 'b.png')
    for scale, expected in ((1, '12x8'), (3, '4x2')):
        with pytest.raises(UserError, match=rf'^b\.png: 6x4 pixels .* a\.png \(12x8 .* needs {expected} pixels'):
            check_pair(clean, small, scale, 'a.png', 'b.png')
    with pytest.raises(UserError, match='of 1 channel, but'):
        check_pair(clean, small[..., :1], 2, 'a.png', 'b.png')
