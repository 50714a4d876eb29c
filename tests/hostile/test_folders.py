"""Folders, zip files and prepared records from strangers, as sources of images and as inputs of restoring."""

import io
import os
import pathlib
import shutil
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsr_jax.data import layouts
from nsr_jax.data.builders import ImageFile
from nsr_jax.data.sources import open_source
from nsr_jax.data.store import Needs, build_store
from nsr_jax.errors import UserError
from nsr_jax.images import reading
from nsr_jax.images.writing import encode_png
from nsr_jax.restoring.plan import plan
from tests.catalogue import PreparedElsewhere, noise
from tests.hostile.changes import ODD_VALUES, changed, changes, examples, is_one_line, with_odd_value

PNG = encode_png(noise(0, 12, 16, 3))
GRAY = encode_png(noise(0, 12, 16, 1))
DIV2K = 'DIV2K_train_HR.zip'


def open_and_store(folder, tfds_dir):
    """The names of a folder's images, after all that training does with them before its first step."""
    source = open_source(folder, 'train', 2, tfds_dir=tfds_dir)
    build_store(source, Needs(scale=2, channels=3, smallest=2, has_inputs=True))
    return source.names


def folder_beside_an_image(tmp_path):
    """A folder with one honest image."""
    folder = tmp_path / 'images'
    folder.mkdir()
    (folder / 'honest.png').write_bytes(PNG)
    return folder


@pytest.mark.parametrize('kind', ['folder', 'link to nowhere', 'loop', 'device', 'pipe', 'loop of folders', 'hidden'])
def test_what_is_no_image_file_is_passed_over(tmp_path, kind):
    folder = folder_beside_an_image(tmp_path)
    other = folder / 'other.png'
    if kind == 'folder':
        other.mkdir()
    elif kind == 'pipe':
        os.mkfifo(other)
    elif kind == 'loop of folders':
        (folder / 'HR').symlink_to(folder / 'HR')
        (folder / 'again').symlink_to(folder)
    elif kind == 'hidden':
        (folder / '.other.png').write_bytes(b'x')
    else:
        other.symlink_to({'link to nowhere': '/nowhere/x', 'loop': other, 'device': '/dev/zero'}[kind])
    assert open_and_store(folder, tmp_path / 'tfds') == ('honest.png',)


@pytest.mark.parametrize(
    ('name', 'data', 'message'),
    [
        (b'empty.png', b'', r'empty\.png: an empty file'),
        (b'text.png', b'text', r'text\.png: not a PNG, JPEG, TIFF, WebP or BMP image'),
        (b'cut.png', PNG[:60], r'cut\.png: broken, truncated'),
        (b'gray.png', GRAY, r'gray\.png has 1 channels, the network takes 3'),
        (b'small.png', encode_png(noise(0, 1, 9, 3)), r'small\.png: 9x1 pixels are too few for scale 2'),
        (b'line\nend.png', PNG, r"the name 'line\\nend\.png' has characters that are not text"),
        (b'\x1b[31mred.png', PNG, r"the name '\\x1b\[31mred\.png' has characters that are not text"),
        (b'latin\xff.png', PNG, r"the name 'latin\\udcff\.png' has characters that are not text"),
    ],
)
def test_what_cannot_be_taken_is_named_in_one_line(tmp_path, name, data, message):
    folder = folder_beside_an_image(tmp_path)
    pathlib.Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        open_and_store(folder, tmp_path / 'tfds')
    assert is_one_line(str(caught.value))


@pytest.mark.parametrize('name', ['x..png', 'x' * 250 + '.png', 'a b%s{}é☃\u202f.png', '-x.png', '~.png', 'a\\b.png'])
def test_odd_names_are_only_names(tmp_path, name):
    folder = folder_beside_an_image(tmp_path)
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        pytest.skip('this locale has no such names')
    (folder / name).write_bytes(PNG)
    assert set(open_and_store(folder, tmp_path / 'tfds')) == {'honest.png', name}
    assert {path.name for path in tmp_path.iterdir()} == {'images', 'tfds'}


