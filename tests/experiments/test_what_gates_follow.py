"""Gates that follow colour, texture or nothing, made to do so."""

import numpy as np
import pytest

from experiments.what_gates_follow import collect, describe_texture, explained_variance, follow
from nsr_jax import shipped
from nsr_jax.errors import UserError
from nsr_jax.images.writing import write_image

GROUPS, PARTS = 3, 2


@pytest.fixture(scope='module')
def windows():
    """240 windows of 10 images, each of one colour with stripes of one direction and strength."""
    generator = np.random.default_rng(0)
    colour = generator.uniform(0.3, 0.7, (240, 1, 1, 3))
    along, across = np.mgrid[:16, :16]
    angle, strength = generator.uniform(0, np.pi, (240, 1, 1)), generator.uniform(0.01, 0.2, (240, 1, 1))
    stripes = strength * np.sin(along * np.cos(angle) + across * np.sin(angle))
    return colour + stripes[..., None], np.repeat(np.arange(10), 24)


def choose(logits):
    """Softmax weights `(N, k, d)` of logits `(N,)` or `(N, k)`, the same at each position."""
    logits = np.broadcast_to(logits.reshape(len(logits), -1) * np.arange(1, GROUPS + 1), (len(logits), GROUPS))
    weights = np.exp(logits)
    return np.repeat((weights / weights.sum(axis=1, keepdims=True))[..., None], PARTS, axis=-1)


def test_gates_follow_what_they_were_made_to_follow(windows):
    pixels, images = windows
    red = choose(5 * (pixels[..., 0].mean(axis=(1, 2)) - 0.5))
    energy = choose(0.2 * (np.log(np.square(np.diff(pixels.mean(axis=-1), axis=1)).mean(axis=(1, 2))) + 6))
    noise = choose(np.random.default_rng(1).normal(size=240))
    almost = np.zeros((240, GROUPS, PARTS))
    almost[:, 0] = 0.97
    almost[:, 1:] = 0.015
    gammas = {'block_00/conv_1': red, 'block_01/conv_1': energy, 'block_02/conv_1': noise, 'block_03/conv_1': almost}
    by_colour, by_texture, by_nothing, constant = follow(gammas, pixels, images)
    assert [row[0] for row in (by_colour, by_texture, by_nothing, constant)] == [f'block_0{i}' for i in range(4)]
    assert by_colour[3] > 0.95 and by_colour[4] < 0.2 and by_colour[5] > 0.95
    assert by_texture[3] < 0.2 and by_texture[4] > 0.9 and by_texture[5] > 0.9
    assert max(by_nothing[3:]) < 0.1
    assert constant[1] < 0.3 and constant[2] == 1 and constant[3:] == (0, 0, 0)
    assert by_colour[2] < 0.5 < by_colour[1] <= np.log2(GROUPS)


def test_an_image_does_not_explain_itself():
    """Descriptors that name the image explain its windows, but nothing of an image that was not seen."""
    images = np.repeat(np.arange(8), 30)
    values = np.random.default_rng(0).uniform(size=8)[images][:, None]
    assert explained_variance(values, np.eye(8)[images], images) < 0.05
    assert explained_variance(values, values, images) > 0.999


def test_texture_tells_directions_and_sizes_apart_and_no_colours():
    rows = np.mgrid[:16, :16][0]
    stripes, wide = (0.5 + 0.2 * np.sin(frequency * rows)[..., None].repeat(3, axis=-1) for frequency in (2.5, 0.4))
    first, turned, other, tinted = describe_texture(
        np.stack([stripes, stripes.swapaxes(0, 1), wide, stripes + [0.1, -0.05, -0.05]])
    )
    assert abs(first[0] - turned[1]) < 1e-9 and abs(first[1] - turned[0]) < 1e-9 and first[0] - first[1] > 5
    assert first[0] - other[0] > 2
    assert np.allclose(first, tinted, atol=1e-9)
    odd = describe_texture(np.pad(wide[None], ((0, 0), (0, 1), (0, 1), (0, 0)), mode='edge'))[0]
    assert np.allclose(other[4:8], odd[4:8], atol=1e-9)  # a last row and column have no partners


def test_the_gates_of_a_network_and_their_windows(tmp_path, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (140, 200, 3), dtype=np.uint8)
    (tmp_path / 'images').mkdir()
    for number in range(2):
        write_image(tmp_path / 'images' / f'{number}.png', np.roll(image, number, axis=0))
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'datasets'))
    model = shipped.load_part('sr_x2')
    gammas, windows, images = collect(model, str(tmp_path / 'images'))
    side = model.config.data.patch_size
    assert windows.shape == (2 * (70 // side) * (100 // side), side, side, 3) and windows.max() <= 1
    assert images.tolist() == [0] * (len(images) // 2) + [1] * (len(images) // 2)
    assert len(gammas) == 2 * model.config.model.num_blocks
    for gamma in gammas.values():
        assert gamma.shape == (len(windows), model.config.model.groups, model.config.model.cardinality)
        assert np.allclose(gamma.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ('model', 'told'),
    [
        ('denoise_gray', 'network for gray images'),
        ('sr_x2', 'smaller than a window of 32 pixels'),
        ('sr_x3', 'smaller than a window of 32 pixels'),  # whose card is older
        ('denoise_colour', 'smaller than a window of 48 pixels'),
    ],
)
def test_what_cannot_be_told_is_one_line(tmp_path, monkeypatch, model, told):
    (tmp_path / 'images').mkdir()
    for name in ('one', 'two'):
        write_image(tmp_path / 'images' / f'{name}.png', np.zeros((40, 40, 3), np.uint8))
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'datasets'))
    with pytest.raises(UserError, match=told):
        collect(shipped.load_part(model), str(tmp_path / 'images'))


def test_gray_images_have_no_colour_to_follow(tmp_path, monkeypatch):
    for name in ('one', 'two'):
        write_image(tmp_path / 'images' / f'{name}.png', np.zeros((80, 80), np.uint8))
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'datasets'))
    with pytest.raises(UserError, match=r'one\.png is gray: it has no colour to follow'):
        collect(shipped.load_part('sr_x2'), str(tmp_path / 'images'))


def test_a_single_image_cannot_be_judged(tmp_path, monkeypatch):
    (tmp_path / 'images').mkdir()
    write_image(tmp_path / 'images' / 'one.png', np.zeros((80, 80, 3), np.uint8))
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'datasets'))
    with pytest.raises(UserError, match='images has a single image'):
        collect(shipped.load_part('sr_x2'), str(tmp_path / 'images'))
