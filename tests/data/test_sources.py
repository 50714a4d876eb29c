"""Sources by name: the real sets, folders that change, the catalogue, and every way to ask for the wrong thing."""

import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest
import skimage.data

from nsr_jax.data import builders
from nsr_jax.data.sources import Source, open_source
from nsr_jax.errors import UserError
from nsr_jax.images.reading import read_image
from nsr_jax.images.writing import encode_png, write_image, write_photo
from nsr_jax.ops.imresize import imresize
from tests.catalogue import PreparedElsewhere, noise


@pytest.fixture(scope='module')
def tfds_dir(tmp_path_factory):
    return tmp_path_factory.mktemp('tfds')


@pytest.fixture
def no_environment(monkeypatch):
    monkeypatch.delenv('NSR_DATA_DIR', raising=False)
    monkeypatch.delenv('TFDS_DATA_DIR', raising=False)


def check_sizes(source, scale):
    for example in source:
        if scale == 1:
            assert example.lr is None
        else:
            height, width, channels = example.lr.shape
            assert example.hr.shape == (scale * height, scale * width, channels)
            assert example.lr.dtype == np.uint8
        assert example.hr.dtype == np.uint8


def test_a_training_set_by_name(tfds_dir, tmp_path, no_environment):
    images = {name: noise(index, 8, 6, 3) for index, name in enumerate(('a', 'b'))}
    for name, image in images.items():
        (tmp_path / 'train' / 'Cats').mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / 'train' / 'Cats' / f'{name}.png', image)
    source = open_source('cats', 'train', 1, data_dir=tmp_path, tfds_dir=tfds_dir)
    assert source.name == 'Cats'
    for example, image in zip(source, images.values(), strict=True):
        np.testing.assert_array_equal(example.hr, image)
    with pytest.raises(UserError, match=r"unknown source 'dogs'.*a training set \(Cats\)"):
        open_source('dogs', 'train', 1, data_dir=tmp_path, tfds_dir=tfds_dir)


@pytest.mark.parametrize(('split', 'count'), [('train', 7), ('held_out', 2)])
def test_photos(tfds_dir, split, count):
    source = open_source('photos', split, 3, tfds_dir=tfds_dir)
    assert len(source) == count
    assert list(source.names) == sorted(source.names)
    assert source.name == 'photos'
    check_sizes(source, 3)


def test_photos_are_scikit_images_and_the_held_out_split_is_the_default(tfds_dir):
    source = open_source('photos', None, 2, tfds_dir=tfds_dir)
    assert source.names == ('chelsea.png', 'coffee.png')
    hr = skimage.data.chelsea()[:300, :450]
    np.testing.assert_array_equal(source[0].hr, hr)
    np.testing.assert_array_equal(source[0].lr, imresize(hr, 0.5))
    assert not set(source.names) & set(open_source('photos', 'train', 2, tfds_dir=tfds_dir).names)


@pytest.mark.parametrize(
    ('name', 'folder', 'scale', 'border', 'partners'),
    [
        ('set5', 'Set5', 2, 'clamp', 'LR_bicubic'),
        ('Set5', 'Set5', 3, 'mirror', 'LR_bicubic_newmatlab'),
        ('SET14', 'Set14', 4, 'clamp', 'LR_bicubic'),
    ],
)
def test_benchmarks_with_matlabs_partners(data_dir, tfds_dir, name, folder, scale, border, partners):
    source = open_source(name, 'test', scale, data_dir=data_dir, tfds_dir=tfds_dir, border=border)
    assert source.name == folder
    assert list(source.names) == sorted(path.name for path in (data_dir / 'test' / folder / 'HR').iterdir())
    check_sizes(source, scale)
    for example in source:
        reference = read_image(data_dir / 'test' / folder / 'HR' / example.name)
        height, width = example.hr.shape[:2]
        assert 0 <= reference.shape[0] - height < scale
        np.testing.assert_array_equal(example.hr, reference[:height, :width])
        partner = read_image(data_dir / 'test' / folder / partners / f'X{scale}' / example.name)
        np.testing.assert_array_equal(example.lr, partner)


def test_partners_that_a_benchmark_lacks_are_made(data_dir, tfds_dir):
    source = open_source('set12', 'test', 2, data_dir=data_dir, tfds_dir=tfds_dir, border='mirror')
    example = source[0]
    assert example.hr.shape[2] == 1
    np.testing.assert_array_equal(example.lr, imresize(example.hr, 0.5, border='mirror'))


