"""Whole images and tiles, with stand-in networks that are easy to compute by hand and with small real ones."""

import collections
import dataclasses
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nsr_jax.errors import UserError
from nsr_jax.inference.prediction import predict, predict_strips
from nsr_jax.inference.tiling import Tiling, blend, feathered_tiles
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.models.residual import RestorationNetwork
from tests import oracle

WHOLE, AUTHORS = Tiling('whole'), Tiling('authors')


@dataclasses.dataclass(frozen=True)
class StandIn:
    """A scale-2 network whose body is a 3x3 difference filter plus the mean over the input, as a gate pools."""

    scale: int = 2
    channels: int = 1
    groups: int = 2
    has_parts: bool = True
    mean: float = 0.5
    traced: collections.Counter = dataclasses.field(default_factory=collections.Counter, compare=False)

    @property
    def is_gated(self):
        return self.groups > 1

    def apply(self, variables, x, method='__call__'):
        self.traced[method, x.shape] += 1
        p = variables['params']
        if method == 'body':
            zero_padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            neighbours = zero_padded[:, :-2, 1:-1] - 2 * zero_padded[:, 1:-1, 2:]
            pooled = x.mean(axis=(1, 2), keepdims=True)
            factors = jnp.arange(1.0, 4 * self.channels + 1)[None, None, None]
            return jnp.tile(p['a'] * neighbours + p['b'] * pooled, 4) * factors
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
    predicted = predict(StandIn(), PARAMS, image, tiling=AUTHORS)
    assert predicted.dtype == np.float32 and predicted.shape == (2 * size[0], 2 * size[1], 1)
    np.testing.assert_allclose(predicted, authors_rule_by_hand(image.astype(np.float64)), atol=2e-5)
    assert (
        np.abs(predicted - predict(StandIn(), PARAMS, image, tiling=WHOLE)).max() > 0.01
    )  # pooling tells the two apart


def feathered_by_hand(image, tile, overlap):
    """In float64 with full-size canvases, for sizes at which tiles share exactly their overlap."""
    H, W, _ = image.shape
    total = np.zeros((2 * H, 2 * W, 1))
    weight = np.zeros((2 * H, 2 * W, 1))
    phase = (np.arange(2 * overlap) + 0.5) / (2 * overlap)
    rise = 0.5 - 0.5 * np.cos(np.pi * phase)
    for top in range(0, H - overlap, tile - overlap):
        for left in range(0, W - overlap, tile - overlap):
            down, across = np.ones(2 * tile), np.ones(2 * tile)
            for ramp, first, side in ((down, top, H), (across, left, W)):
                if first > 0:
                    ramp[: 2 * overlap] = rise
                if first + tile < side:
                    ramp[-2 * overlap :] = rise[::-1]
            part = image[top : top + tile, left : left + tile]
            y = (body_by_hand(part) + 0.1 * np.concatenate([part] * 4, axis=-1)).mean(axis=-1, keepdims=True)
            place = slice(2 * top, 2 * (top + tile)), slice(2 * left, 2 * (left + tile))
            total[place] += np.outer(down, across)[..., None] * (y.repeat(2, axis=0).repeat(2, axis=1) + 0.5)
            weight[place] += np.outer(down, across)[..., None]
    np.testing.assert_allclose(weight, 1)
    return total


def test_feathered_by_hand():
    tile, overlap = 24, 7
    image = np.random.default_rng(0).uniform(0, 1, (24 + 17 * 2, 24 + 17 * 3, 1)).astype(np.float32)
    predicted = predict(StandIn(groups=1), PARAMS, image, tiling=Tiling('feathered', tile, overlap))
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, feathered_by_hand(image.astype(np.float64), tile, overlap), atol=2e-5)


