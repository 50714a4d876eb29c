"""Turning upright against Pillow, and orientations that are none."""

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from nsr_jax.ops.upright import turn_upright

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_as_pillow_turns_it(orientation):
    image = PIL.Image.fromarray(PIXELS)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(turn_upright(PIXELS, orientation), np.asarray(PIL.ImageOps.exif_transpose(image)))


@pytest.mark.parametrize('orientation', [None, 0, 9, -1, 2**70, '6', (6,), [6], 6.5, b'\6'])
def test_what_is_no_orientation_turns_nothing(orientation):
    assert turn_upright(PIXELS, orientation) is PIXELS
