"""The JPEG model against libjpeg itself: equal in every pixel."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import PIL.features
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsr_jax.images.reading import list_images, read_image
from nsr_jax.ops.jpeg_codec import CHROMINANCE_TABLE, LUMINANCE_TABLE, SUBSAMPLINGS, jpeg, quantisation_table

jitted = jax.jit(jpeg, static_argnames='subsampling')


def libjpeg(image, quality, subsampling='4:2:0'):
    """What Pillow's libjpeg makes of uint8 (H, W, 1 or 3), and the quantisation tables in the file."""
    buffer = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    PIL.Image.fromarray(pixels).save(buffer, 'JPEG', quality=quality, subsampling=subsampling)
    with PIL.Image.open(buffer) as stored:
        return np.array(stored).reshape(image.shape), stored.quantization


def cut(image, multiple):
    return image[: image.shape[0] // multiple * multiple, : image.shape[1] // multiple * multiple]


def assert_close(image, quality, subsampling='4:2:0'):
    """Equal to libjpeg-turbo; other builds of libjpeg (its version 9, other processors) may round otherwise."""
    ours = np.asarray(jitted(image, quality, subsampling=subsampling))
    difference = np.abs(ours.astype(int) - libjpeg(image, quality, subsampling)[0])
    assert difference.mean() < 0.05
    if PIL.features.check_feature('libjpeg_turbo'):
        assert difference.max() == 0


@pytest.mark.parametrize('quality', [10, 20, 30, 40, 75, 95])
def test_photographs_are_equal_to_libjpegs(data_dir, quality):
    for folder, multiple, subsampling in (('LIVE1', 16, '4:2:0'), ('LIVE1', 8, '4:4:4'), ('Classic5', 8, '4:2:0')):
        for path in list_images(data_dir / 'test' / folder / 'HR')[:3]:
            assert_close(cut(read_image(path), multiple), quality, subsampling)


@pytest.mark.parametrize(('channels', 'subsampling'), [(1, '4:2:0'), (3, '4:2:0'), (3, '4:4:4')])
@pytest.mark.parametrize('quality', [1, 5, 50, 100])
def test_extreme_images_are_equal_to_libjpegs(channels, subsampling, quality):
    random = np.random.default_rng(quality)
    black_and_white = random.integers(0, 2, (48, 64, channels), np.uint8) * 255
    blocks = black_and_white[:6, :8].repeat(8, axis=0).repeat(8, axis=1)
    for image in (random.integers(0, 256, (48, 64, channels), np.uint8), black_and_white, blocks):
        assert_close(image, quality, subsampling)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 100), st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_any_quality_and_contrast(quality, low, high, seed):
    low, high = sorted((low, high))
    image = np.random.default_rng(seed).integers(low, high + 1, (16, 32, 3), np.uint8)
    for subsampling in SUBSAMPLINGS:
        assert_close(image, quality, subsampling)
    assert_close(image[..., :1], quality)


def test_tables_are_those_in_libjpegs_files():
    image = np.zeros((16, 16, 3), np.uint8)
    tables = jax.jit(lambda quality: [quantisation_table(t, quality) for t in (LUMINANCE_TABLE, CHROMINANCE_TABLE)])
    expected = [libjpeg(image, quality)[1] for quality in range(1, 101)]
    for which, all_qualities in enumerate(tables(jnp.arange(1, 101))):
        np.testing.assert_array_equal(all_qualities.reshape(100, 64), [each[which] for each in expected])


@pytest.mark.parametrize('channels', [1, 3])
def test_each_image_of_a_batch_has_its_own_quality(channels):
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 16, channels), np.uint8)
    qualities = jnp.array([5, 30, 60, 100])
    batch = jitted(images, qualities)
    assert batch.dtype == jnp.uint8 and batch.shape == images.shape
    for image, quality, result in zip(images, (5, 30, 60, 100), batch, strict=True):
        np.testing.assert_array_equal(result, jitted(image, quality))
    np.testing.assert_array_equal(jax.jit(jax.vmap(jpeg))(images, qualities), batch)
    assert len({int(np.abs(images[0].astype(int) - np.asarray(jitted(images[0], q))).sum()) for q in (5, 30, 60)}) == 3


@pytest.mark.parametrize(
    ('shape', 'dtype', 'message'),
    [
        ((8, 12, 1), np.uint8, 'multiples of 8'),
        ((24, 16, 3), np.uint8, 'multiples of 16'),
        ((16, 16, 2), np.uint8, '1 or 3'),
        ((16, 16), np.uint8, '1 or 3'),
        ((16, 16, 1), np.float32, 'uint8.*float32'),
    ],
)
def test_other_images_are_refused(shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        jpeg(np.zeros(shape, dtype), 10)


def test_full_chroma_needs_whole_blocks_only():
    assert_close(np.zeros((24, 8, 3), np.uint8), 10, '4:4:4')
    with pytest.raises(ValueError, match='multiples of 8'):
        jpeg(np.zeros((24, 12, 3), np.uint8), 10, '4:4:4')
    with pytest.raises(ValueError, match="one of 4:2:0, 4:4:4, not '4:2:2'"):
        jpeg(np.zeros((16, 16, 3), np.uint8), 10, '4:2:2')
