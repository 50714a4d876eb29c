"""Preparing records: order, atomicity, races and quietness."""

import dataclasses
import hashlib
import multiprocessing
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import logging

from nsr_jax.data import builders
from nsr_jax.errors import UserError
from nsr_jax.images.reading import decode_image
from nsr_jax.images.writing import write_image
from nsr_jax.ops.imresize import imresize


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def image_files(folder, count, shape=(6, 8, 3)):
    paths = [folder / f'{index:03d}.png' for index in range(count)]
    for index, path in enumerate(paths):
        write_image(path, noise(index, *shape))
    return [builders.ImageFile(path) for path in paths]


def config_of(files, scale=2, partners=None):
    partners = partners or [None] * len(files)
    pairs = [builders.ImagePair(hr, lr) for hr, lr in zip(files, partners, strict=True)]
    return builders.image_pairs_config('a set', 'test', pairs, scale, has_inputs=scale > 1)


def entries(folder):
    return [path for path in folder.rglob('*') if path.is_file()]


def test_records_keep_bytes_and_order_over_several_shards(tmp_path):
    files = image_files(tmp_path / 'images', 120)
    config = config_of(files)
    records = builders.open_records(config, tmp_path / 'tfds')
    assert len(list((tmp_path / 'tfds').rglob('*.array_record*'))) == 3
    assert [records[index]['name'].decode() for index in range(120)] == [file.name for file in files]
    for index in (0, 49, 50, 119):
        assert records[index]['hr'] == files[index].path.read_bytes()
        np.testing.assert_array_equal(decode_image(records[index]['lr'], 'lr'), imresize(noise(index, 6, 8, 3), 0.5))


def test_tfds_itself_reads_the_records_decoded(tmp_path):
    files = image_files(tmp_path / 'images', 2)
    builders.open_records(config_of(files), tmp_path / 'tfds')
    (info,) = (tmp_path / 'tfds').rglob('dataset_info.json')
    example = tfds.builder_from_directory(info.parent).as_data_source('test')[1]
    np.testing.assert_array_equal(example['hr'], noise(1, 6, 8, 3))
    assert example['lr'].shape == (3, 4, 3)


def test_a_second_opening_writes_nothing(tmp_path):
    files = image_files(tmp_path / 'images', 2)
    builders.open_records(config_of(files), tmp_path / 'tfds')
    before = {path: path.stat().st_mtime_ns for path in entries(tmp_path / 'tfds')}
    builders.open_records(config_of(files), tmp_path / 'tfds')
    assert {path: path.stat().st_mtime_ns for path in entries(tmp_path / 'tfds')} == before


def test_scale_one_has_no_partners(tmp_path):
    files = image_files(tmp_path / 'images', 2, (5, 7, 1))
    records = builders.open_records(config_of(files, scale=1), tmp_path / 'tfds')
    assert set(records[0]) == {'name', 'hr'}


def test_an_error_half_way_leaves_nothing_and_the_next_try_is_complete(tmp_path, monkeypatch):
    config = config_of(image_files(tmp_path / 'images', 60))
    decode = builders.decode_image

    def decode_unless_broken(data, name):
        if name.endswith('055.png'):
            raise UserError(f'{name}: broken')
        return decode(data, name)

    monkeypatch.setattr(builders, 'decode_image', decode_unless_broken)
    with pytest.raises(UserError, match=r'055\.png: broken'):
        builders.open_records(config, tmp_path / 'tfds')
    assert entries(tmp_path / 'tfds') == []
    monkeypatch.undo()
    records = builders.open_records(config, tmp_path / 'tfds')
    assert len(records) == 60
    assert records[59]['hr'] == config.pairs[59].hr.read()


def test_a_process_killed_half_way_leaves_nothing_that_is_read(tmp_path):
    files = image_files(tmp_path / 'images', 60)
    program = f"""
import os, pathlib
from nsr_jax.data import builders
files = [builders.ImageFile(pathlib.Path(path)) for path in {[str(file.path) for file in files]!r}]
decode = builders.decode_image
def decode_or_die(data, name):
    if name.endswith('055.png'):
        os._exit(9)
    return decode(data, name)
builders.decode_image = decode_or_die
config = builders.image_pairs_config('a set', 'test', [builders.ImagePair(file) for file in files], 2, has_inputs=True)
builders.open_records(config, {str(tmp_path / 'tfds')!r})
"""
    assert subprocess.run([sys.executable, '-c', program], check=False).returncode == 9
    assert entries(tmp_path / 'tfds'), 'the process was to die in the middle of its writing'
    # The next preparation, of whatever, removes all of it.
    builders.open_records(config_of(files[:1]), tmp_path / 'tfds')
    (folder,) = (tmp_path / 'tfds' / 'nsr_image_pairs').iterdir()
    assert folder.name == config_of(files[:1]).name
    records = builders.open_records(config_of(files), tmp_path / 'tfds')
    assert [records[index]['name'].decode() for index in range(60)] == [file.name for file in files]


