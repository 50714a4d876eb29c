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

BOTH = ('4:2:0', '4:4:4')
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


def covariances(corruption, samples, patch_size=32):
    """Of the channels of each sample's noise in units of sigma 40, in float64: (N, 3, 3)."""
    clean = regions(corruption, patch_size, 3, samples)
    inputs, targets = batched(corruption, patch_size)(jax.random.split(jax.random.key(2), samples), clean)
    noise = (np.asarray(inputs, np.float64) - np.asarray(targets, np.float64)).reshape(samples, -1, 3) * 255 / 40
    return noise.swapaxes(1, 2) @ noise / noise.shape[1]


def mixed(correlations, samples, pixels=32 * 32):
    """The same statistics by NumPy: normal vectors with these covariances, by the square root of the matrix."""
    random = np.random.default_rng(0)
    found = []
    for correlation in correlations(random, samples):
        matrix = np.full((3, 3), correlation) + (1 - correlation) * np.eye(3)
        noise = random.multivariate_normal(np.zeros(3), matrix, pixels, method='eigh')
        found.append(noise.T @ noise / pixels)
    return np.stack(found)


def halves(random, samples):
    """Half of the samples with the same noise in all channels, half with a uniform correlation."""
    return np.where(random.random(samples) < 0.5, 1, random.random(samples))


OFF_DIAGONAL = np.array([0, 0, 1]), np.array([1, 2, 2])


@pytest.mark.parametrize('shared', [0.0, 0.3, 1.0])
def test_channels_share_noise_in_a_fraction_of_the_samples(shared):
    """Whose variances stay: covariances against NumPy's own generator of correlated normal vectors."""
    samples = 600
    found = covariances(Noise(40, 40, shared), samples)
    expected = mixed(lambda random, n: np.where(random.random(n) < shared, halves(random, n), 0), samples)
    for each in (found, expected):  # a variance of 1024 pixels has a standard error of sqrt(2 / 1024) = 0.044
        variances = np.diagonal(each, axis1=1, axis2=2)
        np.testing.assert_allclose(variances, 1, atol=5 * 0.044)
        np.testing.assert_allclose(variances.mean(axis=0), 1, atol=5 * 0.044 / samples**0.5)
    correlations, references = (np.sort(each[:, *OFF_DIAGONAL].mean(axis=1)) for each in (found, expected))
    levels = np.linspace(-0.05, 0.95, 21)
    shares, wanted = (np.searchsorted(each, levels) / samples for each in (correlations, references))
    np.testing.assert_allclose(shares, wanted, atol=0.08)  # of two samples' distributions: Kolmogorov and Smirnov
    assert np.ptp(found[:, *OFF_DIAGONAL], axis=1).max() < 0.25  # all pairs of channels are alike


def test_shared_noise_is_the_same_or_partly_the_same():
    samples = 400
    clean = regions(Noise(40, 40, 0.5), 16, 3, samples)
    inputs, targets = batched(Noise(40, 40, 0.5), 16)(jax.random.split(jax.random.key(3), samples), clean)
    noise = np.asarray(inputs - targets)
    is_same = np.ptp(noise, axis=-1).max(axis=(1, 2)) < 1e-6
    assert is_same.sum() == pytest.approx(0.25 * samples, abs=4 * (samples * 0.25 * 0.75) ** 0.5)
    np.testing.assert_allclose(noise[is_same].std() * 255, 40, rtol=0.03)


def test_unshared_samples_are_those_of_runs_without_the_option():
    """And so are all of the default, whose numbers are those of `jax.random.normal` and its key's second half."""
    clean = regions(Noise(5, 50), 8, 3, 256)
    (default, _), (mixture, _) = (batched(Noise(5, 50, shared), 8)(KEYS, clean) for shared in (0.0, 0.5))
    for key, image, given in list(zip(KEYS, clean, default, strict=True))[:4]:
        sigma_key, noise_key = jax.random.split(key)
        sigma = jax.random.uniform(sigma_key, (), jnp.float32, 5, 50)
        expected = image.astype(np.float32) / 255 + sigma / 255 * jax.random.normal(noise_key, image.shape, jnp.float32)
        np.testing.assert_allclose(given, expected, rtol=1e-6, atol=1e-7)
    is_kept = np.abs(np.asarray(default - mixture)).max(axis=(1, 2, 3)) < 1e-6
    assert is_kept.sum() == pytest.approx(128, abs=4 * 8)


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