def test_sets_for_denoising_have_gray_images_of_any_size_and_no_partners(data_dir, tfds_dir, monkeypatch):
    monkeypatch.setenv('NSR_DATA_DIR', str(data_dir))
    source = open_source('bsd68', '', 1, tfds_dir=tfds_dir)
    assert len(source) == 68
    assert source[0].lr is None
    assert sorted(source[0].hr.shape) == [1, 321, 481]


def test_a_training_folder_of_real_jpeg_files(data_dir, tfds_dir, tmp_path):
    originals = sorted((data_dir / 'train' / 'BSDS500').iterdir())[:5]
    for path in originals:
        shutil.copy(path, tmp_path)
    source = open_source(str(tmp_path), 'train', 2, tfds_dir=tfds_dir)
    assert source.names == tuple(path.name for path in originals)
    np.testing.assert_array_equal(source[4].hr, read_image(originals[4])[:320, :480])
    check_sizes(source, 2)


@pytest.fixture
def folder(tmp_path):
    for index in range(3):
        write_image(tmp_path / 'images' / f'{index}.png', noise(index, 9, 11, 3))
    return tmp_path / 'images'


def test_a_source_is_a_sequence_that_can_be_pickled(folder, tfds_dir):
    source = open_source(folder, 'train', 2, tfds_dir=tfds_dir)
    assert source.name == 'images'
    assert [example.name for example in source] == ['0.png', '1.png', '2.png'] == list(source.names)
    np.testing.assert_array_equal(source[-1].hr, noise(2, 9, 11, 3)[:8, :10])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[1].hr, source[1].hr)
    for index in (3, -4):
        with pytest.raises(IndexError, match=f'index {index} is out of range: images has 3 images'):
            source[index]


def test_a_changed_folder_is_never_served_stale(folder, tfds_dir):
    def hrs():
        return [example.hr for example in open_source(folder, 'train', 1, tfds_dir=tfds_dir)]

    assert len(hrs()) == 3
    write_image(folder / '3.png', noise(3, 9, 11, 3))
    assert len(hrs()) == 4
    # Another image under an old name, of the same size in bytes and the same time.
    old = (folder / '0.png').stat()
    data = (folder / '0.png').read_bytes()
    changed = encode_png(noise(4, 9, 11, 3)).ljust(len(data), b'\0')
    assert len(changed) == len(data)
    (folder / '0.png').write_bytes(changed)
    os.utime(folder / '0.png', ns=(old.st_atime_ns, old.st_mtime_ns))
    np.testing.assert_array_equal(hrs()[0], noise(4, 9, 11, 3))
    (folder / '1.png').rename(folder / '9.png')
    np.testing.assert_array_equal(hrs()[-1], noise(1, 9, 11, 3))
    (folder / '9.png').unlink()
    assert len(hrs()) == 3


def same_outside(folder, seed):
    """Fill a folder with images that another seed changes, but not their names, sizes and times."""
    for index in range(2):
        write_image(folder / f'{index}.png', noise(seed + index, 12, 12, 3))
        path = folder / f'{index}.png'
        path.write_bytes(path.read_bytes().ljust(1000, b'\0'))
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


@pytest.mark.parametrize('settled', [False, True])
@pytest.mark.parametrize('layout', ['images', 'HR', 'LR'])
def test_folders_of_the_same_names_sizes_and_times_keep_their_own_images(tmp_path, monkeypatch, layout, settled):
    if settled:
        now = time.time_ns
        monkeypatch.setattr(time, 'time_ns', lambda: now() + 10**10)
    opened = []
    for seed in (0, 10):
        folder = tmp_path / str(seed) / 'Own'
        if layout == 'images':
            same_outside(folder, seed)
        else:
            same_outside(folder / 'HR', seed if layout == 'HR' else 99)
        if layout == 'LR':
            for path in same_outside(folder / 'LR_bicubic' / 'X2', seed).iterdir():
                write_image(path, noise(seed + int(path.stem), 6, 6, 3))
                path.write_bytes(path.read_bytes().ljust(500, b'\0'))
                os.utime(path, (1_700_000_000, 1_700_000_000))
        opened.append(open_source(folder, None, 2, tfds_dir=tmp_path / 'tfds'))
        for index, example in enumerate(opened[-1]):
            if layout == 'LR':
                np.testing.assert_array_equal(example.lr, noise(seed + index, 6, 6, 3))
            else:
                np.testing.assert_array_equal(example.hr, noise(seed + index, 12, 12, 3))
    assert opened[0].fingerprint != opened[1].fingerprint
    copied = shutil.copytree(tmp_path / '0' / 'Own', tmp_path / 'copy' / 'Own')
    assert open_source(copied, None, 2, tfds_dir=tmp_path / 'other').fingerprint == opened[0].fingerprint


