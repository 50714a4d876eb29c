"""Writing whole files or none, sweeping up after killed processes, and reading with bounded memory.

A file that is being written has a random name that begins with `TEMPORARY`, and its writer holds a lock on it (flock),
which the operating system releases however the process dies. A temporary that can be locked thus has no living writer,
in any container, and `sweep` removes it. If a file system has no such locks, nothing is ever removed.
"""

import contextlib
import fcntl
import io
import os
import pathlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, BinaryIO

from nsr_jax.errors import UserError

TEMPORARY = '.nsr-tmp-'
_PIECE = 2**20


def make_output_folder(path: str | os.PathLike, mode: int = 0o777) -> pathlib.Path:
    """Make a folder and those above it if they are missing, sweep it, and check that files can be written into it.

    Args:
        mode: the permissions of a new one, before the umask.

    Raises:
        UserError: the folder cannot be made or written into.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(mode, parents=True, exist_ok=True)
        sweep(path)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f'folder {path} cannot be written into: {error.strerror}') from error
    return path


def read_bounded(stream: IO[bytes], most: int, expected: int = 0) -> bytes:
    """The rest of a stream, or its first `most + 1` bytes if it is longer; memory is taken only for what is read.

    Args:
        stream: may grow or unpack while it is read, or never end.
        most: how many bytes are accepted.
        expected: how many there should be; these are read at once. 0: unknown.
    """
    buffer = io.BytesIO(stream.read(min(expected, most) + 1) if expected else b'')  # no copy if this is all
    buffer.seek(0, os.SEEK_END)
    while piece := stream.read(min(_PIECE, most + 1 - buffer.tell())):
        buffer.write(piece)
    return buffer.getvalue()


def write_atomically(path: str | os.PathLike, contents: str | bytes) -> None:
    """Write a file under a temporary name and rename it. Raises `UserError` if it cannot be written."""
    try:
        with replacing(path) as file:
            file.write(contents.encode() if isinstance(contents, str) else contents)
    except OSError as error:
        raise UserError(f'{path}: cannot be written: {error.strerror}') from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A new file, open for writing and reading, that is renamed to `path` if the block succeeds, or else removed.

    It has the permissions of any new file. Each of several writers of one path puts a whole file there.

    Raises:
        OSError: it cannot be written.
    """
    path = pathlib.Path(path)
    while True:
        temporary = _unused(path.parent)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if _hold(descriptor, temporary):
            break
        os.close(descriptor)
    with os.fdopen(descriptor, 'w+b') as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())  # some file systems report only here that they are full
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(parent: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A new folder in the existing folder `parent`; after the block it is removed with everything still in it.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        folder = _unused(pathlib.Path(parent))
        folder.mkdir()
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # a sweep has removed it
            continue
        if _hold(descriptor, folder):
            break
        os.close(descriptor)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def sweep(folder: str | os.PathLike) -> None:
    """Remove the temporaries in a folder that no living process writes, as far as possible."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name.startswith(TEMPORARY)]
    except OSError:
        return
    for entry in found:
        with contextlib.suppress(OSError):  # gone, another user's, or locked by its writer
            is_folder = entry.is_dir(follow_symlinks=False)
            mode = os.O_RDONLY if is_folder else os.O_RDWR  # network file systems lock only files open for writing
            descriptor = os.open(entry.path, mode | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry.path) if is_folder else os.unlink(entry.path)
            finally:
                os.close(descriptor)


def _unused(folder: pathlib.Path) -> pathlib.Path:
    """A path that nobody else uses, short enough for every file system."""
    return folder / f'{TEMPORARY}{secrets.token_hex(8)}'


def _hold(descriptor: int, path: pathlib.Path) -> bool:
    """Lock a temporary that was just made; False if a sweep has taken it for an abandoned one."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # this file system has no locks, and so no sweep either
    return os.path.lexists(path)
