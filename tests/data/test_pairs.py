"""Folders of pairs: matched by name, checked by size, and read as a task needs them."""

import numpy as np
import pytest

from nsr_jax.data import builders
from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.images.formats import SUFFIXES
from nsr_jax.images.writing import write_image, write_photo


def write_pair(folder, name, size=(8, 10), scale=1, channels=3, value=50):
    write_image(folder / 'target' / f'{name}.png', np.full((*size, channels), value, np.uint8))
    small = tuple(side // scale for side in size)
    write_image(folder / 'input' / f'{name}.png', np.full((*small, channels), value + 1, np.uint8))


def opened(folder, scale=1, inputs='given'):
    return open_source(folder, None, scale, inputs=inputs, tfds_dir=folder.parent / 'prepared')


@pytest.mark.parametrize('scale', [1, 2])
def test_inputs_and_targets_are_matched_by_name(tmp_path, scale):
    folder = tmp_path / 'pairs'
    for index, name in enumerate('ba'):
        write_pair(folder, name, scale=scale, value=10 * index)
    (folder / 'input' / 'a.png').rename(folder / 'input' / 'a.PNG')
    source = opened(folder, scale)
    assert source.names == ('a.png', 'b.png')
    for example, value in zip(source, (10, 0), strict=True):
        assert example.hr.shape == (8, 10, 3) and (example.hr == value).all()
        assert example.lr.shape == (8 // scale, 10 // scale, 3) and (example.lr == value + 1).all()
    clean = opened(folder, inputs='made')
    assert clean[0].lr is None and (clean[0].hr == 10).all()
    assert clean.fingerprint != source.fingerprint


def test_other_inputs_are_another_dataset(tmp_path):
    write_pair(tmp_path / 'pairs', 'a')
    before = opened(tmp_path / 'pairs')
    write_image(tmp_path / 'pairs' / 'input' / 'a.png', np.zeros((8, 10, 3), np.uint8))
    after = opened(tmp_path / 'pairs')
    assert after.fingerprint != before.fingerprint and (after[0].lr == 0).all()


def test_images_without_a_partner_are_listed_at_once(tmp_path):
    folder = tmp_path / 'pairs'
    write_pair(folder, 'a')
    for place, name in (('target', 'b'), ('input', 'c')):
        write_image(folder / place / f'{name}.png', np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError) as caught:
        opened(folder)
    assert 'target/b.png has no partner in input/' in str(caught.value)
    assert 'input/c.png has no partner in target/' in str(caught.value)
    write_pair(folder, 'b')
    write_pair(folder, 'c')
    (folder / 'input' / 'a.bmp').write_bytes((folder / 'input' / 'a.png').read_bytes())
    with pytest.raises(UserError, match=r'pairs: keep one of each: input/a\.bmp and a\.png$'):
        opened(folder)


def write_as(path, image):
    """Write an image in the format that its suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, channels = image.shape
    form = SUFFIXES[path.suffix]
    write_photo(path, [image], height=height, width=width, channels=channels, dtype=image.dtype, format=form)


def test_pairs_of_any_photographs_are_matched_by_their_paths(tmp_path, monkeypatch):
    """Against pixels that are converted here."""
    folder, generator = tmp_path / 'pairs', np.random.default_rng(0)
    first, second, third, fourth = generator.integers(0, 256, (4, 6, 8, 3), np.uint8)
    alpha = np.full((6, 8, 1), 128, np.uint8)
    write_as(folder / 'input/a.tif', first.astype(np.uint16) * 257)
    write_as(folder / 'target/a.png', second)
    write_as(folder / 'input/sub/a.png', np.concatenate([third, alpha], axis=2))
    write_as(folder / 'target/sub/a.tiff', fourth)
    for name in ('b.jfif', 'sub/sub/c.webp', 'd.dib', 'd.e.png', 'd.f.png'):
        for place in ('input', 'target'):
            write_as(folder / place / name, np.full((6, 8, 3), 90, np.uint8))
    said = []
    monkeypatch.setattr(builders.logging, 'info', lambda text, *values: said.append(text % values))
    source = opened(folder)
    assert source.names == ('a.png', 'b.jfif', 'd.dib', 'd.e.png', 'd.f.png', 'sub/a.tiff', 'sub/sub/c.webp')
    found = {example.name: example for example in source}
    np.testing.assert_array_equal(found['a.png'].hr, second)
    np.testing.assert_array_equal(found['a.png'].lr, first)
    np.testing.assert_array_equal(found['sub/a.tiff'].hr, fourth)
    np.testing.assert_array_equal(found['sub/a.tiff'].lr, np.rint(third * (128 / 255)))
    converted = 'input of a.png, sub/a.tiff, input of sub/a.tiff, sub/sub/c.webp, input of sub/sub/c.webp'
    assert f'5 of the images are converted to 8-bit gray or RGB: {converted}' in said


def test_names_that_differ_in_the_suffix_alone_are_listed_at_once(tmp_path):
    folder, image = tmp_path / 'pairs', np.zeros((6, 8, 3), np.uint8)
    for name in ('a.png', 'a.tif', 'sub/a.png', 'sub/b.png', 'sub/b.webp'):
        write_as(folder / 'target' / name, image)
    for name in ('a.png', 'sub/a.png', 'sub/b.png'):
        write_as(folder / 'input' / name, image)
    expected = 'pairs: keep one of each: 2 images have the name of another: '
    with pytest.raises(UserError, match=f'{expected}target/a.png and a.tif; target/sub/b.png and sub/b.webp$'):
        opened(folder)
    (folder / 'target/a.tif').unlink()
    (folder / 'target/sub/b.webp').unlink()
    (folder / 'input/sub').rename(folder / 'input/other')
    with pytest.raises(UserError, match=r'4 images have no partner: target/sub/a\.png has no partner in input/; '):
        opened(folder)


def test_sizes_that_do_not_fit_are_listed_at_once(tmp_path):
    folder = tmp_path / 'pairs'
    for name in 'abc':
        write_pair(folder, name)
    write_image(folder / 'input' / 'b.png', np.zeros((8, 9, 3), np.uint8))
    write_image(folder / 'input' / 'c.png', np.zeros((8, 10, 1), np.uint8))
    with pytest.raises(UserError) as caught:
        opened(folder)
    assert '2 images cannot be used' in str(caught.value)
    assert '9x8 pixels of 3 channels' in str(caught.value) and '10x8 pixels of 1 channel' in str(caught.value)


def test_pairs_are_asked_of_a_source_that_has_none(tmp_path):
    write_image(tmp_path / 'photos' / 'a.png', np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match='photos: has no input images: pairs are a folder with the folders input and'):
        opened(tmp_path / 'photos')