def test_a_huge_sparse_file_is_not_read(tmp_path):
    folder = folder_beside_an_image(tmp_path)
    with open(folder / 'huge.png', 'wb') as file:
        file.write(PNG)
        file.truncate(2**42)
    with pytest.raises(UserError, match=r'huge\.png: a larger file than any image'):
        open_and_store(folder, tmp_path / 'tfds')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 'x' * 5000}, 'unknown source'),
        ({'name': '~nosuchuser/x'}, 'home directory'),
        ({'name': 'gs://bucket/x'}, 'gs://bucket/x is a URL; only files and folders of this machine'),
        ({'name': '\0'}, 'a character that no path can have'),
        ({'name': '/dev/null'}, '/dev/null: there is no such folder'),
        ({'tfds_dir': 's3://bucket/x'}, 'is a URL'),
        ({'tfds_dir': pathlib.Path('s3://bucket/x')}, 'is a URL'),
        ({'tfds_dir': 'a*'}, r"has '\*' in it, which libraries"),
        ({'tfds_dir': 'a[1]'}, r"has '\[' in it"),
        ({'tfds_dir': 'x\0'}, 'a character that no path can have'),
        ({'tfds_dir': '/proc/x'}, 'cannot be prepared'),
        ({'data_dir': '~nosuchuser/x'}, 'home directory'),
        ({'scale': float('nan')}, 'whole number'),
        ({'scale': float('inf')}, 'whole number'),
        ({'scale': None}, 'whole number'),
        ({'scale': '2'}, 'whole number'),
        ({'scale': 10**30}, 'too few'),
    ],
)
def test_odd_places_and_scales_are_refused(tmp_path, monkeypatch, options, message):
    folder = folder_beside_an_image(tmp_path)
    monkeypatch.chdir(tmp_path)
    asked = {'name': folder, 'split': 'train', 'scale': 2, 'tfds_dir': tmp_path / 'tfds'} | options
    with pytest.raises(UserError, match=message) as caught:
        open_source(asked.pop('name'), asked.pop('split'), asked.pop('scale'), **asked)
    assert len(str(caught.value).splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} <= {'images', 'tfds'}


# --- Zip files ---

MEMBERS = ('DIV2K_train_HR/0001.png', '../../up.png', '/absolute.png', 'a/../b.png', '..png', 'a\\b.png')


def zip_with(*names, compression=zipfile.ZIP_DEFLATED, data=PNG):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as archive:
        for name in names:
            archive.writestr(name, data)
    return buffer.getvalue()


def fuzz_zips(number):
    @examples(number)
    @given(st.sampled_from([0, 8, 12, 14]), changes, st.integers(0, 700))
    def test(tmp_path, compression, changes, tail):
        whole = zip_with(*MEMBERS, compression=compression)
        (tmp_path / DIV2K).write_bytes(whole[:-tail] + changed(whole[-tail:], changes))
        try:
            for pair in layouts.div2k('train', 1, [tmp_path]):
                assert '/' not in pair.hr.name
                pair.hr.read()
        except UserError as error:
            assert len(str(error).splitlines()) == 1

    return test


test_changed_zips_are_read_or_refused = fuzz_zips(150)
test_changed_zips_are_read_or_refused_long = pytest.mark.slow(fuzz_zips(20_000))


def test_names_in_zips_lead_nowhere(tmp_path):
    """They are looked up in the zip, and only their last part is a name; nothing is unpacked."""
    (tmp_path / 'DIV2K').mkdir()
    (tmp_path / 'DIV2K' / DIV2K).write_bytes(zip_with(*MEMBERS))
    source = open_source('div2k', 'train', 1, data_dir=tmp_path, tfds_dir=tmp_path / 'tfds')
    assert all('/' not in name for name in source.names)
    assert len(list(source)) == len(MEMBERS) - 1  # ..png is hidden
    assert {path.name for path in tmp_path.iterdir()} == {'DIV2K', 'tfds'}
    assert not (tmp_path.parent / 'up.png').exists()


def test_names_in_zips_that_are_no_text_are_refused(tmp_path):
    (tmp_path / DIV2K).write_bytes(zip_with('a\nb.png'))
    with pytest.raises(UserError, match=r"the name 'a\\nb\.png' has characters that are not text"):
        layouts.div2k('train', 1, [tmp_path])


