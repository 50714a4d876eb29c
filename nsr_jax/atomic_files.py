"""Writing to the file system so that a file is whole or not there, and sweeping up what killed processes left.

What is being written has a random name that begins with `TEMPORARY`, and its writer holds a lock on it (flock), which
the operating system takes from a process that dies, however it dies. So a temporary that can be locked has no living
writer, in whichever container: `sweep` removes it. Where a file system has no such locks, nothing is ever removed.
Reading takes no more memory than there is to read.
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
    """Make the folder where it is missing, sweep it, and try whether a file can be written into it.

    Args:
        path: of the folder; folders above it are made too.
        mode: the permissions of a new one, less what the umask takes away.

    Raises:
        UserError: it cannot be made or written into.
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
    """The rest of a stream, or its first `most + 1` bytes where it is longer; only what is there takes memory.

    Args:
        stream: it may grow or unpack while it is read, or never end.
        most: bytes that are accepted.
        expected: how many there should be, which are then read at once; 0: unknown.
    """
    buffer = io.BytesIO(stream.read(min(expected, most) + 1) if expected else b'')  # not copied, if that was all
    buffer.seek(0, os.SEEK_END)
    while piece := stream.read(min(_PIECE, most + 1 - buffer.tell())):
        buffer.write(piece)
    return buffer.getvalue()


def write_atomically(path: str | os.PathLike, contents: str | bytes) -> None:
    """Write a file under a temporary name beside it and rename it.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with replacing(path) as file:
            file.write(contents.encode() if isinstance(contents, str) else contents)
    except OSError as error:
        raise UserError(f'{path}: cannot be written: {error.strerror}') from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A new file, to write and read, that takes the name `path` when the block has gone well, and is gone otherwise.

    It has the permissions of any new file. Of several writers of one path each puts a whole file there.

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
            os.fsync(file.fileno())  # some file systems say only here that they are full
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(parent: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A new folder in `parent`, which is there; what has not been moved out of it at the end of the block is gone.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        folder = _unused(pathlib.Path(parent))
        folder.mkdir()
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # a sweep was quicker
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
    """Remove the temporaries in a folder that no living process writes; what cannot be removed stays."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name.startswith(TEMPORARY)]
    except OSError:
        return
    for entry in found:
        with contextlib.suppress(OSError):  # gone, another user's, or locked: somebody writes it
            is_folder = entry.is_dir(follow_symlinks=False)
            mode = os.O_RDONLY if is_folder else os.O_RDWR  # which network file systems ask for to lock a file
            descriptor = os.open(entry.path, mode | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry.path) if is_folder else os.unlink(entry.path)
            finally:
                os.close(descriptor)


def _unused(folder: pathlib.Path) -> pathlib.Path:
    """A path that nobody else takes, of a length that every file system allows."""
    return folder / f'{TEMPORARY}{secrets.token_hex(8)}'


def _hold(descriptor: int, path: pathlib.Path) -> bool:
    """Lock a temporary that was just made; False where a sweep was quicker and takes it for a dead one."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # without locks, which a sweep cannot have here either
    return os.path.lexists(path)
