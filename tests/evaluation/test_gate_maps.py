"""Gate maps compared with gates that are called by hand, window by window."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from nsr_jax.errors import UserError
from nsr_jax.evaluation.gate_maps import (
    GateMaps,
    block_entropies,
    draw_gate_maps,
    gate_entropy,
    gate_names,
    map_gates,
    save_gate_maps,
    write_gate_maps,
)
from nsr_jax.models.residual import RestorationNetwork
from nsr_jax.nn.gates import Gate
from nsr_jax.nn.layers import WeightNormConv

TRACED = []


class Traced(RestorationNetwork):
    """A network that records when it is traced."""

    def body(self, x, inside=None):
        """The body of the network."""
        TRACED.append(x.shape)
        return super().body(x, inside)


NETWORK = Traced(scale=2, channels=3, num_blocks=2, features=4, width_multiplier=2, groups=3, cardinality=2)


@pytest.fixture(scope='module')
def params():
    shapes = jax.eval_shape(NETWORK.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    assert list(shapes) == ['params']
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.normal(0, 1, leaf.shape).astype(np.float32), shapes['params'])


@pytest.fixture(scope='module')
def image():
    return np.random.default_rng(1).integers(0, 256, (29, 40, 3), np.uint8)


def test_gammas_of_each_window(params, image):
    maps = map_gates(NETWORK, params, image, window=12, stride=5, window_batch=7)
    # 29 = 12 + 3 * 5 + 2 and 40 = 12 + 5 * 5 + 3: the remainder lies at both edges.
    assert maps.rows.tolist() == [1, 6, 11, 16] and maps.columns.tolist() == [1, 6, 11, 16, 21, 26]
    assert maps.window == 12
    assert list(maps.gammas) == ['block_00/conv_1', 'block_00/conv_2', 'block_01/conv_1', 'block_01/conv_2']
    for gamma in maps.gammas.values():
        assert gamma.shape == (4, 6, 3, 2) and gamma.dtype == np.float32
        np.testing.assert_allclose(gamma.sum(axis=-2), 1, atol=1e-6)

    def captured(window):
        _, state = NETWORK.apply(
            {'params': params}, window, capture_intermediates=lambda module, _: isinstance(module, Gate)
        )
        return state['intermediates']

    captured = jax.jit(captured)
    for i, row in enumerate(maps.rows):
        for j, column in enumerate(maps.columns):
            window = image[None, row : row + 12, column : column + 12].astype(np.float32) / 255
            expected = captured(window)
            for name, gamma in maps.gammas.items():
                block, conv = name.split('/')
                np.testing.assert_allclose(gamma[i, j], expected[block][conv]['gate']['__call__'][0][0], atol=1e-5)

    head = WeightNormConv(4).apply({'params': params['head']}, window - 0.5)
    gate = params['block_00']['conv_1']['gate']
    logits = np.einsum('c,ckd->kd', np.mean(head, axis=(0, 1, 2)), gate['kernel']) + gate['bias']
    by_hand = np.exp(logits) / np.exp(logits).sum(axis=0)
    np.testing.assert_allclose(maps.gammas['block_00/conv_1'][-1, -1], by_hand, atol=1e-5)
    assert np.ptp(maps.gammas['block_01/conv_2'], axis=(0, 1)).max() > 0.001


def test_one_compilation_serves_all_sizes(params, image):
    TRACED.clear()
    for height, width in [(29, 40), (16, 16), (25, 17)]:
        maps = map_gates(NETWORK, params, image[:height, :width], ('block_01/conv_1',), window=16, stride=8)
        assert list(maps.gammas) == ['block_01/conv_1']
    assert TRACED == [(16, 16, 16, 3)]
    # The windows of a smaller image that starts at the same pixel are those of the larger one.
    large = map_gates(NETWORK, params, image[:24, :24], ('block_01/conv_1',), window=16, stride=8)
    small = map_gates(NETWORK, params, image[:16, :16], ('block_01/conv_1',), window=16, stride=8)
    np.testing.assert_allclose(small.gammas['block_01/conv_1'][0, 0], large.gammas['block_01/conv_1'][0, 0], atol=1e-6)


def test_nothing_is_kept_where_nobody_asks(params):
    x = np.zeros((1, 8, 8, 3), np.float32)
    out = jax.eval_shape(NETWORK.apply, {'params': params}, x)
    assert out.shape == (1, 16, 16, 3)


def test_entropy():
    assert gate_entropy(np.full((2, 2, 8, 3), 0.125)) == pytest.approx(3)
    assert gate_entropy(np.full((5, 8, 3), 0.7)) == pytest.approx(3)  # of sigmoid gates the shares count
    choice = np.zeros((4, 3, 2), np.float32)
    choice[:, 1] = 1
    assert gate_entropy(choice) == 0
    gamma = np.random.default_rng(0).dirichlet(np.ones(4), (3, 5, 2)).swapaxes(-1, -2)
    by_hand = [-sum(p * np.log2(p) for p in gamma[i, j, :, d]) for i in range(3) for j in range(5) for d in range(2)]
    assert gate_entropy(gamma) == pytest.approx(np.mean(by_hand))
    gammas = {'block_00/conv_1': choice, 'block_00/conv_2': np.full((1, 1, 4, 2), 0.25), 'block_07/conv_2': gamma}
    maps = GateMaps(gammas, np.arange(1), np.arange(1), 48)
    assert block_entropies(maps) == {'block_00': 1.0, 'block_07': pytest.approx(np.mean(by_hand))}


def halves():
    """Maps of the first group in the left half; in the right half the last group at position 0, the first elsewhere."""
    gamma = np.zeros((3, 4, 3, 2), np.float32)
    gamma[:, :2, 0] = gamma[:, 2:, 0, 1] = gamma[:, 2:, 2, 0] = 1
    return GateMaps({'block_00/conv_1': gamma, 'block_03/conv_2': gamma}, 16 * np.arange(3), 16 * np.arange(4), 16)


def test_arrays_come_back(tmp_path):
    save_gate_maps(tmp_path / 'maps.npz', halves())
    with np.load(io.BytesIO((tmp_path / 'maps.npz').read_bytes())) as saved:
        assert set(saved) == {'rows', 'columns', 'window', 'block_00/conv_1', 'block_03/conv_2'}
        np.testing.assert_array_equal(saved['block_03/conv_2'], halves().gammas['block_03/conv_2'])
        np.testing.assert_array_equal(saved['columns'], [0, 16, 32, 48])
        assert saved['window'] == 16


@pytest.mark.parametrize('channels', [1, 3])
def test_picture_shows_the_strongest_groups(tmp_path, channels):
    image = np.full((48, 64, channels), 128, np.uint8)
    draw_gate_maps(tmp_path / 'maps.png', 'a title', image, halves(), positions=(0, 1))
    with Image.open(tmp_path / 'maps.png') as picture:
        pixels = np.asarray(picture.convert('RGB')).reshape(-1, 3)
    first, last = ((pixels == colour).all(axis=-1).sum() for colour in [(31, 119, 180), (44, 160, 44)])
    # Two maps have four halves: three show the first group and one the last; the legend adds a little.
    assert first / last == pytest.approx(3, rel=0.15)
    assert (pixels == 128).all(axis=-1).sum() == pytest.approx((first + last) / 2, rel=0.15)


def test_many_groups_have_colours_of_their_own(tmp_path):
    gamma = np.eye(16, dtype=np.float32)[np.arange(16).reshape(4, 4)][..., None]
    maps = GateMaps({'block_00/conv_1': gamma}, np.arange(4), np.arange(4), 1)
    draw_gate_maps(tmp_path / 'maps.png', 'a title', np.zeros((4, 4, 1), np.uint8), maps, positions=(0,))
    with Image.open(tmp_path / 'maps.png') as picture:
        counts = picture.convert('RGB').getcolors(1 << 20)
    assert sum(count > 2000 for count, _ in counts) >= 18  # sixteen groups, the black image and the white paper


@pytest.mark.parametrize(
    ('fields', 'arguments', 'message'),
    [
        ({'groups': 1, 'cardinality': 1}, {}, 'no gates'),
        ({}, {'names': ['block_02/conv_1']}, r"'block_02/conv_1'.*block_00/conv_1 to block_01/conv_2"),
        ({}, {'window': 30}, r'\(29, 40\).*30 pixels'),
        ({}, {'stride': 0}, 'stride.*at least 1, not 0'),
        ({'channels': 1}, {}, 'gray'),
    ],
)
def test_mistakes(image, fields, arguments, message):
    network = NETWORK.clone(**fields)
    with pytest.raises(UserError, match=message):
        map_gates(network, {}, image, **arguments)


def test_all_of_it_in_two_files(tmp_path, params, caplog):
    noisy = np.random.default_rng(2).normal(0.5, 0.5, (64, 80, 3)).astype(np.float32)  # not clipped
    with caplog.at_level('INFO', logger='absl'):
        entropies = write_gate_maps(tmp_path / 'set_0.1', 'title', NETWORK, params, noisy, ['block_01/conv_1'])
    assert {path.name for path in tmp_path.iterdir()} == {'set_0.1.npz', 'set_0.1.png'}
    maps = map_gates(NETWORK, params, noisy)
    assert entropies == block_entropies(maps)
    assert (
        f'set_0.1: entropy of the gates, in bits (at most 1.58): block_00 {entropies["block_00"]:.3f}, ' in caplog.text
    )
    with np.load(tmp_path / 'set_0.1.npz') as saved:
        assert set(saved) == {'rows', 'columns', 'window', 'block_01/conv_1'}
        np.testing.assert_array_equal(saved['block_01/conv_1'], maps.gammas['block_01/conv_1'])


def test_mistaken_position(tmp_path):
    with pytest.raises(UserError, match='position 2: there are 0 to 1'):
        draw_gate_maps(tmp_path / 'maps.png', '', np.zeros((48, 64, 1), np.uint8), halves(), positions=(0, 2))
    assert not list(tmp_path.iterdir())


def test_names():
    assert gate_names(NETWORK.clone(num_blocks=1)) == ('block_00/conv_1', 'block_00/conv_2')
    assert gate_names(NETWORK.clone(groups=1, cardinality=1)) == ()