def test_a_corrupted_image_is_named(folder, tfds_dir):
    (folder / '1.png').write_bytes((folder / '1.png').read_bytes()[:60])
    with pytest.raises(UserError, match=r'images/1\.png: broken, truncated') as caught:
        open_source(folder, 'train', 2, tfds_dir=tfds_dir)
    assert '\n' not in str(caught.value)


def test_a_record_without_an_image_is_named():
    records = [{'hr': None}]  # as damaged files of records are read
    source = Source('photos', ['a.png'], records, 1, has_inputs=False, fingerprint='')
    for read in (lambda: source[0], lambda: source.hr_shape(0)):
        with pytest.raises(UserError, match=r'^a\.png: an empty file'):
            read()


def test_an_image_of_another_mode_is_named(folder, tfds_dir):
    PIL.Image.new('CMYK', (8, 8)).save(folder / '1.png', 'JPEG')
    with pytest.raises(
        UserError, match=r'images/1\.png: an image of 4 channels of type uchar, cmyk; accepted are gray'
    ):
        open_source(folder, 'train', 2, tfds_dir=tfds_dir)


@pytest.mark.parametrize('suffix', ['', 'x2'])
def test_a_folder_in_the_layout_of_a_benchmark_may_be_anywhere(tmp_path, tfds_dir, suffix):
    hr, lr = noise(0, 9, 11, 3), noise(1, 4, 5, 3)
    write_image(tmp_path / 'Own' / 'HR' / 'a.png', hr)
    write_image(tmp_path / 'Own' / 'LR_bicubic' / 'X2' / f'a{suffix}.png', lr)
    (example,) = open_source(tmp_path / 'Own', 'train', 2, tfds_dir=tfds_dir)
    np.testing.assert_array_equal(example.hr, hr[:8, :10])
    np.testing.assert_array_equal(example.lr, lr)
    write_image(tmp_path / 'Own' / 'HR' / 'b.png', hr)
    with pytest.raises(UserError, match=r'X2/b\.png is missing: the low-resolution partner of .*HR/b\.png'):
        open_source(tmp_path / 'Own', 'train', 2, tfds_dir=tfds_dir)
    write_image(tmp_path / 'Own' / 'LR_bicubic' / 'X2' / 'b.png', hr)
    with pytest.raises(UserError, match=r'X2/b\.png: 11x9 pixels .*HR/b\.png .*needs 5x4'):
        open_source(tmp_path / 'Own', 'train', 2, tfds_dir=tfds_dir)


def test_b100_and_bsd100_are_one_set(tmp_path, tfds_dir):
    for index in range(100):
        write_image(tmp_path / 'test' / 'B100' / 'HR' / f'{index}.png', noise(index, 4, 4, 3))
    assert open_source('bsd100', None, 1, data_dir=tmp_path, tfds_dir=tfds_dir).name == 'B100'


@pytest.fixture
def catalogue(tmp_path):
    PreparedElsewhere(data_dir=tmp_path, file_format='array_record').download_and_prepare()
    return tmp_path


def test_the_catalogues_div2k(catalogue):
    # Neither a higher version that was not prepared nor an interrupted preparation is taken for it.
    (catalogue / 'div2k' / 'bicubic_x2' / '10.0.0').mkdir()
    interrupted = catalogue / 'div2k' / 'bicubic_x2' / 'incomplete.A1B2C3_3.0.0'
    interrupted.mkdir()
    (interrupted / 'dataset_info.json').touch()
    source = open_source('div2k/bicubic_x2', 'train', 2, tfds_dir=catalogue)
    assert source.names == ('train_0000', 'train_0001', 'train_0002')
    np.testing.assert_array_equal(source[2].hr, noise(2, 9, 8, 3)[:8])
    np.testing.assert_array_equal(source[2].lr, imresize(source[2].hr, 0.5))
    assert open_source('div2k/bicubic_x2', None, 1, tfds_dir=catalogue).names == ('validation_0000', 'validation_0001')


def test_the_catalogues_fingerprint_is_of_what_its_records_hold(catalogue, tmp_path):
    def fingerprint(split='train'):
        return open_source('div2k/bicubic_x2', split, 2, tfds_dir=catalogue).fingerprint

    first = fingerprint()
    assert first == fingerprint() != fingerprint('validation')
    (path,) = catalogue.glob('div2k/bicubic_x2/2.0.0/*train*')
    status, contents = path.stat(), bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint() != first


