"""MATLAB's imresize against MATLAB's own files, a direct transcription and published scores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nsr_jax.images.reading import list_images, read_image
from nsr_jax.images.sizes import crop_to_multiple
from nsr_jax.ops.colour import rgb_to_y, rgb_to_y_uint8
from nsr_jax.ops.imresize import imresize


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize(
    ('benchmark', 'partners', 'border', 'images'),
    [
        ('Set5', 'LR_bicubic', 'clamp', 5),
        ('Set5', 'LR_bicubic_newmatlab', 'mirror', 5),
        ('Set14', 'LR_bicubic', 'clamp', 14),
        ('BSD100', 'LR_bicubic', 'clamp', 100),
    ],
)
def test_reproduces_matlabs_files_bit_by_bit(data_dir, benchmark, partners, border, images, scale):
    folder = data_dir / 'test' / benchmark
    paths = list_images(folder / 'HR')
    assert len(paths) == images
    for path in paths:
        expected = read_image(folder / partners / f'X{scale}' / path.name)
        hr = crop_to_multiple(read_image(path), scale, path.name)
        np.testing.assert_array_equal(imresize(hr, 1 / scale, border=border), expected, err_msg=path.name)


def test_the_two_borders_differ_only_near_the_border(data_dir):
    hr = read_image(data_dir / 'test/Set5/HR/bird.png')
    clamped, mirrored = (imresize(hr, 0.25, border=border) for border in ('clamp', 'mirror'))
    np.testing.assert_array_equal(clamped[2:-2, 2:-2], mirrored[2:-2, 2:-2])
    assert (clamped != mirrored).any()


@pytest.mark.parametrize(
    ('benchmark', 'scale', 'plain', 'rounded'),
    [
        ('Set5', 2, 33.67, 33.64),
        ('Set5', 3, 30.41, 30.39),
        ('Set5', 4, 28.43, 28.42),
        ('Set14', 3, 27.54, 27.53),
    ],
)
def test_enlarging_matlabs_files_gives_the_known_bicubic_scores(data_dir, benchmark, scale, plain, rounded):
    """For enlarging there are no files to compare with, but the Y-PSNR of bicubic, measured with other code."""
    folder = data_dir / 'test' / benchmark
    scores = {rgb_to_y: [], rgb_to_y_uint8: []}
    for path in list_images(folder / 'HR'):
        hr = crop_to_multiple(read_image(path), scale, path.name)
        enlarged = imresize(read_image(folder / 'LR_bicubic' / f'X{scale}' / path.name), scale)
        for luma in scores:
            target, prediction = (
                (luma(image) if image.shape[2] == 3 else image[:, :, 0]).astype(np.float64) for image in (hr, enlarged)
            )
            error = (target - prediction)[scale:-scale, scale:-scale]
            scores[luma].append(10 * math.log10(255**2 / np.mean(error**2)))
    assert np.mean(scores[rgb_to_y]) == pytest.approx(plain, abs=0.006)
    assert np.mean(scores[rgb_to_y_uint8]) == pytest.approx(rounded, abs=0.006)


def transcription(signal, scale, border):
    """MATLAB's `contributions` for one column, one output pixel and one tap at a time, 1-based as there."""
    kernel_scale = min(scale, 1)
    kernel_width = 4 / kernel_scale
    size = len(signal)
    output = []
    for x in range(1, math.ceil(size * scale) + 1):
        u = x / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - kernel_width / 2)
        total = weight_sum = 0.0
        for index in range(left, left + math.ceil(kernel_width) + 2):
            t = abs(kernel_scale * (u - index))
            weight = kernel_scale * (
                1.5 * t**3 - 2.5 * t**2 + 1 if t <= 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t <= 2 else 0
            )
            if border == 'clamp':
                inside = min(max(index, 1), size)
            else:
                inside = (list(range(1, size + 1)) + list(range(size, 0, -1)))[(index - 1) % (2 * size)]
            total += weight * signal[inside - 1]
            weight_sum += weight
        output.append(total / weight_sum)
    return np.array(output)


