"""Writing to the file system so that a file is whole or not there."""

import os
import pathlib
import tempfile

from nsr_jax.errors import UserError


def make_output_folder(path: str | os.PathLike) -> pathlib.Path:
    """Make the folder where it is missing and try whether a file can be written into it.

    Raises:
        UserError: it cannot be made or written into.
    """
    path = pathlib.Path(path).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f'folder {path} cannot be written into: {error.strerror}') from error
    return path


def write_atomically(path: str | os.PathLike, contents: str | bytes) -> None:
    """Write a file under a temporary name beside it and rename it.

    Raises:
        UserError: it cannot be written.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        try:
            temporary.write_bytes(contents.encode() if isinstance(contents, str) else contents)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f'{path}: cannot be written: {error.strerror}') from error