def test_the_catalogue_in_another_format_scale_or_place_is_refused(catalogue):
    with pytest.raises(UserError, match='div2k/bicubic_x2: its images are for scale 2, not 4'):
        open_source('div2k/bicubic_x2', 'train', 4, tfds_dir=catalogue)
    with pytest.raises(UserError, match=r'div2k/bicubic_x4: no prepared dataset there.*array_record'):
        open_source('div2k/bicubic_x4', 'train', 4, tfds_dir=catalogue)
    info = catalogue / 'div2k' / 'bicubic_x2' / '2.0.0' / 'dataset_info.json'
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))
    with pytest.raises(UserError, match=r'2\.0\.0: prepared as tfrecord; it must be array_record'):
        open_source('div2k/bicubic_x2', 'train', 2, tfds_dir=catalogue)


def test_the_catalogues_missing_split_is_named(catalogue):
    info = catalogue / 'div2k' / 'bicubic_x2' / '2.0.0' / 'dataset_info.json'
    info.write_text(info.read_text().replace('"validation"', '"valid"'))
    with pytest.raises(UserError, match=r"no split 'validation'; it has train, valid"):
        open_source('div2k/bicubic_x2', 'validation', 2, tfds_dir=catalogue)


def test_tfds_dir_may_come_from_the_environment(folder, tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'elsewhere'))
    open_source(folder, 'train', 1, tfds_dir='')
    assert (tmp_path / 'elsewhere' / 'nsr_image_pairs').is_dir()


def test_unknown_names_tell_what_is_accepted(data_dir, tfds_dir, no_environment):
    with pytest.raises(UserError, match=r"unknown source 'sett5'; accepted are photos, div2k, .*Set14, Set5.*folder"):
        open_source('sett5', 'test', 2, data_dir=data_dir, tfds_dir=tfds_dir)
    with pytest.raises(UserError, match=r"unknown source 'set5'.*neither data_dir nor \$NSR_DATA_DIR"):
        open_source('set5', 'test', 2, tfds_dir=tfds_dir)
    with pytest.raises(UserError, match="unknown source ''"):
        open_source('', 'test', 2, tfds_dir=tfds_dir)


@pytest.mark.parametrize(
    ('name', 'split', 'message'),
    [
        ('photos', 'test', "photos: no split 'test'; there is train, held_out"),
        ('div2k', 'valid', "div2k: no split 'valid'; there is train, validation"),
        ('div2k/bicubic_x2', 'test', "no split 'test'; there is train, validation"),
        ('set5', 'train', "set5: no split 'train'; there is test"),
    ],
)
def test_unknown_splits_tell_what_there_is(data_dir, tfds_dir, name, split, message):
    with pytest.raises(UserError, match=message):
        open_source(name, split, 2, data_dir=data_dir, tfds_dir=tfds_dir)


def test_scales_borders_and_empty_folders_are_refused(folder, tfds_dir, tmp_path):
    for scale in (0, -2, 1.5):
        with pytest.raises(UserError, match=f'scale must be a whole number from 1, got {scale}'):
            open_source(folder, 'train', scale, tfds_dir=tfds_dir)
    with pytest.raises(UserError, match="border must be one of clamp, mirror, got 'reflect'"):
        open_source(folder, 'train', 2, tfds_dir=tfds_dir, border='reflect')
    with pytest.raises(UserError, match=r'0\.png: 11x9 pixels are too few for scale 10'):
        open_source(folder, 'train', 10, tfds_dir=tfds_dir)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='empty: no image in this folder'):
        open_source(tmp_path / 'empty', 'train', 2, tfds_dir=tfds_dir)


def test_tensorflow_and_torch_are_never_imported(folder, tmp_path):
    """Packages of these names that fail when imported stand before any installed ones."""
    for name in ('tensorflow', 'torch'):
        (tmp_path / 'traps' / name).mkdir(parents=True)
        (tmp_path / 'traps' / name / '__init__.py').write_text(f'raise SystemExit("{name} was imported")')
    program = (
        'import sys\n'
        'from nsr_jax.data.sources import open_source\n'
        f'source = open_source({str(folder)!r}, "train", 2, tfds_dir={str(tmp_path / "tfds")!r})\n'
        'assert [example.lr.shape for example in source] == [(4, 5, 3)] * 3\n'
        'assert not {"tensorflow", "torch"} & set(sys.modules)\n'
    )
    paths = os.pathsep.join([str(tmp_path / 'traps'), str(pathlib.Path.cwd())])
    subprocess.run([sys.executable, '-c', program], check=True, env=os.environ | {'PYTHONPATH': paths})