def resize_by_transcription(image, scale, border):
    vertical = np.stack([transcription(column, scale, border) for column in image.T], axis=1)
    return np.stack([transcription(row, scale, border) for row in vertical])


@pytest.mark.parametrize('border', ['clamp', 'mirror'])
@pytest.mark.parametrize('scale', [0.2, 1 / 3, 0.7, 1, 1.5, 2, 3.3])
@pytest.mark.parametrize('shape', [(11, 7), (1, 2), (3, 13)])
def test_floats_agree_with_the_transcription_at_any_scale_and_size(shape, scale, border):
    image = np.random.default_rng(0).normal(size=shape)
    resized = imresize(image, scale, border=border)
    assert resized.dtype == np.float64
    np.testing.assert_allclose(resized, resize_by_transcription(image, scale, border), rtol=0, atol=1e-12)


@given(
    image=arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))),
    scale=st.sampled_from([1 / 4, 1 / 3, 1 / 2, 1, 2, 3]),
    border=st.sampled_from(['clamp', 'mirror']),
)
def test_axes_channels_and_constants(image, scale, border):
    resized = imresize(image, scale, border=border)
    height, width = (math.ceil(side * scale) for side in image.shape[:2])
    assert resized.shape == (height, width, image.shape[2])
    assert resized.dtype == np.uint8
    for channel in range(image.shape[2]):
        np.testing.assert_array_equal(imresize(image[:, :, channel], scale, border=border), resized[:, :, channel])
    constant = np.full_like(image, image.flat[0])
    assert (imresize(constant, scale, border=border) == image.flat[0]).all()
    if scale == 1:
        np.testing.assert_array_equal(resized, image)


@pytest.mark.parametrize(('dtype', 'largest'), [(np.uint8, 255), (np.uint16, 65535)])
def test_integers_are_clipped_and_rounded_half_up_after_each_pass(dtype, largest):
    generator = np.random.default_rng(1)
    image = (generator.integers(0, 2, (12, 10)) * largest).astype(dtype)

    def to_integers(values):
        return np.clip(np.floor(values + 0.5), 0, largest)

    for scale in (2, 0.5):
        vertical = to_integers(np.stack([transcription(column, scale, 'clamp') for column in image.T], axis=1))
        expected = to_integers(np.stack([transcription(row, scale, 'clamp') for row in vertical]))
        np.testing.assert_array_equal(imresize(image, scale), expected)
    # This image shows it: without rounding it leaves the range, and one rounding at the end gives other numbers.
    unrounded = imresize(image.astype(np.float64), 2)
    assert unrounded.min() < 0
    assert unrounded.max() > largest
    assert (to_integers(unrounded) != imresize(image, 2)).any()


def test_keeps_float32_and_does_not_change_its_input():
    image = np.random.default_rng(2).random((8, 8, 3), np.float32)
    before = image.copy()
    resized = imresize(image, 0.5)
    assert resized.dtype == np.float32
    assert resized.flags.c_contiguous
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize('scale', [0, -1, math.nan, math.inf])
def test_a_scale_that_is_not_positive_is_named(scale):
    with pytest.raises(ValueError, match=f'scale must be a positive number, got {scale}'):
        imresize(np.zeros((4, 4), np.uint8), scale)


def test_an_unknown_border_is_named():
    with pytest.raises(ValueError, match="border must be one of clamp, mirror, got 'wrap'"):
        imresize(np.zeros((4, 4), np.uint8), 2, border='wrap')


@pytest.mark.parametrize('image', [np.zeros(4), np.zeros((0, 4)), np.zeros((1, 2, 3, 4))])
def test_other_shapes_are_refused(image):
    with pytest.raises(ValueError, match='image must be'):
        imresize(image, 2)


@pytest.mark.parametrize('dtype', [bool, np.complex64])
def test_other_types_are_refused(dtype):
    with pytest.raises(ValueError, match='integer or floating-point type'):
        imresize(np.zeros((4, 4), dtype), 2)