def _prepare(barrier, paths, tfds_dir, answers):
    config = config_of([builders.ImageFile(pathlib.Path(path)) for path in paths])
    barrier.wait()
    answers.put(len(builders.open_records(config, tfds_dir)))


def test_several_processes_may_prepare_the_same(tmp_path):
    paths = [str(file.path) for file in image_files(tmp_path / 'images', 30, (64, 64, 3))]
    context = multiprocessing.get_context('spawn')
    barrier, answers = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_prepare, args=(barrier, paths, str(tmp_path / 'tfds'), answers)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [answers.get(timeout=300) for _ in processes] == [30, 30]


def overtake(monkeypatch, file, work):
    """Let another one do its work at the moment when this file is read."""
    read = builders.ImageFile.read

    def overtaken(self):
        if self == file:
            monkeypatch.undo()
            work()
        return read(self)

    monkeypatch.setattr(builders.ImageFile, 'read', overtaken)


def test_the_loser_of_a_race_reads_what_the_winner_wrote(tmp_path, monkeypatch):
    """The same with the moment chosen: the other one finishes while we write."""
    files = image_files(tmp_path / 'images', 3)
    config = config_of(files)
    overtake(monkeypatch, files[-1], lambda: builders.open_records(config, tmp_path / 'tfds'))
    assert len(builders.open_records(config, tmp_path / 'tfds')) == 3
    assert [path.name for path in (tmp_path / 'tfds' / 'nsr_image_pairs').iterdir()] == [config.name]


def test_what_another_process_prepares_is_left_alone(tmp_path, monkeypatch):
    files = image_files(tmp_path / 'images', 3)
    overtake(monkeypatch, files[-1], lambda: builders.open_records(config_of(files[:1]), tmp_path / 'tfds'))
    assert len(builders.open_records(config_of(files), tmp_path / 'tfds')) == 3


def test_nothing_is_left_among_the_systems_temporary_files(tmp_path, monkeypatch):
    (tmp_path / 'temporary').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
    builders.open_records(config_of(image_files(tmp_path / 'images', 2)), tmp_path / 'tfds')
    assert entries(tmp_path / 'tfds')
    assert list((tmp_path / 'temporary').iterdir()) == []


def test_files_that_change_while_they_are_prepared_are_refused(tmp_path, monkeypatch):
    files = image_files(tmp_path / 'images', 3)
    config = config_of(files)
    overtake(monkeypatch, files[1], lambda: write_image(files[1].path, noise(9, 6, 8, 3)))
    with pytest.raises(UserError, match='images: files change while they are read'):
        builders.open_records(config, tmp_path / 'tfds')
    assert entries(tmp_path / 'tfds') == []