def test_a_folder_of_any_photographs_is_read_with_its_subfolders(tmp_path, tfds_dir, monkeypatch):
    """Against pixels that are converted here."""
    rgb, gray = noise(0, 6, 8, 3), noise(1, 6, 8, 1)
    deep = noise(2, 6, 8, 3).astype(np.uint16) * 257
    alpha = np.full((6, 8, 1), 128, np.uint8)
    images = {'b.png': rgb, 'a/b.tif': deep, 'a/c/d.webp': gray, 'z.png': np.concatenate([rgb, alpha], axis=2)}
    for name, image in images.items():
        (tmp_path / 'folder' / name).parent.mkdir(parents=True, exist_ok=True)
        height, width, channels = image.shape
        form = {'.tif': 'TIFF', '.webp': 'WEBP', '.png': 'PNG'}[pathlib.Path(name).suffix]
        about = {'height': height, 'width': width, 'channels': channels, 'dtype': image.dtype, 'format': form}
        write_photo(tmp_path / 'folder' / name, [image], **about)
    for hidden in ('.hidden.png', '.trash/a.png'):
        (tmp_path / 'folder' / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / 'folder' / hidden).write_text('')
    said = []
    monkeypatch.setattr(builders.logging, 'info', lambda text, *values: said.append(text % values))
    source = open_source(tmp_path / 'folder', 'train', 1, tfds_dir=tfds_dir)
    assert source.names == ('a/b.tif', 'a/c/d.webp', 'b.png', 'z.png')
    found = {example.name: example.hr for example in source}
    np.testing.assert_array_equal(found['b.png'], rgb)
    np.testing.assert_array_equal(found['a/b.tif'], deep // 257)
    assert found['a/c/d.webp'].shape[:2] == (6, 8)
    np.testing.assert_array_equal(found['a/c/d.webp'][..., :1], gray)
    np.testing.assert_array_equal(found['z.png'], np.rint(rgb * (128 / 255)))
    assert '3 of the images are converted to 8-bit gray or RGB: a/b.tif, a/c/d.webp, z.png' in said


def test_a_known_name_is_refused_too_where_the_folders_here_cannot_be_listed(tmp_path, tfds_dir, monkeypatch):
    list_folder = os.listdir
    (tmp_path / 'photos').mkdir()
    monkeypatch.chdir(tmp_path)

    def refuse(path='.'):
        if path == '.':
            raise PermissionError(13, 'Permission denied', path)
        return list_folder(path)

    monkeypatch.setattr(os, 'listdir', refuse)
    with pytest.raises(UserError, match=r'^photos is a folder here and also the name of a known set'):
        open_source('photos', None, 1, tfds_dir=tfds_dir)


@pytest.mark.parametrize('name', ['photos', 'div2k', 'set5', 'bsds400', 'cats'])
def test_a_name_that_a_folder_here_has_too_is_refused(name, tmp_path, tfds_dir, monkeypatch):
    write_image(tmp_path / 'data' / 'train' / 'Cats' / 'a.png', noise(0, 8, 6, 3))
    write_image(tmp_path / 'here' / name / 'b.png', noise(1, 8, 6, 3))
    monkeypatch.chdir(tmp_path / 'here')
    options = {'data_dir': tmp_path / 'data', 'tfds_dir': tfds_dir}
    message = (
        f'^{name} is a folder here and also the name of a known set: write ./{name} for the folder, {name.upper()} '
    )
    with pytest.raises(UserError, match=message):
        open_source(name, None, 1, **options)
    for spelling in (f'{name}/', f'./{name}'):
        assert open_source(spelling, None, 1, **options).names == ('b.png',)
    if name == 'photos':
        assert open_source('PHOTOS', None, 1, **options).names == ('chelsea.png', 'coffee.png')
    if name == 'cats':
        assert open_source('CATS', None, 1, **options).names == ('a.png',)
        monkeypatch.chdir(tmp_path / 'data' / 'train')
        assert open_source('Cats', None, 1, **options).names == ('a.png',)  # the same folder


def test_a_path_that_is_not_there_is_called_so(tfds_dir):
    with pytest.raises(UserError, match=r'^/no/such/folder: there is no such folder$'):
        open_source('/no/such/folder', None, 1, tfds_dir=tfds_dir)
