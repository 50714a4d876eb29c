import errno
import fcntl
import io
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from nsr_jax.atomic_files import (
    TEMPORARY,
    make_output_folder,
    read_bounded,
    replacing,
    sweep,
    temporary_folder,
    write_atomically,
)
from nsr_jax.errors import UserError


def test_output_folder_is_made_and_left_empty(tmp_path):
    assert list(make_output_folder(tmp_path / 'a' / 'b').iterdir()) == []


def test_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='file'):
        make_output_folder(tmp_path / 'file' / 'below')


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / 'scores.json'
    write_atomically(path, 'old')

    def no_space(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', no_space)
    with pytest.raises(UserError, match='No space left'):
        write_atomically(path, 'new')
    assert [file.name for file in tmp_path.iterdir()] == ['scores.json']
    assert path.read_text() == 'old'


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match='missing'):
        write_atomically(tmp_path / 'missing' / 'scores.json', 'new')


def test_of_several_writers_of_one_process_number_each_puts_a_whole_file_there(tmp_path, monkeypatch):
    """Containers that share a folder have the same process numbers; what one writes, the other leaves alone."""
    monkeypatch.setattr(os, 'getpid', lambda: 1)
    path = tmp_path / 'a.png'
    with replacing(path) as first:
        first.write(b'first half, ')
        first.flush()
        with replacing(path) as second:
            second.write(b'all of it')
        assert path.read_bytes() == b'all of it'
        write_atomically(path, 'again')
        assert path.read_bytes() == b'again'
        first.write(b'second half')
    assert path.read_bytes() == b'first half, second half'
    assert [file.name for file in tmp_path.iterdir()] == ['a.png']


@pytest.mark.parametrize('error', [OSError, UserError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / 'a.png'
    write_atomically(path, 'old')
    with pytest.raises(error), replacing(path) as file:
        file.write(b'new')
        raise error
    assert [file.name for file in tmp_path.iterdir()] == ['a.png']
    assert path.read_text() == 'old'


@pytest.mark.parametrize('mask', [0o022, 0o027, 0o077])
def test_files_get_the_permissions_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / 'written', '')
        (tmp_path / 'plain').write_text('')
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ('written', 'plain')}
    assert modes == {0o666 & ~mask}


def test_the_longest_names_can_be_written(tmp_path):
    path = tmp_path / ('n' * (os.pathconf(tmp_path, 'PC_NAME_MAX')))
    write_atomically(path, 'new')
    assert path.read_text() == 'new'


WRITE = """
import pathlib, sys
from nsr_jax.atomic_files import replacing, temporary_folder
folder = pathlib.Path(sys.argv[1])
with replacing(folder / 'a.png') as file, temporary_folder(folder) as made:
    file.write(b'half')
    file.flush()
    (made / 'below').mkdir()
    (made / 'below' / 'record').write_bytes(b'half')
    print('writing', flush=True)
    sys.stdin.read()
"""


def test_what_a_process_writes_stays_until_it_is_dead(tmp_path):
    command = [sys.executable, '-c', WRITE, str(tmp_path)]
    root = pathlib.Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == 'writing\n'
        sweep(tmp_path)
        found = sorted(path.name for path in tmp_path.rglob('*'))
        assert len(found) == 4 and [name[: len(TEMPORARY)] for name in found[:2]] == [TEMPORARY] * 2, found
        process.kill()
    assert sorted(path.name for path in tmp_path.rglob('*')) == found
    make_output_folder(tmp_path)  # as the next start does
    assert list(tmp_path.iterdir()) == []


def test_without_locks_files_are_written_and_none_is_swept_up(tmp_path, monkeypatch):
    left = tmp_path / f'{TEMPORARY}0123'
    left.write_text('half')

    def no_locks(*_):
        raise OSError(errno.ENOTSUP, 'Operation not supported')

    monkeypatch.setattr(fcntl, 'flock', no_locks)
    write_atomically(tmp_path / 'a', 'whole')
    with temporary_folder(tmp_path) as folder:
        (folder / 'b').write_text('')
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [left.name, 'a']


@pytest.mark.parametrize('is_held', [False, True])
def test_a_sweep_that_comes_before_the_lock_costs_nothing(tmp_path, monkeypatch, is_held):
    """A temporary that is not locked yet looks like a dead one: its writer takes another."""
    lock, done = fcntl.flock, []

    def late(descriptor, operation):
        if not done:
            done.append(None)
            sweep(tmp_path)
            if is_held:  # by a sweep that has not come to remove it
                raise BlockingIOError
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, 'flock', late)
    write_atomically(tmp_path / 'a', 'whole')
    done.clear()
    with temporary_folder(tmp_path) as folder:
        (folder / 'b').write_text('')
    assert done
    assert (tmp_path / 'a').read_text() == 'whole'


def test_only_temporaries_are_swept_up(tmp_path):
    outside = tmp_path / 'outside'
    outside.mkdir()
    (outside / 'kept').write_text('')
    folder = tmp_path / 'output'
    (folder / 'below').mkdir(parents=True)
    names = ['a.png', '.a.png.123.tmp', '.hidden', f'a{TEMPORARY}']
    for name in names:
        (folder / name).write_text('')
    (folder / f'{TEMPORARY}link').symlink_to(outside)
    sweep(folder)
    sweep(tmp_path / 'missing')
    assert sorted({path.name for path in folder.iterdir()} - {f'{TEMPORARY}link'}) == sorted([*names, 'below'])
    assert (outside / 'kept').exists()


class Watched(io.BytesIO):
    """A stream that knows how many bytes it was asked for at once."""

    most = 0

    def read(self, size):
        self.most = max(self.most, size)
        return super().read(size)


@pytest.mark.parametrize('length', [0, 1, 2**20, 3 * 2**20 + 7])
def test_a_limit_is_no_allocation(length):
    data = os.urandom(length)
    for expected in (0, 1, length):
        stream = Watched(data)
        assert read_bounded(stream, 2**40, expected) == data
        assert stream.most <= max(2**20, expected + 1)
        for most in (0, 5, length, length + 1):
            assert read_bounded(io.BytesIO(data), most, expected) == data[: most + 1]