@pytest.mark.parametrize('size', [(71, 83), (20, 83), (83, 20), (33, 32)])
def test_feathered_tiles_leave_no_seam(size):
    """Where a pixel's value is its own affair, tiles change nothing; where they pool, they fade into one another."""
    tiling = Tiling('feathered', 32, 8)
    image = np.random.default_rng(0).uniform(0, 1, (*size, 1)).astype(np.float32)
    pointwise = PARAMS | {'a': np.float32(0), 'b': np.float32(0)}
    whole = predict(StandIn(), pointwise, image, tiling=WHOLE)
    np.testing.assert_allclose(predict(StandIn(), pointwise, image, tiling=tiling), whole, atol=1e-6)
    pooled = predict(StandIn(), {'a': np.float32(0), 'b': np.float32(1), 'c': np.float32(0)}, image, tiling=tiling)
    steepest = np.pi / 2 / 16 * np.ptp(pooled)
    assert np.ptp(pooled) > 0
    for axis in (0, 1):
        assert np.abs(np.diff(pooled, axis=axis)).max() < steepest + 1e-6


def test_feathered_tiles_shrink_with_the_image():
    """A side shorter than a tile is seen as it is; an image smaller in both sides is seen whole."""
    network = StandIn(traced=collections.Counter())
    for size in [(20, 83), (20, 100), (31, 17)]:
        image = np.random.default_rng(0).uniform(0, 1, (*size, 1)).astype(np.float32)
        predicted = predict(network, PARAMS, image, tiling=Tiling('feathered', 32, 8), tile_batch=3)
        assert predicted.shape == (2 * size[0], 2 * size[1], 1)
    assert {shape for method, shape in network.traced if method == '__call__'} == {(3, 20, 32, 1), (1, 31, 17, 1)}
    np.testing.assert_array_equal(predicted, predict(network, PARAMS, image, tiling=WHOLE))


def test_one_compilation_serves_all_images_and_parameters():
    network = StandIn(traced=collections.Counter())
    random = np.random.default_rng(0)
    for size in [(192, 200), (210, 230), (192, 200), (433, 193)]:
        for scaling in (1, 2):
            params = {key: scaling * value for key, value in PARAMS.items()}
            image = random.uniform(0, 1, (*size, 1)).astype(np.float32)
            predict(network, params, image, tiling=AUTHORS, tile_batch=7)
            predict(network, params, image, tiling=Tiling('feathered', 64, 8), tile_batch=5)
    assert network.traced == {
        ('body', (7, 48, 48, 1)): 1,
        ('skip', (7, 48, 48, 1)): 1,
        ('assemble', (7, 40, 40, 4)): 1,
        ('__call__', (5, 64, 64, 1)): 1,
        ('body', (5, 64, 64, 1)): 1,
        ('skip', (5, 64, 64, 1)): 1,
        ('assemble', (5, 64, 64, 4)): 1,
    }
    network.traced.clear()
    for size in [(60, 50), (60, 50), (50, 60)]:
        predict(network, PARAMS, np.zeros((*size, 1), np.float32), tiling=WHOLE)
    calls = {key: count for key, count in network.traced.items() if key[0] == '__call__'}
    assert calls == {('__call__', (1, 60, 50, 1)): 1, ('__call__', (1, 50, 60, 1)): 1}


@pytest.fixture
def compiled():
    """How many functions of a network JAX has compiled since the test began, as a function."""
    names = []

    def listen(event, seconds, **about):
        if event == '/jax/core/compile/backend_compile_duration' and 'restore' in about.get('fun_name', ''):
            names.append(about['fun_name'])

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield lambda: len(names)
    jax.monitoring.unregister_event_duration_listener(listen)


def small_network(**changes):
    """One with gates, random parameters that matter, and images that it can be given."""
    network = RestorationNetwork(**{'scale': 2, 'channels': 1, 'num_blocks': 1, 'features': 4} | changes)
    random = np.random.default_rng(5)
    return network, jax.tree.map(
        lambda leaf: random.normal(0, 0.5, leaf.shape).astype(np.float32), parameter_shapes(network)
    )


