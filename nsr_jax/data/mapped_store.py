"""An image store in a memory-mapped file, for sets of images that neither a device nor the host's memory can hold.

The file holds sizes, targets and inputs, one after another, each at a multiple of `ALIGNMENT` bytes. The sizes and the
name of the file determine where each begins, and so how long a complete file is.
"""

import contextlib
import fcntl
import hashlib
import math
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal

import numpy as np
from absl import logging

from nsr_jax.atomic_files import make_output_folder, replacing, sweep
from nsr_jax.data.sources import Example, Source
from nsr_jax.data.store import (
    ALIGNMENT,
    ImageStore,
    Needs,
    StoreLayout,
    ToGray,
    build_store,
    fill_store,
    measure_images,
)
from nsr_jax.errors import UserError

_VERSION = 1  # raise it when decoding or cropping gives other pixels than before
# Functions that make colours gray are told apart by the gray values of these colours: each channel in steps of 15.
_COLOURS = np.moveaxis(np.mgrid[:256:15, :256:15, :256:15], 0, -1).astype(np.uint8).reshape(1, -1, 3)


def open_store(source: Source, folder: str | os.PathLike, needs: Needs, *, budget: int) -> ImageStore:
    """Decode a source into NumPy arrays, in memory if their bytes are within the budget, else in a file in `folder`.

    A file that exists already is mapped, and nothing is decoded. Several processes may need it at the same time: one
    writes it, and the others wait.

    Raises:
        UserError: as `build_store`, or a file cannot be written, for example on a full disk, and is removed.
    """
    folder = pathlib.Path(folder)
    sweep(folder)
    path = folder / _file_name(source, needs)
    store = _map_file(path, len(source), needs)
    if store is not None and store.sizes.min() >= needs.smallest:
        return store
    layout = measure_images(source, needs)  # its error names images that are too small
    if layout.nbytes <= budget:
        return build_store(source, needs, layout)
    make_output_folder(path.parent)
    with _locked(path):
        store = _map_file(path, len(source), needs)  # another process may have written it meanwhile
        if store is None:
            _write_file(path, source, layout, needs.to_gray)
            store = _map_file(path, len(source), needs)
            assert store is not None  # just written
    return store


def _file_name(source: Source, needs: Needs) -> str:
    """A name made of all that the contents of the file depend on."""
    words = [source.fingerprint, f'x{needs.scale}', f'{needs.channels}_channels', f'v{_VERSION}']
    if needs.to_gray:  # identified by its values, as its name would not tell what it does
        words.append(hashlib.sha256(needs.to_gray(_COLOURS).tobytes()).hexdigest()[:16])
    return re.sub(r'\W+', '_', '_'.join(words)) + '.images'


def _starts(layout: StoreLayout) -> tuple[int, int, int]:
    """The offsets of targets and inputs in the file, and its length."""

    def aligned(offset: int) -> int:
        return -(-offset // ALIGNMENT) * ALIGNMENT

    targets = aligned(layout.sizes.nbytes)
    inputs = aligned(targets + math.prod(layout.targets))
    return targets, inputs, inputs + (0 if layout.inputs is None else math.prod(layout.inputs))


def _map_file(path: pathlib.Path, count: int, needs: Needs) -> ImageStore | None:
    """The store of `count` images in a file; None if there is no file, or an incomplete one."""
    try:
        sizes = np.fromfile(path, np.int32, 2 * count)
        length = path.stat().st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    if sizes.size == 2 * count and sizes.min() > 0:
        layout = StoreLayout(sizes.reshape(count, 2), needs.scale, needs.channels, needs.has_inputs)
        if length == _starts(layout)[-1]:
            return _map(path, layout, 'r')
    logging.warning('%s is incomplete: it is written anew if it is needed', path)
    return None


def _map(file: pathlib.Path | BinaryIO, layout: StoreLayout, mode: Literal['r', 'r+']) -> ImageStore:
    targets, inputs, _ = _starts(layout)
    return ImageStore(
        np.memmap(file, np.uint8, mode, targets, layout.targets),
        None if layout.inputs is None else np.memmap(file, np.uint8, mode, inputs, layout.inputs),
        layout.sizes,
    )


def _write_file(path: pathlib.Path, examples: Sequence[Example], layout: StoreLayout, to_gray: ToGray | None) -> None:
    *_, end = _starts(layout)
    logging.info('%s: writing %.0f MB of decoded images', path, end / 1e6)
    try:
        with replacing(path) as file:
            # Writing to mapped memory on a full disk would kill the process, so the space is reserved before.
            if hasattr(os, 'posix_fallocate'):
                os.posix_fallocate(file.fileno(), 0, end)
            file.truncate(end)
            file.write(layout.sizes.tobytes())
            file.flush()
            store = _map(file, layout, 'r+')
            fill_store(store, examples, layout, to_gray)
            for array in (store.targets, store.inputs):
                if isinstance(array, np.memmap):
                    array.flush()
    except OSError as error:
        raise UserError(f'{path}: {end / 1e6:.0f} MB cannot be written: {error.strerror}') from error


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Hold a file's lock, after waiting for the process that has it; the system takes it from one that dies."""
    with path.with_name(f'.{path.name}.lock').open('ab') as file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logging.info('another process writes %s: waiting for it', path)
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(
                f'{path.parent}: files cannot be locked there ({error.strerror}): choose another folder'
            ) from error
        yield