def test_a_member_that_inflates_is_read_to_the_limit(tmp_path, monkeypatch):
    (tmp_path / 'a.zip').write_bytes(zip_with('a.png', data=PNG + bytes(2**27)))
    monkeypatch.setattr(reading, 'LARGEST_PIXELS', 1000)
    with pytest.raises(UserError, match=r'a\.zip:a\.png: a larger file than any image'):
        ImageFile(tmp_path / 'a.zip', 'a.png').read()


# --- Prepared records ---


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """A folder of records: the catalogue's, and those of a folder of decoding."""
    folder = tmp_path_factory.mktemp('prepared')
    PreparedElsewhere(data_dir=folder, file_format='array_record').download_and_prepare()
    (folder / 'images').mkdir()
    (folder / 'images' / 'a.png').write_bytes(PNG)
    open_source(folder / 'images', 'train', 2, tfds_dir=folder)
    return folder


def fuzz_records(number):
    @examples(number)
    @given(st.floats(0, 0.9999), st.sampled_from(['change', 'gone', 'folder', 'JSON']), changes, st.data())
    def test(tmp_path, prepared, place, kind, changes, data):
        folder = tmp_path / 'copy'
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(prepared, folder)
        files = sorted(path for path in folder.rglob('*') if path.is_file() and 'images' not in path.parts)
        path = files[int(place * len(files))]
        contents = path.read_bytes()
        if kind == 'JSON' and path.suffix == '.json':
            value = data.draw(st.sampled_from(ODD_VALUES))
            path.write_text(with_odd_value(contents, data.draw(st.floats(0, 1)), value))
        elif kind in ('change', 'JSON'):
            path.write_bytes(changed(contents, changes))
        else:
            path.unlink()
            if kind == 'folder':
                path.mkdir()
        for name in ('div2k/bicubic_x2', folder / 'images'):
            try:
                for example in open_source(name, 'train', 2, tfds_dir=folder):
                    assert example.hr.dtype == np.uint8
            except UserError as error:
                assert is_one_line(str(error))
        assert 'antigravity' not in sys.modules

    return test


test_changed_records_are_read_or_refused = fuzz_records(20)
test_changed_records_are_read_or_refused_long = pytest.mark.slow(fuzz_records(2000))


@pytest.mark.parametrize('written', ['"pythonClassName"', '"python_class_name"', '"python\\u0043lassName"'])
def test_records_choose_no_code(prepared, tmp_path, monkeypatch, written):
    """TFDS imports the modules that a dataset's features are said to be in."""
    folder = shutil.copytree(prepared, tmp_path / 'copy')
    (tmp_path / 'chosen_by_data.py').write_text(f'open({str(tmp_path / "sentinel")!r}, "w")')
    monkeypatch.syspath_prepend(tmp_path)
    features = folder / 'div2k' / 'bicubic_x2' / '2.0.0' / 'features.json'
    name = 'tensorflow_datasets.core.features.image_feature.Image'
    text = features.read_text().replace(name, 'chosen_by_data.Image', 1)
    features.write_text(text.replace('"pythonClassName"', written))
    with pytest.raises(UserError, match=r"refers to 'chosen_by_data\.Image', which is no feature of TFDS"):
        open_source('div2k/bicubic_x2', 'train', 2, tfds_dir=folder)
    assert not (tmp_path / 'sentinel').exists()


# --- What restoring writes ---


def test_nothing_is_planned_outside_of_the_output(tmp_path):
    folder = folder_beside_an_image(tmp_path)
    (folder / 'inner').mkdir()
    (folder / 'inner' / 'x..png').write_bytes(PNG)
    (folder / 'linked').symlink_to('/usr')
    output = tmp_path / 'output'
    inputs = [folder, f'{folder}/../images/*/*.png', f'{folder}/inner/../honest.png']
    for given_inputs in ([each] for each in inputs):
        for job in plan(given_inputs, output, recursive=True):
            assert output.resolve() in job.target.resolve().parents


def test_links_do_not_lead_out_of_the_output(tmp_path):
    folder = folder_beside_an_image(tmp_path)
    (folder / 'inner').mkdir()
    (folder / 'inner' / 'image.png').write_bytes(PNG)
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'output').mkdir()
    (tmp_path / 'output' / 'inner').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(UserError, match='leads out of it'):
        plan([folder], tmp_path / 'output', recursive=True)