GATES = {'groups': 2, 'cardinality': 2}


@pytest.mark.parametrize(
    ('features', 'name', 'sizes', 'most'),  # features that no other test has compiled
    [
        (6, 'feathered', [(58, 92), (96, 95), (20, 90), (90, 20), (21, 10), (40, 40), (48, 48), (1, 1), (49, 1)], 2),
        (8, 'feathered', [(10, 107), (20, 117), (59, 156), (200, 31), (97, 1)], 1),
        (10, 'feathered', [(96, 96), (100, 96), (96, 170), (131, 300)], 1),
        (12, 'whole', [(60, 70), (70, 60), (51, 96), (97, 98), (101, 112), (110, 103), (99, 99)], 2),
    ],
    ids=['small', 'one small side', 'whole tiles', 'whole'],
)
def test_one_compilation_serves_many_sizes(compiled, features, name, sizes, most):
    network, params = small_network(**GATES, features=features)
    image = np.random.default_rng(0).random((320, 320, 1)).astype(np.float32)
    for height, width in sizes:
        predicted = predict(network, params, image[:height, :width], tiling=Tiling(name))
        assert predicted.shape == (2 * height, 2 * width, 1)
    assert 1 <= compiled() <= most


@pytest.mark.parametrize('gates', [GATES, {}], ids=['gates', 'plain'])
@pytest.mark.parametrize('size', [(5, 7), (48, 48), (30, 95), (96, 96)])
def test_small_images_are_restored_as_by_themselves(gates, size):
    """The gate sees the image alone, and the convolutions zeros around it."""
    network, params = small_network(**gates)
    image = np.random.default_rng(0).random((*size, 1)).astype(np.float32)
    (expected,) = oracle.forward(params, image[None], scale=2)
    for tiling in (WHOLE, Tiling('feathered')):
        np.testing.assert_allclose(predict(network, params, image, tiling=tiling), expected, rtol=0, atol=1e-5)


