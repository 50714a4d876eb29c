"""PSNR and SSIM against scikit-image and against their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from nsr_jax.errors import UserError
from nsr_jax.evaluation.metrics import psnr, ssim


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
    with pytest.raises(UserError, match=r'\(4, 4\)'):
        psnr(np.zeros((4, 4)), np.zeros((4, 1)))
    with pytest.raises(UserError, match='nothing'):
        psnr(np.zeros((0, 4)), np.zeros((0, 4)))
