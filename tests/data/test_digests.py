"""Digests of files: correct after any change of a file, and kept so that an unchanged file is read once."""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import time

import pytest

from nsr_jax.data import digests
from nsr_jax.data.digests import CACHE, digest_files
from nsr_jax.errors import UserError


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f'{index}.png' for index in range(3)]
    for index, path in enumerate(paths):
        path.write_bytes(bytes([index]) * 100)
    return paths


@pytest.fixture
def settled(monkeypatch):
    """The clock says that files have not changed for a while."""
    now = time.time_ns
    monkeypatch.setattr(time, 'time_ns', lambda: now() + 10**10)


@pytest.fixture
def reads(monkeypatch):
    """The paths of the files that are read from here on."""
    read, found = hashlib.file_digest, []

    def recorded(file, name):
        found.append(pathlib.Path(file.name))
        return read(file, name)

    monkeypatch.setattr(hashlib, 'file_digest', recorded)
    return found


def expected(paths):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_digests_are_of_what_files_hold(files, tmp_path):
    assert digest_files([*files, files[0]]) == expected(files)
    assert digest_files(files, tmp_path / 'kept') == expected(files)
    assert digest_files([], tmp_path / 'kept') == {}


def test_files_that_have_not_changed_are_read_once(files, tmp_path, settled, reads, monkeypatch):
    digest_files(files[:2], tmp_path / 'kept')
    digest_files(files, tmp_path / 'kept')
    assert sorted(reads) == files
    monkeypatch.chdir(tmp_path)  # the same file by another spelling of its path
    names = [pathlib.Path(path.name) for path in files]
    assert digest_files(names, tmp_path / 'kept') == expected(names)
    assert len(reads) == 3


def test_a_changed_file_of_the_same_size_and_time_is_read_again(files, tmp_path, settled):
    """The time of its inode, which nobody can set, reveals the change."""
    for path in files:
        os.utime(path, (1_700_000_000, 1_700_000_000))
    digest_files(files, tmp_path / 'kept')
    before = files[1].stat()
    while files[1].stat().st_ctime_ns == before.st_ctime_ns:  # until the clock of the file system has ticked
        files[1].write_bytes(b'n' * 100)
        os.utime(files[1], (1_700_000_000, 1_700_000_000))
    assert files[1].stat().st_mtime_ns == before.st_mtime_ns
    assert digest_files(files, tmp_path / 'kept') == expected(files)


def test_a_file_put_in_the_place_of_another_is_read(files, tmp_path, settled):
    digest_files(files, tmp_path / 'kept')
    files[2].replace(files[0])
    assert digest_files(files[:2], tmp_path / 'kept') == expected(files[:2])


def test_of_a_file_that_has_just_changed_nothing_is_kept(files, tmp_path, reads, monkeypatch):
    """A change within one tick of a file system's clock would leave the file's times as they were."""
    now = max(path.stat().st_ctime_ns for path in files)
    monkeypatch.setattr(time, 'time_ns', lambda: now + 2 * 10**9)
    digest_files(files[-1:], tmp_path / 'kept')
    assert not (tmp_path / 'kept').exists()
    monkeypatch.setattr(time, 'time_ns', lambda: now + 10**10)
    digest_files(files, tmp_path / 'kept')
    assert len(reads) == 4
    digest_files(files, tmp_path / 'kept')
    assert len(reads) == 4