def test_a_full_disk_is_told_in_one_line(tmp_path):
    """The size of a file is limited as a full disk limits it."""
    config = config_of(image_files(tmp_path / 'images', 3, (64, 64, 3)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(UserError, match=r'cannot be prepared: .*File too large') as caught:
            builders.open_records(config, tmp_path / 'tfds')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert '\n' not in str(caught.value)
    assert entries(tmp_path / 'tfds') == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    files = image_files(tmp_path / 'images', 1)
    (tmp_path / 'tfds').write_text('a file, not a folder')
    with pytest.raises(UserError, match=r'tfds.*cannot be prepared'):
        builders.open_records(config_of(files), tmp_path / 'tfds')


def test_a_partner_of_another_size_is_named_with_both_sizes(tmp_path):
    files = image_files(tmp_path / 'images', 1)
    write_image(tmp_path / 'lr' / '000.png', noise(0, 3, 5, 3))
    partners = [builders.ImageFile(tmp_path / 'lr' / '000.png')]
    expected = r'lr/000\.png: 5x3 pixels of 3 channels, but scale 2 of .*images/000\.png \(8x6 .*\) needs 4x3 pixels'
    with pytest.raises(UserError, match=expected):
        builders.open_records(config_of(files, partners=partners), tmp_path / 'tfds')
    write_image(tmp_path / 'lr' / '000.png', noise(0, 3, 4, 1))
    with pytest.raises(UserError, match='4x3 pixels of 1 channel, but'):
        builders.open_records(config_of(files, partners=partners), tmp_path / 'tfds')


def test_names_tell_what_differs(tmp_path):
    files = image_files(tmp_path / 'images', 2)
    pairs = [builders.ImagePair(file) for file in files]
    configs = [
        config_of(files),
        config_of(files, scale=3),
        config_of(files[:1]),
        config_of(files[::-1]),
        config_of(files, partners=files),
        builders.image_pairs_config('a set', 'test', pairs, 2, has_inputs=True, border='mirror'),
        builders.image_pairs_config('a set', 'train', pairs, 2, has_inputs=True),
        builders.image_pairs_config('a-set', 'test', pairs, 2, has_inputs=True),
        builders.image_pairs_config('s' * 250, 'test', pairs, 2, has_inputs=True),
    ]
    files[1].path.write_bytes(files[0].path.read_bytes())
    configs.append(config_of(files))
    names = {config.name for config in configs}
    assert len(names) == len(configs)
    assert max(map(len, names)) < 120
    os.utime(files[1].path, ns=(1, 1))
    assert config_of(files).name == configs[-1].name  # for their time, files are not another set


def test_members_of_zip_files_are_known_by_what_they_hold(tmp_path):
    names = set()
    for colour in range(2):
        path = tmp_path / str(colour) / 'a.zip'
        path.parent.mkdir()
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr(zipfile.ZipInfo('a.png'), bytes([colour]) * 50)
        os.utime(path, (1_700_000_000, 1_700_000_000))
        names.add(config_of([builders.ImageFile(path, 'a.png')]).name)
    assert len(names) == 2


def test_a_file_larger_than_any_image_is_not_read_to_know_it(tmp_path):
    with (tmp_path / 'a.png').open('wb') as file:
        file.truncate(2**31)
    with pytest.raises(UserError, match=r'a\.png: a larger file than any image'):
        config_of([builders.ImageFile(tmp_path / 'a.png')])


def test_what_is_made_of_files_is_what_this_version_makes(tmp_path):
    """Where this fails because other pixels are made on purpose, raise builders._PIXELS_VERSION too."""
    image = np.arange(7 * 9 * 3, dtype=np.uint8).reshape(7, 9, 3) ** 2
    write_image(tmp_path / 'a.png', image)
    (record,) = builders.open_records(config_of([builders.ImageFile(tmp_path / 'a.png')]), tmp_path / 'tfds')
    lr = decode_image(record['lr'], 'lr')
    assert (builders._PIXELS_VERSION, hashlib.sha256(lr.tobytes()).hexdigest()[:8]) == (1, '5e9e325a')


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r'gone\.png: cannot be read'):
        config_of([builders.ImageFile(tmp_path / 'gone.png')])
    with pytest.raises(UserError, match=r'gone\.zip:a\.png: cannot be read'):
        builders.ImageFile(tmp_path / 'gone.zip', 'a.png').read()


def test_one_line_tells_what_is_prepared_and_standard_output_stays_empty(tmp_path, capfd, caplog):
    config = config_of(image_files(tmp_path / 'images', 2))
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.INFO)
    try:
        builders.open_records(config, tmp_path / 'tfds')
        builders.open_records(config, tmp_path / 'tfds')
        assert logging.get_verbosity() == logging.INFO
    finally:
        logging.set_verbosity(verbosity)
    assert capfd.readouterr().out == ''
    (line,) = caplog.messages
    assert line.startswith('Preparing 2 images')
    assert str(tmp_path / 'tfds') in line


def test_all_images_that_cannot_be_used_are_listed(tmp_path):
    """All failures are told, over the ends of shards and of any kind, and nothing is prepared."""
    files = image_files(tmp_path / 'images', 120)
    files[3].path.write_bytes(b'text')
    files[60].path.write_bytes(files[60].path.read_bytes()[:60])
    write_image(files[119].path, noise(0, 2, 9, 3))

    def check(shape, name):
        if min(shape[:2]) < 4:
            raise UserError(f'{name} is too small')

    config = dataclasses.replace(config_of(files), check=check)
    with pytest.raises(UserError) as caught:
        builders.open_records(config, tmp_path / 'tfds')
    told = str(caught.value)
    assert told.startswith(f'3 images cannot be used: {files[3].path}: not a PNG, JPEG or BMP image')
    assert f'{files[60].path}: broken, truncated' in told
    assert told.endswith(f'{files[119].path} is too small')
    assert not list((tmp_path / 'tfds').rglob('*.array_record*'))
