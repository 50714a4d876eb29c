"""Images that are held out of training: their choice by name, and that training and validation agree on it."""

import dataclasses

import numpy as np
import pytest

from nsr_jax.data.sources import Source
from nsr_jax.data.validation_split import (
    ValidationImages,
    open_training_images,
    open_validation_images,
)
from nsr_jax.errors import UserError
from nsr_jax.images.writing import write_image


@pytest.fixture
def folder(tmp_path):
    for index in range(12):
        write_image(tmp_path / 'photos' / f'{index:02d}.png', np.full((8, 9, 3), index, np.uint8))
    return tmp_path / 'photos'


def split(folder, validation, scale=1):
    about = {'inputs': 'made' if scale == 1 else 'shrunk', 'tfds_dir': folder.parent / 'prepared'}
    return (
        open_training_images(str(folder), 'train', scale, validation, **about),
        open_validation_images(str(folder), 'train', scale, validation, **about),
    )


def test_no_image_is_on_both_sides_and_the_pixels_are_its_own(folder):
    train, held_out = split(folder, ValidationImages(fraction=0.25), scale=2)
    assert (len(train), len(held_out)) == (9, 3)
    assert sorted(train.names + held_out.names) == [f'{index:02d}.png' for index in range(12)]
    for source in (train, held_out):
        assert [int(each.hr[0, 0, 0]) for each in source] == [int(name[:2]) for name in source.names]
        assert source[0].lr.shape == (4, 4, 3)
        assert source.hr_shape(0) == (8, 9, 3)
    assert train.fingerprint != held_out.fingerprint


def test_the_rule_is_of_names_alone(folder):
    _, before = split(folder, ValidationImages(fraction=0.25))
    for index, name in enumerate(before.names):
        write_image(folder / name, np.full((8, 8, 3), 100 + index, np.uint8))  # other pixels
    _, after = split(folder, ValidationImages(fraction=0.25))
    assert after.names == before.names
    assert after.fingerprint != before.fingerprint
    (folder / next(name for name in sorted(path.name for path in folder.iterdir()) if name not in after.names)).unlink()
    _, fewer = split(folder, ValidationImages(fraction=0.25))
    assert fewer.names == before.names  # the others keep their places


def test_a_small_fraction_is_one_image_and_none_is_none(folder):
    train, held_out = split(folder, ValidationImages(fraction=0.001))
    assert (len(train), len(held_out)) == (11, 1)
    train, held_out = split(folder, ValidationImages())
    assert len(train) == 12 and held_out is None


def test_images_may_be_named(folder):
    train, held_out = split(folder, ValidationImages(fraction=0.5, images=('03.png', '07.png')))
    assert held_out.names == ('03.png', '07.png') and len(train) == 10
    with pytest.raises(UserError, match=r"config\.validation\.images: '99\.png' is no image of photos"):
        split(folder, ValidationImages(images=('99.png',)))


def test_another_source_takes_nothing_from_training(folder, tmp_path):
    write_image(tmp_path / 'others' / 'x.png', np.zeros((8, 8, 3), np.uint8))
    train, validation = split(folder, ValidationImages(str(tmp_path / 'others'), fraction=0.5))
    assert len(train) == 12 and validation.names == ('x.png',)


def test_something_must_be_left_to_train_on(tmp_path):
    write_image(tmp_path / 'one' / 'a.png', np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match='all of its 1 images would be held out'):
        split(tmp_path / 'one', ValidationImages(fraction=0.05))


def test_div2k_has_images_of_its_own(monkeypatch):
    opened = []

    def open_source(name, split, scale, **options):
        opened.append((name, split))
        return Source(name, ['a.png'], [{'hr': b''}], scale, has_inputs=False, fingerprint='')

    monkeypatch.setattr('nsr_jax.data.validation_split.open_source', open_source)
    validation = ValidationImages(fraction=0.05)
    for name in ('div2k', 'div2k/bicubic_x2'):
        open_training_images(name, 'train', 2, validation)
        open_validation_images(name, 'train', 2, validation)
    assert opened == [(name, split) for name in ('div2k', 'div2k/bicubic_x2') for split in ('train', 'validation')]
    assert open_validation_images('div2k', 'train', 2, ValidationImages()) is None
    named = dataclasses.replace(validation, images=('a.png',))
    with pytest.raises(UserError, match='all of its 1 images'):  # which are then of the training split
        open_validation_images('div2k', 'train', 2, named)
