"""SHA-256 digests of files, kept so that a file is read once rather than at each start.

A kept digest is valid as long as the file's device, inode, size and both of its times are the same as when it was read.
A clock that ticks slowly could hide a change right after that. So a digest is kept only if the file had not changed for
a while when it was read; a younger file is read again the next time.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import stat
import time
from collections.abc import Iterable, Mapping

import tqdm
from absl import logging

from nsr_jax.atomic_files import write_atomically
from nsr_jax.errors import UserError

CACHE = 'digests.json'
MOST_KEPT = 20_000  # entries of the cache, those used last

_SETTLED = 3_000_000_000  # nanoseconds: more than the coarsest time of a file system, FAT's two seconds

_Status = tuple[int, ...]


def digest_files(paths: Iterable[pathlib.Path], folder: str | os.PathLike | None = None) -> dict[pathlib.Path, str]:
    """The SHA-256 of each file, in hexadecimal digits.

    Args:
        paths: of files, which are read in pieces, several at a time.
        folder: keeps the digests in its file `CACHE` and is made if it is missing; None: every file is read. A cache
            that is damaged or cannot be written only costs time.

    Raises:
        UserError: one of them cannot be read, is not a file, or changes while it is read.
    """
    paths = list(dict.fromkeys(paths))
    cache = pathlib.Path(folder) / CACHE if folder else None
    known = _read(cache) if cache else {}
    found = {path: known.get(os.path.abspath(path)) for path in paths}
    digests = {path: entry[1] for path, entry in found.items() if entry and entry[0] == _status_of(path)}
    unknown = [path for path in paths if path not in digests]
    if not unknown:
        return digests
    now = time.time_ns()
    with concurrent.futures.ThreadPoolExecutor() as threads:
        done = threads.map(_digest, unknown)
        done = tqdm.tqdm(done, total=len(unknown), desc='reading', unit='file', leave=False, disable=None)
        read = dict(zip(unknown, done, strict=True))
    settled = {path: entry for path, entry in read.items() if max(entry[0][-2:]) < now - _SETTLED}
    if cache and settled:
        kept = {path: entry for path, entry in found.items() if entry is not None and path in digests} | settled
        _write(cache, {os.path.abspath(path): entry for path, entry in kept.items()})
    return {path: digests[path] if path in digests else read[path][1] for path in paths}


def _status_of(path: pathlib.Path) -> _Status:
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    if not stat.S_ISREG(status.st_mode):  # a pipe may never end
        raise UserError(f'{path}: cannot be read: not a file')
    return _status(status)


def _status(status: os.stat_result) -> _Status:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _digest(path: pathlib.Path) -> tuple[_Status, str]:
    _status_of(path)
    try:
        with path.open('rb') as file:
            before = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, 'sha256').hexdigest()
            after = os.fstat(file.fileno())
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    if _status(before) != _status(after):
        raise UserError(f'{path} changes while it is read: wait until it is written')
    return _status(after), digest


def _read(cache: pathlib.Path) -> dict[str, tuple[_Status, str]]:
    """The kept entries by absolute path; none if the file is missing or damaged."""
    try:
        contents = json.loads(cache.read_bytes())
        if contents['sha256'] != _checksum(contents['files']):
            raise ValueError('it is damaged')
        return {path: (tuple(status), digest) for path, (status, digest) in contents['files'].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        logging.info('%s: not used: %s', cache, error)
        return {}


def _write(cache: pathlib.Path, entries: Mapping[str, tuple[_Status, str]]) -> None:
    """Add these entries to those that other processes have written meanwhile."""
    others = {path: entry for path, entry in _read(cache).items() if path not in entries}
    files = dict([*others.items(), *entries.items()][-max(MOST_KEPT, len(entries)) :])
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cache, json.dumps({'sha256': _checksum(files), 'files': files}))
    except (OSError, UserError) as error:
        logging.info('%s: cannot be written, so files are read again at each start: %s', cache, error)


def _checksum(files: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()
