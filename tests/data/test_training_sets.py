"""The training sets of published networks: their images, and that no test image is among them."""

import pathlib

import numpy as np
import pytest

from nsr_jax.data.layouts import training_set
from nsr_jax.data.sources import open_source
from nsr_jax.data.training_sets import TRAINING_SETS, TrainingSet, find_training_set
from nsr_jax.errors import UserError
from nsr_jax.images.reading import read_image
from nsr_jax.images.writing import write_image

WOMAN = '302003'


def test_no_image_is_named_twice_and_names_of_sets_have_no_case():
    for each in TRAINING_SETS:
        assert WOMAN not in each.folders.get('BSDS500', ())
        assert all(len(set(stems)) == len(stems) for stems in each.folders.values())
    assert find_training_set('T91_BSDS200') is TRAINING_SETS[0]
    assert find_training_set('bsds500') is None


def test_the_splits_are_those_that_come_with_the_images(data_dir):
    splits = {
        split: [pathlib.Path(line).stem for line in (data_dir / 'train' / f'BSDS500_{split}.txt').read_text().split()]
        for split in ('train', 'test')
    }
    assert find_training_set('t91_bsds200').folders['BSDS500'] == tuple(splits['train'])
    assert find_training_set('bsds400').folders['BSDS500'] == tuple(splits['train'] + splits['test'])


def test_no_training_image_is_in_a_test_set_by_name(data_dir):
    tested = {path.stem for name in ('BSD100', 'CBSD68') for path in (data_dir / 'test' / name / 'HR').iterdir()}
    assert len(tested) == 100
    for each in TRAINING_SETS:
        assert not tested & set(each.folders.get('BSDS500', ()))


@pytest.mark.parametrize(('name', 'smallest'), [('t91_bsds200', 105), ('bsds400', 321), ('train400', 180)])
def test_the_real_images_are_found_and_large_enough(data_dir, name, smallest):
    """105 pixels: 52 of an x2 input, 35 of x3, 26 of x4, for patches and margins of configs/same_data."""
    known = find_training_set(name)
    folders = {path.name.lower(): path for path in (data_dir / 'train').iterdir()}
    pairs = training_set(known, folders)
    assert len(pairs) == known.images
    names = [pair.hr.name for pair in pairs]
    assert names == sorted(set(names))
    assert min(min(read_image(pair.hr.path).shape[:2]) for pair in pairs[::-1][:92]) == smallest


@pytest.fixture
def two_folders(tmp_path, monkeypatch):
    for folder, names in {'Cats': 'ab', 'Dogs': 'bcd'}.items():
        (tmp_path / 'data' / 'train' / folder).mkdir(parents=True)
        for name in names:
            path = tmp_path / 'data' / 'train' / folder / f'{folder[0].lower()}{name}.png'
            write_image(path, np.full((6, 8, 3), ord(name), np.uint8))
    known = TrainingSet('pets', {'Dogs': ('dc', 'db'), 'Cats': ('ca',)}, 'a set of pets')
    monkeypatch.setattr('nsr_jax.data.training_sets.TRAINING_SETS', (known,))
    return tmp_path / 'data'


def test_a_set_made_of_parts_of_folders(two_folders, tmp_path):
    source = open_source('Pets', 'train', 2, data_dir=two_folders, tfds_dir=tmp_path / 'records')
    assert (source.name, source.names) == ('pets', ('ca.png', 'db.png', 'dc.png'))
    assert [example.hr[0, 0, 0] for example in source] == [ord('a'), ord('b'), ord('c')]
    assert source[0].lr.shape == (3, 4, 3)
    with pytest.raises(UserError, match="pets: no split 'test'; there is train"):
        open_source('pets', 'test', 2, data_dir=two_folders, tfds_dir=tmp_path / 'records')


def test_missing_images_and_folders_are_named(two_folders, tmp_path):
    (two_folders / 'train' / 'Dogs' / 'db.png').unlink()
    with pytest.raises(UserError, match='pets: db missing in the folder Dogs; it is a set of pets'):
        open_source('pets', 'train', 1, data_dir=two_folders, tfds_dir=tmp_path)
    (two_folders / 'train' / 'Dogs').rename(two_folders / 'train' / 'Wolves')
    with pytest.raises(UserError, match='pets: no folder train/Dogs in data_dir'):
        open_source('pets', 'train', 1, data_dir=two_folders, tfds_dir=tmp_path)
    with pytest.raises(UserError, match='pets: no folder train/Dogs'):
        open_source('pets', 'train', 1, data_dir=None, tfds_dir=tmp_path)
