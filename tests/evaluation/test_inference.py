"""The authors' patch rule and whole-image prediction, with stand-in networks that are easy to compute by hand."""

import collections
import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsr_jax.errors import UserError
from nsr_jax.evaluation import inference
from nsr_jax.evaluation.inference import predict


@dataclasses.dataclass(frozen=True)
class StandIn:
    """A scale-2 network whose body is a 3x3 difference filter plus the mean over the input, as a gate pools."""

    scale: int = 2
    channels: int = 1
    groups: int = 2
    traced: collections.Counter = dataclasses.field(default_factory=collections.Counter, compare=False)

    def apply(self, variables, x, method='__call__'):
        self.traced[method, x.shape] += 1
        p = variables['params']
        if method == 'body':
            zero_padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            neighbours = zero_padded[:, :-2, 1:-1] - 2 * zero_padded[:, 1:-1, 2:]
            pooled = x.mean(axis=(1, 2), keepdims=True)
            return jnp.tile(p['a'] * neighbours + p['b'] * pooled, 4) * jnp.arange(1, 4 * self.channels + 1)
        if method == 'skip':
            return jnp.tile(x, 4) * p['c']
        if method == 'assemble':  # not a pixel shuffle: only that it is applied once, to the sum
            return jnp.repeat(jnp.repeat(x.mean(axis=-1, keepdims=True), 2, axis=1), 2, axis=2) + 0.5
        return self.apply(variables, self.apply(variables, x, 'body') + self.apply(variables, x, 'skip'), 'assemble')


PARAMS = {'a': np.float32(0.7), 'b': np.float32(2.0), 'c': np.float32(0.1)}


def body_by_hand(patch):
    zero_padded = np.pad(patch, ((1, 1), (1, 1), (0, 0)))
    out = 0.7 * (zero_padded[:-2, 1:-1] - 2 * zero_padded[1:-1, 2:]) + 2 * patch.mean(axis=(0, 1), keepdims=True)
    return np.concatenate([out] * 4, axis=-1) * np.arange(1, 4 * patch.shape[-1] + 1)


