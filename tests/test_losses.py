"""Losses against their definitions in float64 NumPy, and what configs may name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from nsr_jax.errors import UserError
from nsr_jax.losses import LOSSES, MS_SSIM_WEIGHTS, find_losses, weighted_sum
from nsr_jax.metrics import ssim


def images(seed, side=24, count=2):
    return np.random.default_rng(seed).random((count, side, side, 3), np.float32)


def smooth(side):
    rows, columns = np.mgrid[:side, :side] / side
    planes = [0.5 + 0.4 * np.sin(9 * rows + 4 * columns + phase) for phase in (0, 1, 2)]
    return np.stack(planes, -1)[None].astype(np.float32)


def by_definition(name, error):
    if name == 'fft':
        spectrum = np.fft.fft2(error, axes=(1, 2))
        return np.abs(np.stack([spectrum.real, spectrum.imag])).mean()
    return {
        'l1': lambda: np.abs(error).mean(),
        'l2': lambda: (error**2).mean(),
        'charbonnier': lambda: np.sqrt(error**2 + 1e-6).mean(),
    }[name]()


@pytest.mark.parametrize('name', ['l1', 'l2', 'charbonnier', 'fft'])
def test_losses_are_their_definitions(name):
    prediction, target = images(0), images(1)
    expected = by_definition(name, prediction.astype(np.float64) - target)
    np.testing.assert_allclose(LOSSES[name](prediction, target), expected, rtol=1e-5)


def test_ms_ssim_of_one_scale_is_ssim():
    prediction, target = smooth(21), smooth(21) + 0.05 * (images(2, 21, 1) - 0.5)
    expected = ssim(255 * prediction[0], 255 * target[0])
    np.testing.assert_allclose(1 - LOSSES['ms_ssim'](prediction, target), expected, rtol=1e-5)


def ms_ssim_by_definition(a, b, weights):
    """MS-SSIM of two planes in float64, window by window (Wang et al., 2003, equation 7)."""
    distance = np.arange(11) - 5
    window = np.exp(-(distance[:, None] ** 2 + distance**2) / (2 * 1.5**2))
    window /= window.sum()
    product = 1.0
    for scale, weight in enumerate(weights):
        mean_a, mean_b, squares_a, squares_b, both = (
            scipy.signal.correlate2d(each, window, mode='valid') for each in (a, b, a * a, b * b, a * b)
        )
        contrast = 2 * (both - mean_a * mean_b) + 9e-4
        contrast /= squares_a - mean_a**2 + squares_b - mean_b**2 + 9e-4
        luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        product *= (contrast * (luminance if scale == len(weights) - 1 else 1)).mean() ** weight
        even = len(a) // 2 * 2
        a, b = (each[:even, :even].reshape(even // 2, 2, -1, 2).mean(axis=(1, 3)) for each in (a, b))
    return product


def test_ms_ssim_is_its_definition():
    picture = smooth(176)[..., :1]
    darker = 0.7 * picture + 0.2 * images(7, 176, 1)[..., :1]
    expected = ms_ssim_by_definition(
        *(each[0, ..., 0].astype(np.float64) for each in (darker, picture)), MS_SSIM_WEIGHTS
    )
    assert 0.2 < expected < 0.9
    np.testing.assert_allclose(1 - LOSSES['ms_ssim'](darker, picture), expected, rtol=1e-4)
    assert abs(float(LOSSES['ms_ssim'](picture, picture))) < 1e-6


@pytest.mark.parametrize('side', [11, 96])
def test_ms_ssim_takes_as_many_scales_as_fit_and_has_a_gradient(side):
    prediction, target = 1 - smooth(side), smooth(side)
    value, gradient = jax.jit(jax.value_and_grad(LOSSES['ms_ssim']))(prediction, target)
    assert 0 < value <= 1 and bool(jnp.isfinite(gradient).all())


@pytest.mark.parametrize('name', list(LOSSES))
def test_each_loss_is_a_mean_over_samples_and_smallest_at_the_target(name):
    prediction, target = images(3, count=4), images(4, count=4)
    parts = [LOSSES[name](prediction[i : i + 1], target[i : i + 1]) for i in range(4)]
    np.testing.assert_allclose(LOSSES[name](prediction, target), np.mean(parts), rtol=1e-4)
    assert LOSSES[name](target, target) < 0.02 * LOSSES[name](prediction, target)


def test_a_weighted_sum_tells_its_terms():
    losses = find_losses({'l1': 1.0, 'l2': 0.0, 'fft': 0.05})
    prediction, target = images(5), images(6)
    value, terms = weighted_sum(losses, prediction, target)
    assert list(terms) == ['l1', 'fft']
    np.testing.assert_allclose(value, terms['l1'] + 0.05 * terms['fft'], rtol=1e-6)


@pytest.mark.parametrize(
    ('weights', 'message'),
    [
        ({'l3': 1.0}, "unknown loss 'l3': one of l1, l2, charbonnier, fft, ms_ssim"),
        ({'l1': -1.0}, 'config.loss.l1 must be a weight from 0, not -1.0'),
        ({'l1': float('nan')}, 'must be a weight from 0, not nan'),
        ({'l1': True}, 'must be a weight from 0, not True'),
        ({'l1': 0.0}, 'must give at least one of .* a weight above 0'),
        ({}, 'must give at least one of .* a weight above 0'),
    ],
)
def test_wrong_losses_are_refused(weights, message):
    with pytest.raises(UserError, match=message):
        find_losses(weights)


def test_ms_ssim_refuses_patches_below_its_window():
    with pytest.raises(UserError, match='at least 11 pixels a side, not 10'):
        LOSSES['ms_ssim'](images(0, 10), images(1, 10))
