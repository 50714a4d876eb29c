"""DIV2K from zip files of the official names and inner folders."""

import zipfile

import numpy as np
import pytest

from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.images.writing import encode_png
from nsr_jax.ops.imresize import imresize


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write_zip(path, folder, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(f'{folder}/', '')
        archive.writestr(f'__MACOSX/{folder}/._0001.png', b'not an image')
        for name, image in images:
            archive.writestr(f'{folder}/{name}', encode_png(image))


@pytest.fixture
def div2k(tmp_path):
    """The official zip files' names and inner folders, with small images (training: two), and no zip file for x3."""
    for part, numbers in (('train', (1, 2)), ('valid', range(801, 901))):
        images = [(f'{number:04d}', noise(number, 13, 9, 3)) for number in numbers]
        zips = tmp_path / 'data' / 'DIV2K'
        write_zip(zips / f'DIV2K_{part}_HR.zip', f'DIV2K_{part}_HR', [(f'{n}.png', i) for n, i in images[::-1]])
        for scale in (2, 4):
            partners = [
                (f'{name}x{scale}.png', imresize(image[: 13 // scale * scale, : 9 // scale * scale], 1 / scale))
                for name, image in images
            ]
            name = f'DIV2K_{part}_LR_bicubic'
            write_zip(zips / f'{name}_X{scale}.zip', f'{name}/X{scale}', partners)
    return tmp_path / 'data'


@pytest.mark.parametrize('scale', [1, 2, 4])
def test_div2k_from_its_zip_files(div2k, tmp_path, scale):
    source = open_source('div2k', 'train', scale, data_dir=div2k, tfds_dir=tmp_path / 'tfds')
    assert source.names == ('0001.png', '0002.png')
    assert source.name == 'div2k'
    hr = noise(2, 13, 9, 3)[: 13 // scale * scale, : 9 // scale * scale]
    np.testing.assert_array_equal(source[1].hr, hr)
    if scale > 1:
        np.testing.assert_array_equal(source[1].lr, imresize(hr, 1 / scale))
    validation = open_source('div2k', None, scale, data_dir=div2k, tfds_dir=tmp_path / 'tfds')
    assert validation.names == tuple(f'{number:04d}.png' for number in range(801, 901))


def test_div2k_in_tfdss_manual_folder(div2k, tmp_path, monkeypatch):
    monkeypatch.delenv('NSR_DATA_DIR', raising=False)
    manual = tmp_path / 'tfds' / 'downloads' / 'manual'
    manual.parent.mkdir(parents=True)
    (div2k / 'DIV2K').rename(manual)
    assert len(open_source('div2k', 'train', 2, tfds_dir=tmp_path / 'tfds')) == 2
    (manual / 'DIV2K_train_HR.zip').unlink()
    assert len(open_source('div2k', 'validation', 2, tfds_dir=tmp_path / 'tfds')) == 100


def test_div2ks_missing_zip_files_are_listed(div2k, tmp_path):
    with pytest.raises(
        UserError, match=r'DIV2K_valid_HR\.zip and DIV2K_valid_LR_bicubic_X3\.zip in .*DIV2K or'
    ) as caught:
        open_source('div2k', 'validation', 3, data_dir=div2k, tfds_dir=tmp_path)
    assert 'https://data.vision.ee.ethz.ch/cvl/DIV2K/' in str(caught.value)
    assert str(tmp_path / 'downloads' / 'manual') in str(caught.value)
    with pytest.raises(UserError, match='div2k: no low-resolution images for scale 5'):
        open_source('div2k', 'train', 5, data_dir=div2k, tfds_dir=tmp_path)


def test_an_incomplete_validation_set_is_refused(div2k, tmp_path):
    images = [(f'{number:04d}.png', noise(number, 13, 9, 3)) for number in range(801, 901) if number != 850]
    write_zip(div2k / 'DIV2K' / 'DIV2K_valid_HR.zip', 'DIV2K_valid_HR', images)
    with pytest.raises(UserError, match=r'DIV2K_valid_HR\.zip: 99 images found, 100 needed .*missing: 0850; it comes'):
        open_source('div2k', 'validation', 1, data_dir=div2k, tfds_dir=tmp_path)


def test_div2ks_damaged_zip_files_are_named(div2k, tmp_path):
    partners = div2k / 'DIV2K' / 'DIV2K_train_LR_bicubic_X2.zip'
    write_zip(partners, 'DIV2K_train_LR_bicubic/X2', [('0001x2.png', noise(0, 6, 4, 3))])
    with pytest.raises(UserError, match=r'X2\.zip: 0002x2\.png is missing'):
        open_source('div2k', 'train', 2, data_dir=div2k, tfds_dir=tmp_path)
    write_zip(partners, 'DIV2K_train_LR_bicubic/X2', [(f'000{n}x2.png', noise(0, 6, 5, 3)) for n in (1, 2)])
    with pytest.raises(UserError, match=r'0001x2\.png: 5x6 pixels .*needs 4x6'):
        open_source('div2k', 'train', 2, data_dir=div2k, tfds_dir=tmp_path)
    write_zip(partners, 'DIV2K_train_LR_bicubic/X2', [])
    with pytest.raises(UserError, match=r'X2\.zip contains no PNG image'):
        open_source('div2k', 'train', 2, data_dir=div2k, tfds_dir=tmp_path)
    partners.write_bytes(b'half of a download')
    with pytest.raises(UserError, match=r'X2\.zip: cannot be read'):
        open_source('div2k', 'train', 2, data_dir=div2k, tfds_dir=tmp_path)