def damaged_caches(contents, files):
    texts = json.loads(contents)
    swapped = dict(zip(texts['files'], reversed(texts['files'].values()), strict=True))
    others = contents.replace(b'"sha256": "', b'"sha256": "0', 1)
    wrong = [None, 5, [], {}, {'files': {}}, {'files': 5, 'sha256': ''}, texts | {'files': swapped}]
    yield from (json.dumps(each).encode() for each in wrong)
    yield from (b'', contents[:-1], contents[: len(contents) // 2], b'\xff' + contents, others, b'[' * 100_000)
    for place in range(0, len(contents), max(1, len(contents) // 25)):
        yield contents[:place] + bytes([contents[place] ^ 4]) + contents[place + 1 :]


def test_a_damaged_cache_is_written_anew(files, tmp_path, settled, reads):
    digest_files(files, tmp_path / 'kept')
    cache = tmp_path / 'kept' / CACHE
    contents = cache.read_bytes()
    for damaged in damaged_caches(contents, files):
        cache.write_bytes(damaged)
        reads.clear()
        assert digest_files(files, tmp_path / 'kept') == expected(files)
        assert len(reads) == 3, damaged
        assert cache.read_bytes() == contents


@pytest.mark.parametrize('kind', ['folder of a file', 'folder of the name', 'below a file'])
def test_a_cache_that_cannot_be_written_costs_time_alone(files, tmp_path, settled, kind):
    place = tmp_path / 'kept'
    if kind == 'folder of the name':
        (place / CACHE).mkdir(parents=True)
    else:
        place.write_text('')
    folder = place / 'below' if kind == 'below a file' else place
    assert digest_files(files, folder) == expected(files)


def test_the_cache_is_bounded(tmp_path, settled, reads, monkeypatch):
    monkeypatch.setattr(digests, 'MOST_KEPT', 4)
    paths = [tmp_path / f'{index}.png' for index in range(8)]
    for path in paths:
        path.write_text(path.name)
        digest_files([path], tmp_path / 'kept')
    assert len(json.loads((tmp_path / 'kept' / CACHE).read_bytes())['files']) == 4
    reads.clear()
    digest_files(paths[4:], tmp_path / 'kept')
    assert reads == []  # the last ones are kept
    digest_files(paths, tmp_path / 'kept')
    reads.clear()
    digest_files(paths, tmp_path / 'kept')
    assert reads == []  # and all of a set, however large it is


def test_what_several_find_at_once_is_true(tmp_path, settled):
    sets = [[tmp_path / f'{number}_{index}.png' for index in range(3)] for number in range(8)]
    for path in [path for paths in sets for path in paths]:
        path.write_text(path.name)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda paths: digest_files(paths, tmp_path / 'kept'), sets * 4))
    assert found == [expected(paths) for paths in sets] * 4
    assert [path.name for path in (tmp_path / 'kept').iterdir()] == [CACHE]


def test_what_others_keep_meanwhile_stays(files, tmp_path, settled, reads, monkeypatch):
    read = hashlib.file_digest

    def overtaken(file, name):
        monkeypatch.setattr(hashlib, 'file_digest', read)
        digest_files(files[1:], tmp_path / 'kept')
        return read(file, name)

    monkeypatch.setattr(hashlib, 'file_digest', overtaken)
    digest_files(files[:1], tmp_path / 'kept')
    digest_files(files, tmp_path / 'kept')
    assert len(reads) == 3


def test_names_that_are_no_text(tmp_path, settled, reads):
    path = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b'/\xff.zip'))
    try:
        path.write_bytes(b'a')
    except OSError:
        pytest.skip('this file system takes names of UTF-8 alone')
    for _ in range(2):
        assert digest_files([path], tmp_path / 'kept') == expected([path])
    assert len(reads) == 1


def test_what_cannot_be_read_is_named(files, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r'gone\.png: cannot be read: No such file'):
        digest_files([*files, tmp_path / 'gone.png'])
    with pytest.raises(UserError, match='cannot be read: not a file'):
        digest_files([tmp_path])
    os.mkfifo(tmp_path / 'pipe.png')
    with pytest.raises(UserError, match=r'pipe\.png: cannot be read: not a file'):
        digest_files([tmp_path / 'pipe.png'])


def test_a_file_that_is_being_written_is_refused(files, monkeypatch):
    read = hashlib.file_digest

    def overtaken(file, name):
        digest = read(file, name)
        with files[1].open('ab') as other:
            other.write(b'more')
        return digest

    monkeypatch.setattr(hashlib, 'file_digest', overtaken)
    with pytest.raises(UserError, match=r'1\.png changes while it is read'):
        digest_files(files[1:2])
