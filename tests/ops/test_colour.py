"""Luma against its corners, exact fractions and both array libraries."""

import fractions

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from nsr_jax.ops.colour import rgb_to_gray_uint8, rgb_to_y, rgb_to_y_uint8


def all_corners():
    return np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], np.uint8)


def test_corners_of_the_cube():
    # BT.601 in studio range: black 16, white 235, and each primary's share of the 219 steps between.
    expected = [16, 40.966, 144.553, 169.519, 81.481, 106.447, 210.034, 235]
    luma = rgb_to_y(all_corners())
    assert luma.dtype == np.float64
    np.testing.assert_allclose(luma, expected, rtol=0, atol=1e-9)


def test_uint8_is_the_exact_luma_rounded_half_up():
    rgb = np.random.default_rng(0).integers(0, 256, (4000, 3), np.uint8)
    weights = [fractions.Fraction(text) / 255 for text in ('65.481', '128.553', '24.966')]
    exact = [sum(w * int(c) for w, c in zip(weights, pixel, strict=True)) + 16 for pixel in rgb]
    expected = [int(y + fractions.Fraction(1, 2)) for y in exact]
    luma = rgb_to_y_uint8(rgb)
    assert luma.dtype == np.uint8
    np.testing.assert_array_equal(luma, expected)


def test_uint8_is_within_half_a_step_of_the_float():
    rgb = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    assert rgb_to_y_uint8(rgb).shape == (64, 64)
    assert np.abs(rgb_to_y_uint8(rgb) - rgb_to_y(rgb)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize('shape', [(3,), (5, 3), (2, 4, 5, 3)])
def test_numpy_and_jax_agree_and_keep_float32(shape):
    rgb = (255 * np.random.default_rng(2).random(shape)).astype(np.float32)
    ours, accelerated = rgb_to_y(rgb), rgb_to_y(jnp.asarray(rgb))
    assert ours.dtype == np.float32
    assert accelerated.dtype == jnp.float32
    assert ours.shape == shape[:-1]
    np.testing.assert_allclose(accelerated, ours, rtol=1e-6)


@pytest.mark.parametrize('function', [rgb_to_y, rgb_to_y_uint8])
@pytest.mark.parametrize('shape', [(4, 4), (4, 4, 1), ()])
def test_other_channel_counts_are_refused(function, shape):
    with pytest.raises(ValueError, match='3 channels'):
        function(np.zeros(shape, np.uint8))


def test_uint8_refuses_floats():
    with pytest.raises(ValueError, match='must be uint8, got float32'):
        rgb_to_y_uint8(np.zeros((4, 3), np.float32))


def test_gray_denoising_set_is_made_of_the_colour_one(data_dir):
    """BSD68 was made gray by MATLAB elsewhere: a pixel in a thousand differs, by one level."""
    for colour_name, gray_name in (('101085', 'test001'), ('102061', 'test003')):
        colour = np.asarray(PIL.Image.open(data_dir / 'test' / 'CBSD68' / 'HR' / f'{colour_name}.png'))
        gray = np.asarray(PIL.Image.open(data_dir / 'test' / 'BSD68' / 'HR' / f'{gray_name}.png'))
        difference = np.abs(rgb_to_gray_uint8(colour).astype(int) - gray)
        assert difference.max() <= 1
        assert difference.mean() < 0.002