def authors_rule_by_hand(image):
    """Set by set in float64, as the published rule reads, with full-size canvases."""
    H, W, _ = image.shape
    P, p = 48, 4
    t = P - 2 * p - 8
    n_h, n_w = int(np.floor((H + 2 * p - P) / t)) + 1, int(np.floor((W + 2 * p - P) / t)) + 1
    c_h, c_w = H + 2 * p - ((n_h - 1) * t + P), W + 2 * p - ((n_w - 1) * t + P)
    padded = np.pad(image, ((p, p), (p, p), (0, 0)), mode='reflect')
    total, weight = np.zeros((H + 2 * p, W + 2 * p, 4 * image.shape[-1])), np.zeros((H + 2 * p, W + 2 * p, 1))
    inner = np.zeros((P, P, 1))
    inner[p:-p, p:-p] = 1
    middle = padded[c_h // 2 : H + 2 * p - (c_h - c_h // 2), c_w // 2 : W + 2 * p - (c_w - c_w // 2)]
    sets = [
        (1.0, c_h // 2, c_w // 2, middle),
        (0.3, 0, 0, padded[:P, : W + 2 * p - c_w]),
        (0.3, 0, W + 2 * p - P, padded[: H + 2 * p - c_h, W + 2 * p - P :]),
        (0.3, H + 2 * p - P, c_w, padded[H + 2 * p - P :, c_w:]),
        (0.3, c_h, 0, padded[c_h:, :P]),
    ]
    for factor, top, left, region in sets:
        assert (region.shape[0] - P) % t == 0 and (region.shape[1] - P) % t == 0
        for i in range(0, region.shape[0] - P + 1, t):
            for j in range(0, region.shape[1] - P + 1, t):
                place = slice(top + i, top + i + P), slice(left + j, left + j + P)
                total[place] += factor * inner * body_by_hand(region[i : i + P, j : j + P])
                weight[place] += factor * inner
    body = (total / np.maximum(weight, 1e-9))[p:-p, p:-p]
    y = (body + 0.1 * np.concatenate([image] * 4, axis=-1)).mean(axis=-1, keepdims=True)
    return np.repeat(np.repeat(y, 2, axis=0), 2, axis=1) + 0.5


@pytest.mark.parametrize('size', [(193, 231), (192, 192), (249, 200)])
def test_authors_rule_on_odd_sizes(size):
    image = np.random.default_rng(0).uniform(0, 1, (*size, 1)).astype(np.float32)
    predicted = predict(StandIn(), PARAMS, image, tiling='authors')
    assert predicted.dtype == np.float32 and predicted.shape == (2 * size[0], 2 * size[1], 1)
    np.testing.assert_allclose(predicted, authors_rule_by_hand(image.astype(np.float64)), atol=2e-5)
    assert np.abs(predicted - predict(StandIn(), PARAMS, image)).max() > 0.01  # pooling tells the two apart


@settings(max_examples=40, deadline=None)
@given(st.integers(192, 700), st.integers(192, 700))
def test_patches_cover_every_pixel_and_stay_inside(height, width):
    weights = np.zeros((height, width))
    for row, column, weight in inference.patch_places(height, width):
        assert 0 <= row <= height - 40 and 0 <= column <= width - 40
        weights[row : row + 40, column : column + 40] += weight
    assert weights.min() >= 0.3 - 1e-9
    places = list(inference.patch_places(height, width))
    n_h, n_w = (height - 40) // 32 + 1, (width - 40) // 32 + 1
    assert len(places) == n_h * n_w + 2 * n_h + 2 * n_w


def test_one_compilation_serves_all_images_and_parameters():
    network = StandIn(traced=collections.Counter())
    random = np.random.default_rng(0)
    results = []
    for size in [(192, 200), (210, 230), (192, 200)]:
        for scaling in (1, 2):
            params = {key: scaling * value for key, value in PARAMS.items()}
            image = random.uniform(0, 1, (*size, 1)).astype(np.float32)
            results.append(predict(network, params, image, tiling='authors', patch_batch=7))
    calls = {key: count for key, count in network.traced.items() if key[0] == 'body'}
    assert calls == {('body', (7, 48, 48, 1)): 1}
    for size in [(60, 50), (60, 50), (50, 60)]:
        results.append(predict(network, PARAMS, np.zeros((*size, 1), np.float32)))
    calls = {key: count for key, count in network.traced.items() if key[0] == '__call__'}
    assert calls == {('__call__', (1, 60, 50, 1)): 1, ('__call__', (1, 50, 60, 1)): 1}


@pytest.mark.parametrize('patch_batch', [1, 5, 64])
def test_patch_batch_changes_nothing(patch_batch):
    image = np.random.default_rng(1).uniform(0, 1, (193, 201, 1)).astype(np.float32)
    expected = predict(StandIn(), PARAMS, image, tiling='authors')
    given_batch = predict(StandIn(), PARAMS, image, tiling='authors', patch_batch=patch_batch)
    np.testing.assert_allclose(given_batch, expected, atol=1e-5)


@pytest.mark.parametrize('groups, size', [(2, (191, 300)), (2, (300, 191)), (1, (200, 200))])
def test_small_images_and_networks_without_gates_are_seen_whole(groups, size):
    network = StandIn(groups=groups)
    image = np.random.default_rng(2).uniform(0, 1, (*size, 1)).astype(np.float32)
    np.testing.assert_array_equal(predict(network, PARAMS, image, tiling='authors'), predict(network, PARAMS, image))


def test_uint8_and_gray_input():
    image = np.random.default_rng(3).integers(0, 256, (20, 30, 1), np.uint8)
    floats = image.astype(np.float32) / 255
    np.testing.assert_array_equal(predict(StandIn(), PARAMS, image), predict(StandIn(), PARAMS, floats))
    colour = StandIn(channels=3)
    replicated = np.repeat(image, 3, axis=-1)
    np.testing.assert_array_equal(predict(colour, PARAMS, image), predict(colour, PARAMS, replicated))


def test_mistakes():
    gray, colour = np.zeros((20, 20, 1)), np.zeros((20, 20, 3))
    with pytest.raises(UserError, match=r"'tiled'.*whole, authors"):
        predict(StandIn(), PARAMS, gray, tiling='tiled')
    with pytest.raises(UserError, match='gray'):
        predict(StandIn(), PARAMS, colour)
    with pytest.raises(UserError, match=r'\(20, 20\)'):
        predict(StandIn(), PARAMS, gray[..., 0])
