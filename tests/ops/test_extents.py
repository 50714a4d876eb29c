"""The meaning of extents, against slices of each image by itself."""

import jax.numpy as jnp
import numpy as np
import pytest

from nsr_jax.ops.extents import clear_outside, flip, is_inside, repeat_edges

EXTENTS = np.array([(5, 7), (1, 4), (6, 1), (3, 2)], np.int32)
IMAGES = np.random.default_rng(0).random((4, 6, 7, 2)).astype(np.float32)


def test_inside_and_cleared():
    inside = is_inside(jnp.asarray(EXTENTS), 6, 7)
    assert inside.shape == (4, 6, 7, 1) and inside.dtype == bool
    cleared = clear_outside(jnp.asarray(IMAGES), inside)
    for image, mask, result, (height, width) in zip(IMAGES, inside, cleared, EXTENTS, strict=True):
        assert mask[:height, :width].all() and mask.sum() == height * width
        np.testing.assert_array_equal(result[:height, :width], image[:height, :width])
        assert (np.asarray(result)[~np.asarray(mask[..., 0])] == 0).all()
    assert clear_outside(IMAGES, None) is IMAGES


def test_edges_are_repeated():
    repeated = repeat_edges(jnp.asarray(IMAGES), jnp.asarray(EXTENTS))
    for image, result, (height, width) in zip(IMAGES, repeated, EXTENTS, strict=True):
        beside = ((0, 6 - height), (0, 7 - width), (0, 0))
        np.testing.assert_array_equal(result, np.pad(image[:height, :width], beside, mode='edge'))


@pytest.mark.parametrize('down', [False, True])
@pytest.mark.parametrize('across', [False, True])
def test_flips_stay_within_the_image(down, across):
    steps = slice(None, None, -1 if down else 1), slice(None, None, -1 if across else 1)
    flipped = flip(jnp.asarray(IMAGES), jnp.asarray(EXTENTS), down, across)
    for image, result, (height, width) in zip(IMAGES, flipped, EXTENTS, strict=True):
        np.testing.assert_array_equal(result[:height, :width], image[:height, :width][steps])
    whole = flip(jnp.asarray(IMAGES), None, down, across)
    np.testing.assert_array_equal(whole, np.stack([image[steps] for image in IMAGES]))
