"""The benchmark of tilings: scores beside those of the whole image, and a tiling that fails."""

import types

import numpy as np
import pytest

from benchmarks import tiling
from nsr_jax.errors import UserError
from nsr_jax.inference.tiling import Tiling
from nsr_jax.tasks import find_protocols

(PROTOCOL,) = find_protocols('denoise', ['denoise'])
OPTIONS = types.SimpleNamespace(rounds=3, tile_batch=None)
NETWORK = types.SimpleNamespace(scale=1)


def measure(monkeypatch, errors):
    """Rows for two images, from a prediction that is off by so many gray levels with each tiling."""
    generator = np.random.default_rng(0)
    truths = [generator.integers(50, 200, (16, 20, 1), np.uint8) for _ in range(2)]

    def predict(network, params, image, *, tiling, tile_batch):
        if errors[tiling] is None:
            raise RuntimeError('out of memory')
        return (image + errors[tiling]) / np.float32(255)

    monkeypatch.setattr(tiling, 'predict', predict)
    examples = [(truth.astype(np.float32), truth) for truth in truths]
    return tiling.measure(NETWORK, None, examples, PROTOCOL, list(errors), OPTIONS)


def test_each_tiling_is_scored_and_timed_beside_the_whole_image(monkeypatch):
    whole, feathered = measure(monkeypatch, {Tiling('whole'): 10, Tiling('feathered', 48, 8): 5})
    assert whole['psnr'] == pytest.approx(20 * np.log10(255 / 10))
    assert whole['psnr_gain'] == 0
    assert feathered['psnr_gain'] == pytest.approx(20 * np.log10(2))
    assert [len(row['seconds']) for row in (whole, feathered)] == [3, 3]
    cells = [cell(feathered) for cell in tiling.COLUMNS.values()]
    assert cells[:3] == ['feathered 48/8', f'{feathered["psnr"]:.3f}', '+6.021']


def test_a_tiling_that_fails_is_named(monkeypatch):
    with pytest.raises(UserError, match='feathered 48/8: RuntimeError: out of memory'):
        measure(monkeypatch, {Tiling('whole'): 10, Tiling('feathered', 48, 8): None})


def test_sizes_that_are_none():
    assert [str(each) for each in tiling.parse_tilings(['48'], ['8', '32'])] == ['whole', 'authors', 'feathered 48/8']
    with pytest.raises(UserError, match='--tiles and --overlaps take whole numbers'):
        tiling.parse_tilings(['48', 'large'], ['8'])
