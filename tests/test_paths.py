"""What a path means: the home directory, URLs, characters of patterns."""

import pathlib
import sys

import ml_collections
import numpy as np
import pytest

import nsr_jax
from nsr_jax.atomic_files import make_output_folder
from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.images.writing import write_image
from nsr_jax.paths import check_for_libraries, local_path
from nsr_jax.trained import load_model
from nsr_jax.training.training_images import find_store_folder


def test_a_home_directory_is_expanded_once(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert local_path('~', '--x') == str(tmp_path)
    assert local_path('~/runs/x2', '--x') == f'{tmp_path}/runs/x2'
    assert local_path(pathlib.Path('~/runs'), '--x') == f'{tmp_path}/runs'
    # What is named by its folder is meant as it stands, also when the answer is asked for again.
    for path in ('./~', './~/x', 'x~', 'a b', 'a:b', './-', 'a/../b', '\udcff'):
        assert local_path(local_path(path, '--x'), '--x') == path


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('', '--x is empty'),
        (3, '--x: 3 is not a path'),
        ('~nosuchuser/x', r'--x: ~nosuchuser/x does not begin with a known home directory; \./~nosuchuser/x'),
        ('a\0b', r'--x: a\\x00b contains a character that no path can have'),
        *(
            (url, f'--x: {url} is a URL; .* mount the bucket as a folder, or copy what is there$')
            for url in ('gs://a/b', 's3://a', 'hdfs://a/b', 'file:///a', 'http://a/b.png')
        ),
        (pathlib.Path('gs://a/b'), '--x: gs:/a/b is a URL'),
    ],
)
def test_what_is_no_path_of_this_machine_is_refused(path, message):
    with pytest.raises(UserError, match=message):
        local_path(path, '--x')


BUCKET = 'gs://bucket/x2'


@pytest.mark.parametrize(
    'use',
    [
        lambda: open_source(BUCKET, 'train', 2),
        lambda: open_source('photos', 'train', 2, tfds_dir=BUCKET),
        lambda: open_source('set5', 'test', 2, data_dir=BUCKET),
        lambda: find_store_folder(ml_collections.ConfigDict({'data': {'store_dir': BUCKET, 'tfds_dir': ''}})),
        lambda: load_model(BUCKET),
        lambda: nsr_jax.Restorer.load(BUCKET),
    ],
    ids=['source', 'tfds_dir', 'data_dir', 'store_dir', 'checkpoint', 'model'],
)
def test_every_place_refuses_a_bucket(use):
    with pytest.raises(UserError, match=f'{BUCKET} is a URL; .*: mount the bucket as a folder, or copy'):
        use()


ROOT = pathlib.Path(__file__).parents[1]
TRAIN, EVAL, CONFIG = str(ROOT / 'train.py'), str(ROOT / 'eval.py'), '--config=sr'


@pytest.mark.parametrize(
    ('command', 'flag'),
    [
        ([TRAIN, CONFIG], '--workdir'),
        ([TRAIN, CONFIG, '--compile_for=v5e:2x2'], '--compile_report'),
        ([EVAL, CONFIG, '--baselines=bicubic'], '--output'),
        (['nsr_jax.sweep', 'gates'], '--workdir'),
        (['nsr_jax.sweep', 'search_rate', '--search=random', '--trials=2'], '--workdir'),
        (['nsr_jax.score', 'here', 'here', '--protocol=denoise'], '--output'),
        (['nsr_jax.restore', 'here/a.png', '--task=denoise'], '--output'),
        (['nsr_jax.export', '--checkpoint=sr_x2'], '--output'),
        (['nsr_jax.hub_folder', '--name=sr_x2'], '--output'),
        (['nsr_jax.import_torch', ROOT / 'tests/reference/wdsr_x2.pth', CONFIG], '--output'),
    ],
    ids=lambda value: pathlib.Path(value[0]).name if isinstance(value, list) else value,
)
def test_every_command_refuses_to_write_into_a_bucket(commands, tmp_path, command, flag):
    (tmp_path / 'here').mkdir()
    write_image(tmp_path / 'here' / 'a.png', np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    code, error, output = commands(*command, f'{flag}={BUCKET}', folder=tmp_path)
    (line,) = [each for each in error.splitlines() if 'compiled programs are kept' not in each]
    assert line == (
        f'error: {flag}: {BUCKET} is a URL; only files and folders of this machine are read and written: mount the '
        'bucket as a folder, or copy what is there'
    )
    assert (code, output) == (2, b'')
    assert sorted(path.name for path in tmp_path.rglob('*')) == ['a.png', 'here']


@pytest.mark.parametrize('name', ['a[1]', 'a[', 'b]', 'a*', 'a?', 'a\\b', 'a\udcff'])
def test_a_path_that_libraries_would_misread_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / name)
    for path in (tmp_path / name, tmp_path / name / 'below', tmp_path / 'link'):
        with pytest.raises(UserError, match=r'^--x: .* in it, which libraries'):
            check_for_libraries(path, '--x')
    letter = 'ä' if sys.getfilesystemencoding() == 'utf-8' else 'a'
    check_for_libraries(tmp_path / f'a b{{}}%$#@!{letter}~', '--x')


def test_a_folder_whose_name_begins_with_a_tilde_is_made_where_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.chdir(tmp_path)
    make_output_folder(local_path('./~/x', '--x'))
    assert [path.name for path in tmp_path.iterdir()] == ['~']
