"""The images of three channels that count as gray."""

import io

import numpy as np
import PIL.Image
import pytest

from nsr_jax.ops.gray import find_gray

GRAY = np.random.default_rng(0).integers(0, 256, (300, 20, 1), np.uint8)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32, np.float16])
def test_equal_channels_are_gray(dtype):
    """Bright, dark and flat ones."""
    for values in (GRAY, GRAY % 3, np.full_like(GRAY, 200)):
        image = values.astype(dtype) / dtype(255) if np.dtype(dtype).kind == 'f' else values.astype(dtype)
        found = find_gray(image.repeat(3, axis=-1))
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, image)


def test_neutral_chroma_that_was_rounded_is_gray():
    """Decoded from chroma that is one level off, channels differ by 3 at most; also in Pillow's own files."""
    y, red, blue = GRAY.astype(int), 1.402, 1.772
    for cb, cr in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        offsets = [red * cr, -0.344136 * cb - 0.714136 * cr, blue * cb]
        image = np.rint(y + offsets).clip(0, 255).astype(np.uint8)
        assert np.ptp(image, axis=-1).max() == 2
        found = find_gray(image)
        assert np.abs(found.astype(int) - y).max() <= 1
        assert np.abs(find_gray(image / 255) * 255 - found).max() < 1e-9
    file = io.BytesIO()
    PIL.Image.fromarray(GRAY.repeat(3, axis=-1)).save(file, 'JPEG', quality=30)
    assert find_gray(np.asarray(PIL.Image.open(file).convert('RGB'))) is not None


@pytest.mark.parametrize('row', [0, 299])
@pytest.mark.parametrize('difference', [3, 60])
def test_one_pixel_of_colour_is_enough(row, difference):
    image = GRAY.repeat(3, axis=-1) // 2
    image[row, 7, 1] += difference
    assert find_gray(image) is None
    assert find_gray(image / 255) is None
    assert find_gray(image.astype(np.uint16) * 257) is None


def test_dark_and_flat_images_may_hold_faint_colours():
    """Differences that are rounding elsewhere: 2 of 255 are 514 of 65535, and the whole range of a dark image."""
    dark = np.random.default_rng(1).integers(0, 500, (20, 20, 3), np.uint16)
    assert find_gray(dark) is None
    assert find_gray(dark / 65535) is None
    assert find_gray(np.full((9, 9, 3), [100, 101, 102], np.uint8)) is None


def test_hidden_colours_do_not_count():
    image = GRAY.repeat(3, axis=-1)
    image[40:60, :, 0] = 7
    alpha = np.full(GRAY.shape[:2], 255, np.uint8)
    alpha[40:60] = 0
    found = find_gray(image, alpha)
    np.testing.assert_array_equal(found[alpha > 0], GRAY[alpha > 0])
    alpha[50, 3] = 1
    assert find_gray(image, alpha) is None
    assert find_gray(image, np.zeros_like(alpha)) is not None