def libjpeg(image, quality, subsampling='4:2:0'):
    buffer = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    PIL.Image.fromarray(pixels).save(buffer, 'JPEG', quality=quality, subsampling=subsampling)
    return np.array(PIL.Image.open(buffer)).reshape(image.shape)


@pytest.mark.parametrize(
    ('folder', 'channels', 'subsampling'),
    [('Classic5/HR/lena.png', 1, '4:2:0'), ('LIVE1/HR/bikes.png', 3, '4:2:0'), ('LIVE1/HR/bikes.png', 3, '4:4:4')],
)
def test_patches_are_those_of_whole_images_compressed_by_libjpeg(data_dir, folder, channels, subsampling):
    """They are equal, except that halved chroma on the border of the region lacks its neighbours."""
    image = read_image(data_dir / 'test' / folder)
    jpeg, patch = Jpeg(10, 95, (subsampling,)), 48
    size = jpeg.region_size(patch, channels)
    corners = [(128, 160), (64, 256), (256, 48), (0, 0)]
    regions = np.stack([image[row : row + size, column : column + size] for row, column in corners])
    inputs, targets = (np.rint(np.asarray(each) * 255) for each in batched(jpeg, patch)(KEYS[:4], regions))
    stored = {quality: libjpeg(image, quality, subsampling).astype(int) for quality in range(10, 96)}
    errors = []
    for (row, column), given, target in zip(corners, inputs, targets, strict=True):
        window = image[row : row + size, column : column + size]
        offsets = np.ndindex(size - patch + 1, size - patch + 1)
        ((down, right),) = [(i, j) for i, j in offsets if (window[i : i + patch, j : j + patch] == target).all()]
        rows, columns = (slice(start, start + patch) for start in (row + down, column + right))
        errors.append(min(np.abs(given - whole[rows, columns]).mean() for whole in stored.values()))
    if channels == 1 or subsampling == '4:4:4':
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


def test_each_sample_draws_one_way_to_store_chroma():
    """Of both each about as often; gray has none, and quality and place are those of runs with one way."""
    both, halved, full = (Jpeg(20, 60, ways) for ways in (BOTH, ('4:2:0',), ('4:4:4',)))
    clean = regions(both, 17, 3, 256)
    inputs, of_halved, of_full = (np.asarray(batched(each, 17)(KEYS, clean)[0]) for each in (both, halved, full))
    is_halved, is_full = ((inputs == each).all(axis=(1, 2, 3)) for each in (of_halved, of_full))
    assert (is_halved ^ is_full).all()
    assert is_halved.sum() == pytest.approx(128, abs=4 * 8)
    gray = [batched(each, 17)(KEYS[:8], regions(both, 17, 1, 8))[0] for each in (both, halved)]
    np.testing.assert_array_equal(*gray)


@pytest.mark.parametrize(
    ('corruption', 'channels'), [(Noise(5, 50), 1), (Noise(5, 50, 0.5), 3), (Jpeg(10, 90), 1), (Jpeg(10, 90, BOTH), 3)]
)
def test_a_sample_depends_on_its_key_alone(corruption, channels):
    clean = regions(corruption, 20, channels, 8)
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
    for wrong in (-0.1, 1.5, float('nan'), '0.5', None, True):
        with pytest.raises(UserError, match='shared_noise must be a fraction of the samples, from 0 to 1, not'):
            Noise(0, 25, wrong)
    for wrong in (0, 101, 10.5, '10', None, True):
        with pytest.raises(UserError, match='quality must be a whole number from 1 to 100'):
            check_quality(wrong)
        with pytest.raises(UserError, match='quality'):
            Jpeg(wrong, 100)
    for wrong in ((), ('4:2:2',), ('4:2:0', '4:2:0'), ('4:2:0', 1), tuple('4:4:4')):
        with pytest.raises(UserError, match=r'subsampling must be one or more of 4:2:0, 4:4:4, not \('):
            Jpeg(10, 40, wrong)
    with pytest.raises(UserError, match='range of sigma must go from low to high, not from 50 to 15'):
        Noise(50, 15)
    with pytest.raises(UserError, match='range of quality must go from low to high, not from 40 to 10'):
        Jpeg(40, 10)


def test_a_region_of_another_size_is_refused():
    for corruption in (Noise(5, 5), Jpeg(10, 10)):
        with pytest.raises(ValueError, match='region'):
            corruption(KEYS[0], np.zeros((23, 23, 1), np.uint8), 20)
