"""Corruptions of clean images in training: distributions, the grid of blocks, the JPEG of an image as a whole."""

import collections
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from nsr_jax.errors import UserError
from nsr_jax.images.reading import read_image
from nsr_jax.tasks.denoise import Noise, check_sigma
from nsr_jax.tasks.jpeg import Jpeg, check_quality

KEYS = jax.random.split(jax.random.key(5), 256)


@functools.cache
def batched(corruption, patch_size):
    return jax.jit(jax.vmap(functools.partial(corruption, patch_size=patch_size)))


def regions(corruption, patch_size, channels, count):
    size = corruption.region_size(patch_size, channels)
    return np.random.default_rng(size).integers(0, 256, (count, size, size, channels), np.uint8)


def test_noise_of_a_fixed_sigma_is_white_and_not_clipped():
    clean = regions(Noise(25, 25), 12, 3, 256)
    assert clean.shape[1:3] == (12, 12)
    inputs, targets = batched(Noise(25, 25), 12)(KEYS, clean)
    assert inputs.dtype == targets.dtype == jnp.float32
    np.testing.assert_array_equal(np.rint(np.asarray(targets) * 255), clean)
    noise = np.asarray(inputs - targets) * 255
    assert noise.mean() == pytest.approx(0, abs=0.3)
    np.testing.assert_allclose(noise.std(axis=(0, 1, 2)), 25, rtol=0.02)
    np.testing.assert_allclose(noise.std(axis=(1, 2, 3)), 25, rtol=0.2)  # no sample has another sigma
    for shifted in (np.roll(noise, 1, axis) for axis in (0, 1, 2, 3)):
        assert abs(np.corrcoef(noise.ravel(), shifted.ravel())[0, 1]) < 0.02
    assert np.mean(np.abs(noise) > 50) == pytest.approx(0.0455, abs=0.004)  # Gaussian: two sigma
    assert inputs.min() < -0.1 and inputs.max() > 1.1


def test_sigmas_of_a_range_are_uniform_over_samples():
    inputs, targets = batched(Noise(10, 50), 24)(KEYS, regions(Noise(10, 50), 24, 1, 256))
    sigmas = np.sort(np.asarray(inputs - targets).std(axis=(1, 2, 3)) * 255)
    assert 9 < sigmas[0] < 12 and 48 < sigmas[-1] < 53
    np.testing.assert_allclose(sigmas, np.linspace(10, 50, 256), atol=4)


def test_no_noise_is_the_clean_patch():
    inputs, targets = batched(Noise(0, 0), 8)(KEYS[:4], regions(Noise(0, 0), 8, 3, 4))
    np.testing.assert_array_equal(inputs, targets)


@pytest.mark.parametrize(
    ('patch', 'channels', 'region'), [(48, 1, 56), (48, 3, 64), (50, 1, 64), (41, 1, 48), (42, 1, 56), (33, 3, 48)]
)
def test_the_region_holds_the_patch_at_every_offset(patch, channels, region):
    jpeg = Jpeg(10, 10)
    assert jpeg.region_size(patch, channels) == region
    grid = 8 if channels == 1 else 16
    assert region % grid == 0 and region - patch >= grid - 1 > region - grid - patch


@pytest.mark.parametrize(('channels', 'grid'), [(1, 8), (3, 16)])
def test_every_offset_of_the_grid_is_equally_likely(channels, grid):
    """Pixels that say where they are, in values far enough apart to survive quality 100."""
    jpeg, patch, samples = Jpeg(100, 100), 10, 16 * grid * grid
    size = jpeg.region_size(patch, channels)
    region = (np.indices((size, size)) * np.array([1, size])[:, None, None]).sum(axis=0)
    keys = jax.random.split(jax.random.key(1), samples)
    region = np.stack([region % 256] * channels, axis=-1).astype(np.uint8)
    _, targets = jax.jit(jax.vmap(lambda key: jpeg(key, region, patch)))(keys)
    corners = collections.Counter(np.rint(np.asarray(targets)[:, :2, :2, 0] * 255).reshape(-1, 4)[:, 0].astype(int))
    expected = collections.Counter(region[:grid, :grid, 0].ravel().tolist())
    assert corners.keys() == expected.keys()
    statistic = sum((corners[value] - 16 * n) ** 2 / (16 * n) for value, n in expected.items())
    assert statistic < len(expected) - 1 + 5 * np.sqrt(2 * len(expected))


