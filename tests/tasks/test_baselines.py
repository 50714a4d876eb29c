"""Baselines: their predictions, and the tasks that they are for."""

import sys
import types

import numpy as np
import pytest

from nsr_jax.errors import UserError
from nsr_jax.ops.imresize import imresize
from nsr_jax.tasks import Degradation, find_baselines

SIGMA = Degradation('denoise', 25)


def test_bicubic_and_the_degraded_image_itself():
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    enlarged = find_baselines(['bicubic'], Degradation('sr', 3))['bicubic'](image)
    np.testing.assert_array_equal(enlarged, imresize(image, 3) / 255)
    np.testing.assert_array_equal(find_baselines(['degraded'], Degradation('jpeg', 10))['degraded'](image), image / 255)
    noisy = np.float32([[[-0.5], [1.5]]])
    np.testing.assert_array_equal(find_baselines(['degraded'], SIGMA)['degraded'](noisy), noisy)


def test_bm3d_is_told_the_noise(monkeypatch):
    calls = []
    package = types.ModuleType('bm3d')
    package.bm3d = lambda image, sigma: calls.append((image.ndim, sigma)) or image
    package.bm3d_rgb = lambda image, sigma: calls.append((image.ndim, sigma)) or image
    monkeypatch.setitem(sys.modules, 'bm3d', package)
    predictor = find_baselines(['bm3d'], SIGMA)['bm3d']
    for channels in (1, 3):
        image = np.random.default_rng(0).normal(0.5, 0.1, (6, 7, channels)).astype(np.float32)
        np.testing.assert_array_equal(predictor(image), image)
    assert calls == [(2, 25 / 255), (3, 25 / 255)]
    with pytest.raises(UserError, match='sigma above 0, not 0'):
        find_baselines(['bm3d'], Degradation('denoise', 0))


def test_bm3d_removes_noise():
    pytest.importorskip('bm3d', reason='the extra bm3d is not installed')
    noise = np.random.default_rng(0).normal(0, 25 / 255, (64, 64, 1))
    restored = find_baselines(['bm3d'], SIGMA)['bm3d']((0.5 + noise).astype(np.float32))
    assert restored.shape == (64, 64, 1)
    assert np.std(restored - 0.5) < 0.25 * np.std(noise)


def test_mistakes(monkeypatch):
    with pytest.raises(UserError, match="'lanczos': for denoise there is degraded, bm3d"):
        find_baselines(['lanczos'], SIGMA)
    with pytest.raises(UserError, match="'bicubic': for denoise there is degraded, bm3d"):
        find_baselines(['bicubic'], SIGMA)
    with pytest.raises(UserError, match="'degraded': for sr there is bicubic"):
        find_baselines(['degraded'], Degradation('sr', 2))
    monkeypatch.setitem(sys.modules, 'bm3d', None)
    with pytest.raises(UserError, match=r'pip install nsr-jax\[bm3d\]'):
        find_baselines(['bm3d'], SIGMA)
