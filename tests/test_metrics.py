"""Metrics against scikit-image, against their definitions, and how they are told apart."""

import math

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from nsr_jax.errors import UserError
from nsr_jax.metrics import METRICS, MS_SSIM_WEIGHTS, find_metrics, mae, ms_ssim, psnr, ssim


def skimage_ssim(a, b):
    """scikit-image's SSIM; its mean is over the windows that lie inside the image."""
    return structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255,
        channel_axis=-1 if a.ndim == 3 else None,
    )  # fmt: skip


@pytest.mark.parametrize('name', ['Set5/HR/head.png', 'Set12/HR/01.png', 'Set14/HR/bridge.png'])
def test_real_images_agree_with_skimage(data_dir, name):
    image = np.asarray(Image.open(data_dir / 'test' / name), np.float64)[:, : 200 + len(name)]
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 12, image.shape), 0, 255)
    assert ssim(image, noisy) == pytest.approx(skimage_ssim(image, noisy), abs=1e-9)
    assert psnr(image, noisy) == pytest.approx(peak_signal_noise_ratio(image, noisy, data_range=255), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(11, 90), st.integers(11, 40), st.sampled_from([(), (1,), (3,)]), st.integers(0, 2**32 - 1))
def test_any_size_agrees_with_skimage(height, width, channels, seed):
    random = np.random.default_rng(seed)
    a, b = random.uniform(0, 255, (2, height, width, *channels))
    assert ssim(a, b) == pytest.approx(skimage_ssim(a, b), abs=1e-9)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)


def test_one_window_by_definition():
    random = np.random.default_rng(1)
    a, b = random.uniform(0, 255, (2, 11, 11))
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / np.outer(line, line).sum()
    mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
    variances = (weights * (a - mean_a) ** 2).sum() + (weights * (b - mean_b) ** 2).sum()
    covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((mean_a**2 + mean_b**2 + c1) * (variances + c2))
    assert ssim(a, b) == pytest.approx(expected, abs=1e-12)


def test_identical_images():
    image = np.random.default_rng(2).integers(0, 256, (20, 30, 3), np.uint8)
    assert psnr(image, image) == math.inf
    assert ssim(image, image) == pytest.approx(1, abs=1e-12)


def test_uint8_differences_do_not_wrap():
    a, b = np.full((12, 12), 250, np.uint8), np.full((12, 12), 255, np.uint8)
    assert psnr(a, b) == psnr(b, a) == pytest.approx(20 * math.log10(255 / 5))


def test_not_a_number_is_not_hidden():
    a, b = np.zeros((12, 12)), np.zeros((12, 12))
    a[3, 3] = np.nan
    assert math.isnan(psnr(a, b))
    assert math.isnan(ssim(a, b))


def test_mistakes():
    with pytest.raises(UserError, match='11x11'):
        ssim(np.zeros((10, 40)), np.zeros((10, 40)))
    with pytest.raises(UserError, match='at least 176x176 pixels are needed, not 175x300'):
        ms_ssim(np.zeros((175, 300)), np.zeros((175, 300)))
    with pytest.raises(UserError, match=r'\(4, 4\)'):
        psnr(np.zeros((4, 4)), np.zeros((4, 1)))
    with pytest.raises(UserError, match='no pixels'):
        psnr(np.zeros((0, 4)), np.zeros((0, 4)))


def ms_ssim_by_definition(a, b):
    """Wang et al. 2003 step by step, with SciPy's filters, on whole images whose border is then cut off."""

    def blurred(image):
        return scipy.ndimage.gaussian_filter(image, 1.5, radius=5)[5:-5, 5:-5]

    def halved(image):  # as in the authors' code: the mean of each pixel and its neighbours below and to the right
        return scipy.ndimage.uniform_filter(image, 2, origin=-1, mode='reflect')[::2, ::2]

    product = 1
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        mean_a, mean_b = blurred(a), blurred(b)
        variance_a, variance_b = blurred(a**2) - mean_a**2, blurred(b**2) - mean_b**2
        c1, c2 = 2.55**2, 7.65**2
        value = (2 * (blurred(a * b) - mean_a * mean_b) + c2) / (variance_a + variance_b + c2)
        if scale == 4:
            value = value * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        product *= value.mean() ** weight
        a, b = halved(a), halved(b)
    return product


@pytest.mark.parametrize('shape', [(176, 200), (181, 203)])
def test_ms_ssim_is_its_definition(shape):
    random = np.random.default_rng(3)
    smooth = scipy.ndimage.gaussian_filter(random.uniform(0, 255, shape), 3)
    image = 128 + (smooth - smooth.mean()) * 40 / smooth.std()
    darker = 0.8 * image + random.normal(0, 20, shape)
    expected = ms_ssim_by_definition(image, darker)
    assert 0.5 < expected < 0.95
    assert ms_ssim(image, darker) == pytest.approx(expected, abs=1e-9)
    assert ms_ssim(image, image) == pytest.approx(1, abs=1e-12)


def test_channels_are_scored_each_by_itself():
    a, b = np.random.default_rng(4).integers(0, 256, (2, 176, 180, 3)).astype(np.float64)
    b = (a + b) / 2
    each = [ms_ssim(a[..., channel], b[..., channel]) for channel in range(3)]
    assert np.ptp(each) > 1e-4
    assert ms_ssim(a, b) == pytest.approx(np.mean(each), abs=1e-12)


def test_structure_that_is_turned_around_scores_nothing():
    image = np.random.default_rng(5).uniform(0, 255, (176, 176))
    assert ms_ssim(image, 255 - image) == 0


def test_mae():
    a, b = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    a[0, 0, 0], b[1, 1, 1] = 12, 36
    assert mae(a, b) == mae(b, a) == 1


@pytest.mark.parametrize('name', METRICS)
def test_the_better_of_two_predictions_has_the_larger_merit(name):
    random, metric = np.random.default_rng(6), METRICS[name]
    truth = random.integers(0, 256, (180, 190, 3)).astype(np.float64)
    near, far = truth + random.normal(0, 4, truth.shape), truth + random.normal(0, 40, truth.shape)
    assert metric.merit(metric.function(truth, near)) > metric.merit(metric.function(truth, far))
    metric.function(*np.ones((2, metric.smallest_side, metric.smallest_side)))
    if metric.smallest_side > 1:
        with pytest.raises(UserError):
            metric.function(*np.ones((2, 200, metric.smallest_side - 1)))


def test_how_numbers_are_printed():
    assert [METRICS[name].text_with_unit(1.23456) for name in ('psnr', 'ssim')] == ['1.23 dB', '1.2346']
    assert METRICS['psnr'].text(math.inf) == 'inf'
    assert [METRICS[name].heading for name in ('psnr', 'ssim', 'mae')] == [
        'PSNR (dB)', 'SSIM', 'MAE (of 255; lower is better)',
    ]  # fmt: skip


def test_metrics_by_name():
    assert list(find_metrics(['ssim', 'psnr'])) == ['ssim', 'psnr']
    with pytest.raises(UserError, match=r"unknown metric 'lpips': one or more of psnr, ssim, ms_ssim, mae needed"):
        find_metrics(['psnr', 'lpips'])
    with pytest.raises(UserError, match='no metric given'):
        find_metrics([])