def test_tiles_of_a_narrow_image_are_restored_as_by_themselves():
    """As blended by hand of exact tiles 30 x 96, the last of which are as wide as the others."""
    network, params = small_network(**GATES)
    image = np.random.default_rng(0).random((30, 170, 1)).astype(np.float32)
    tiles = feathered_tiles(30, 170, 2, 96, 16)
    cut = [image[None, :, tile.column : tile.column + 96] for tile in tiles]
    answers = [oracle.forward(params, each, scale=2)[0] for each in cut]
    expected = np.concatenate(list(blend(zip(tiles, answers, strict=True), 170, 2)))
    for batch in (1, 3):
        predicted = predict(network, params, image, tiling=Tiling('feathered'), tile_batch=batch)
        np.testing.assert_allclose(predicted, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('tiling', [WHOLE, AUTHORS, Tiling('feathered', 48, 8)], ids=str)
def test_progress_is_told_after_each_tile(tiling):
    told = []
    image = np.zeros((200, 193, 1), np.float32)
    strips = predict_strips(StandIn(), PARAMS, image, tiling=tiling, on_progress=told.append)
    next(strips)
    if tiling != WHOLE:  # within the first strip, and not all at once
        assert 3 < len(told) < 40
        assert told[0] == pytest.approx(1 / round(1 / told[0])) and told[-1] < 0.6
    collections.deque(strips, maxlen=0)
    np.testing.assert_allclose(told, np.arange(1, len(told) + 1) / len(told))


@pytest.mark.parametrize('scale', [1, 2])
def test_skip_by_patches_is_that_of_the_whole_image(scale):
    network = RestorationNetwork(scale=scale, channels=3, num_blocks=1, features=4, groups=2, cardinality=2)
    random = np.random.default_rng(5)
    params = jax.tree.map(lambda leaf: random.normal(0, 1, leaf.shape).astype(np.float32), parameter_shapes(network))
    params['tail'].update(scale=0 * params['tail']['scale'], bias=0 * params['tail']['bias'])
    image = np.random.default_rng(0).integers(0, 256, (193, 230, 3), np.uint8)
    whole = predict(network, params, image, tiling=WHOLE)
    assert np.ptp(whole) > 0.5
    np.testing.assert_allclose(predict(network, params, image, tiling=AUTHORS), whole, atol=1e-6)


@pytest.mark.parametrize('tiling', [AUTHORS, Tiling('feathered', 64, 8)], ids=str)
@pytest.mark.parametrize('tile_batch', [1, 5, 64])
def test_tile_batch_changes_nothing(tiling, tile_batch):
    image = np.random.default_rng(1).uniform(0, 1, (193, 201, 1)).astype(np.float32)
    expected = predict(StandIn(), PARAMS, image, tiling=tiling)
    given_batch = predict(StandIn(), PARAMS, image, tiling=tiling, tile_batch=tile_batch)
    np.testing.assert_allclose(given_batch, expected, atol=1e-5)


@pytest.mark.parametrize('groups, size', [(2, (191, 300)), (2, (300, 191)), (1, (200, 200))])
def test_small_images_and_networks_without_gates_are_seen_whole(groups, size):
    network = StandIn(groups=groups)
    image = np.random.default_rng(2).uniform(0, 1, (*size, 1)).astype(np.float32)
    whole = predict(network, PARAMS, image, tiling=WHOLE)
    np.testing.assert_array_equal(predict(network, PARAMS, image, tiling=AUTHORS), whole)


@pytest.mark.parametrize('tiling', [WHOLE, AUTHORS, Tiling('feathered', 48, 8)], ids=str)
def test_strips_are_the_prediction(tiling):
    image = np.random.default_rng(4).uniform(0, 1, (300, 193, 1)).astype(np.float32)
    strips = list(predict_strips(StandIn(), PARAMS, image, tiling=tiling))
    assert all(strip.dtype == np.float32 and strip.shape[1:] == (386, 1) for strip in strips)
    assert tiling == WHOLE or max(map(len, strips)) <= 96
    np.testing.assert_array_equal(np.concatenate(strips), predict(StandIn(), PARAMS, image, tiling=tiling))


@pytest.mark.parametrize('tiling', [AUTHORS, Tiling('feathered', 64, 8)], ids=str)
def test_host_memory_does_not_grow_with_the_output(tiling):
    def peak(height):
        image = np.zeros((height, 256, 1), np.uint8)
        tracemalloc.start()
        for _ in predict_strips(StandIn(), PARAMS, image, tiling=tiling):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(256)  # compiles
    # Its output would take 12.6 MB more; the list of its tiles may.
    assert peak(4096) - peak(1024) < 1e6
    assert peak(1024) < 3e6


@pytest.mark.parametrize('tiling', [WHOLE, AUTHORS, Tiling('feathered', 96, 8)], ids=str)
def test_uint8_and_gray_input(tiling):
    image = np.random.default_rng(3).integers(0, 256, (192, 200, 1), np.uint8)
    floats = image.astype(np.float32) / 255
    predictions = [predict(StandIn(), PARAMS, each, tiling=tiling) for each in (image, floats)]
    np.testing.assert_array_equal(*predictions)
    colour = StandIn(channels=3)
    predictions = [predict(colour, PARAMS, each, tiling=tiling) for each in (image, np.repeat(image, 3, axis=-1))]
    np.testing.assert_array_equal(*predictions)


def test_mistakes():
    gray, colour = np.zeros((20, 20, 1)), np.zeros((20, 20, 3))
    for function in (predict, predict_strips):  # strips: before the first one is asked for
        with pytest.raises(UserError, match='gray'):
            function(StandIn(), PARAMS, colour, tiling=WHOLE)
        with pytest.raises(UserError, match=r'\(20, 20\)'):
            function(StandIn(), PARAMS, gray[..., 0], tiling=WHOLE)
