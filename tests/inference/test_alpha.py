"""Transparency: what the network sees, and what becomes of its answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nsr_jax.evaluation.protocols import round_prediction
from nsr_jax.inference.alpha import premultiply, restore_alpha, to_floats, to_samples
from nsr_jax.inference.prediction import to_network_input
from nsr_jax.ops.imresize import imresize


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def whole(strips):
    return np.concatenate(list(strips))


def in_strips(image, *heights):
    return iter(np.split(image, np.cumsum(heights)))


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_every_sample_comes_back(dtype):
    samples = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    floats = to_floats(samples)
    assert floats.dtype == np.float32
    assert (floats[0], floats[-1]) == (0, 1)
    np.testing.assert_array_equal(to_samples(floats, dtype), samples)


def test_bytes_are_what_networks_are_given():
    samples = noise(4, 5, 3)
    np.testing.assert_array_equal(to_floats(samples), to_network_input(samples, 3))


@given(arrays.arrays(np.float32, (3, 4, 3), elements=st.floats(-1, 2, width=32)))
def test_bytes_are_rounded_as_scored_images_are(values):
    np.testing.assert_array_equal(to_samples(values, np.uint8), round_prediction(values, 3))


def test_rounding_is_to_the_nearest_and_clipped():
    values = np.array([-0.1, 0.4 / 65535, 0.6 / 65535, 1.2], np.float32)
    np.testing.assert_array_equal(to_samples(values, np.uint16), [0, 0, 1, 65535])


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('scale', [1, 2, 3])
def test_an_opaque_image_is_as_one_without_alpha(dtype, scale):
    pixels, alpha = noise(7, 9, 3, dtype=dtype), np.full((7, 9), np.iinfo(dtype).max, dtype)
    np.testing.assert_array_equal(premultiply(pixels, alpha), to_floats(pixels))
    answer = np.random.default_rng(1).uniform(-0.1, 1.1, (7 * scale, 9 * scale, 3)).astype(np.float32)
    restored = to_samples(whole(restore_alpha(in_strips(answer, 3, 4), alpha, scale)), dtype)
    np.testing.assert_array_equal(restored[..., :3], to_samples(answer, dtype))
    assert (restored[..., 3] == np.iinfo(dtype).max).all()


def test_what_nobody_sees_does_not_bleed():
    """Whatever colour fully transparent pixels have, the network is given the same."""
    alpha = noise(6, 8)
    alpha[:3] = 0
    pixels, others = noise(6, 8, 3), noise(6, 8, 3, seed=2)
    others[3:] = pixels[3:]
    np.testing.assert_array_equal(premultiply(pixels, alpha), premultiply(others, alpha))


def test_premultiplied_by_hand():
    pixels, alpha = np.array([[[51, 255, 0]]], np.uint8), np.array([[102]], np.uint8)
    np.testing.assert_allclose(premultiply(pixels, alpha), [[[0.2 * 0.4, 0.4, 0]]], rtol=1e-6)


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize('heights', [(), (1, 1, 1), (5,), (2, 7, 9)])
def test_alpha_is_enlarged_by_bicubic_whatever_the_strips(scale, heights):
    alpha = noise(11, 6)
    expected = imresize(alpha / 255, scale).clip(0, 1)
    answer = np.zeros((11 * scale, 6 * scale, 1), np.float32)
    enlarged = whole(restore_alpha(in_strips(answer, *heights), alpha, scale))[..., 1]
    assert enlarged.dtype == np.float32
    np.testing.assert_allclose(enlarged, expected, atol=1e-7)


def test_alpha_stays_as_it_is_where_nothing_is_enlarged():
    alpha = noise(9, 5, dtype=np.uint16)
    restored = whole(restore_alpha(in_strips(np.zeros((9, 5, 3), np.float32), 4), alpha, 1))
    np.testing.assert_array_equal(to_samples(restored[..., 3], np.uint16), alpha)


@pytest.mark.parametrize('scale', [1, 2])
def test_laid_over_a_background_the_answer_is_what_the_network_said(scale):
    """Colour times alpha is the network's premultiplied answer, wherever that can be the colour of anything."""
    alpha = noise(8, 8)
    alpha[:2], alpha[-2:] = 0, 255
    share = np.random.default_rng(3).uniform(0, 1, (8 * scale, 8 * scale, 3)).astype(np.float32)
    answer = share * (imresize(alpha / 255, scale).clip(0, 1))[..., None].astype(np.float32)
    restored = whole(restore_alpha(in_strips(answer, 5), alpha, scale))
    assert np.isfinite(restored).all()
    assert restored.min() >= 0
    assert restored.max() <= 1
    np.testing.assert_allclose(restored[..., :3] * restored[..., 3:], answer, atol=1e-6)


def test_a_uniform_colour_keeps_its_colour_under_any_alpha():
    """As through bicubic enlargement, a network's answer to a premultiplied uniform colour would be."""
    alpha = noise(10, 10)
    answer = imresize(premultiply(np.full((10, 10, 1), 153, np.uint8), alpha).astype(np.float64), 2)
    restored = whole(restore_alpha(in_strips(answer.astype(np.float32), 3), alpha, 2))
    seen = restored[..., 1] > 0.05
    inside = seen & (imresize(alpha / 255, 2) < 1)  # where bicubic overshoots, alpha is clipped and colours are not
    assert inside.sum() > 100
    np.testing.assert_allclose(restored[..., 0][inside], 0.6, atol=1e-4)