def libjpeg(image, quality):
    buffer = io.BytesIO()
    PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, 'JPEG', quality=quality)
    return np.array(PIL.Image.open(buffer)).reshape(image.shape)


@pytest.mark.parametrize(('folder', 'channels'), [('Classic5/HR/lena.png', 1), ('LIVE1/HR/bikes.png', 3)])
def test_patches_are_those_of_whole_images_compressed_by_libjpeg(data_dir, folder, channels):
    """They are equal for gray; in RGB, chroma on the border of the region lacks its neighbours."""
    image = read_image(data_dir / 'test' / folder)
    jpeg, patch = Jpeg(10, 40), 48
    size = jpeg.region_size(patch, channels)
    corners = [(128, 160), (64, 256), (256, 48), (0, 0)]
    regions = np.stack([image[row : row + size, column : column + size] for row, column in corners])
    inputs, targets = (np.rint(np.asarray(each) * 255) for each in batched(jpeg, patch)(KEYS[:4], regions))
    stored = {quality: libjpeg(image, quality).astype(int) for quality in range(10, 41)}
    errors = []
    for (row, column), given, target in zip(corners, inputs, targets, strict=True):
        window = image[row : row + size, column : column + size]
        offsets = np.ndindex(size - patch + 1, size - patch + 1)
        ((down, right),) = [(i, j) for i, j in offsets if (window[i : i + patch, j : j + patch] == target).all()]
        rows, columns = (slice(start, start + patch) for start in (row + down, column + right))
        errors.append(min(np.abs(given - whole[rows, columns]).mean() for whole in stored.values()))
    if channels == 1:
        assert max(errors) == 0
    assert max(errors) < 0.1


def test_qualities_of_a_range_are_all_drawn():
    corruption, patch = Jpeg(3, 6), 9
    region = regions(corruption, patch, 1, 1)[0]
    inputs, _ = jax.jit(jax.vmap(lambda key: corruption(key, region, patch)))(KEYS)
    quality_of = {}
    for quality in range(1, 9):
        whole = libjpeg(region, quality)
        for row, column in np.ndindex(8, 8):
            quality_of[whole[row : row + patch, column : column + patch].tobytes()] = quality
    drawn = collections.Counter(quality_of[each.tobytes()] for each in np.rint(inputs * 255).astype(np.uint8))
    assert drawn.keys() == {3, 4, 5, 6}
    assert min(drawn.values()) > 256 / 4 / 2


@pytest.mark.parametrize('corruption', [Noise(5, 50), Jpeg(10, 90)])
def test_a_sample_depends_on_its_key_alone(corruption):
    clean = regions(corruption, 20, 1, 8)
    whole = batched(corruption, 20)(KEYS[:8], clean)
    parts = [batched(corruption, 20)(KEYS[start : start + 2], clean[start : start + 2]) for start in range(0, 8, 2)]
    for which in (0, 1):
        np.testing.assert_allclose(np.concatenate([part[which] for part in parts]), whole[which], rtol=1e-6, atol=1e-7)
    other, _ = batched(corruption, 20)(KEYS[8:16], clean)
    assert np.mean(np.isclose(other, whole[0])) < 0.5


def test_ranges_are_checked():
    for wrong in (-1, 256, float('nan'), float('inf'), '25', None, True):
        with pytest.raises(UserError, match='sigma must be a number from 0 to 255'):
            check_sigma(wrong)
        with pytest.raises(UserError, match='sigma'):
            Noise(0, wrong)
    for wrong in (0, 101, 10.5, '10', None, True):
        with pytest.raises(UserError, match='quality must be a whole number from 1 to 100'):
            check_quality(wrong)
        with pytest.raises(UserError, match='quality'):
            Jpeg(wrong, 100)
    with pytest.raises(UserError, match='range of sigma must go from low to high, not from 50 to 15'):
        Noise(50, 15)
    with pytest.raises(UserError, match='range of quality must go from low to high, not from 40 to 10'):
        Jpeg(40, 10)


def test_a_region_of_another_size_is_refused():
    for corruption in (Noise(5, 5), Jpeg(10, 10)):
        with pytest.raises(ValueError, match='region'):
            corruption(KEYS[0], np.zeros((23, 23, 1), np.uint8), 20)
