"""Restoring files to files; each output is written while it is computed."""

import collections
import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import tqdm
from absl import logging

from nsr_jax import agreement
from nsr_jax.atomic_files import make_output_folder, sweep
from nsr_jax.errors import UserError
from nsr_jax.images.formats import SUFFIXES, check_output, check_quality, takes_quality
from nsr_jax.images.reading import LARGEST_PIXELS, Photo, read_photo
from nsr_jax.images.writing import write_photo
from nsr_jax.inference.restorer import Restorer
from nsr_jax.restoring.plan import Job
from nsr_jax.restoring.progress import Progress


def restore_files(
    jobs: Sequence[Job],
    restorer: Restorer,
    *,
    output_format: str | None = None,
    quality: int | None = None,
    largest_pixels: int = LARGEST_PIXELS,
) -> tuple[list[Job], float]:
    """Restore images into files; returns the jobs that failed, and the megapixels of the other outputs.

    An image that fails is reported on standard error, and the others are restored. A file gets its name when it is
    whole; missing folders are made.

    All processes that share the restorer's mesh must call this alike. Each reads every image, only the first one writes
    and reports, and all return the same.

    Args:
        jobs: as from `plan`; existing targets are replaced.
        restorer: the networks.
        output_format: one of `formats.FORMATS`, for all files; None: the format that the target's suffix names, or that
            of the input if it names none, as for standard output.
        quality: 1 to 100, for JPEG and WebP; None: the format's default, and lossless WebP. Lossless formats ignore it
            if each file has its own format; on standard output, it is an error for them.
        largest_pixels: larger images fail.
    """
    failed, pixels = [], 0
    for folder in {job.target.parent for job in jobs if job.target}:
        sweep(folder)
    with Progress([max(1, job.size) for job in jobs], is_shown=agreement.is_first()) as progress:
        for job in jobs:
            progress.start_next()
            try:
                with agreement.agreed():
                    photo = _read(job.source, largest_pixels)
                    form = output_format or job.format or photo.format
                    if not output_format:
                        _check_misnamed(job, photo, restorer.scale, form)
                    asked = quality if output_format or job.target is None or takes_quality(form) else None
                    with errors_named(str(job)):
                        check_quality(form, asked)
                        strips = restorer.strips(photo.pixels, photo.alpha, on_progress=progress.tell)
                strips = named_strips(str(job), strips)
                with agreement.agreed(), _taken_by_all(strips):
                    if agreement.is_first():
                        _write(job.target, strips, photo, restorer.scale, form, asked)
                height, width, _ = photo.pixels.shape
                pixels += height * width * restorer.scale**2
            except UserError as error:
                failed.append(job)
                if agreement.is_first():
                    tqdm.tqdm.write(f'error: {error}', file=sys.stderr)
            progress.end()
    return failed, pixels / 1e6


@contextlib.contextmanager
def _taken_by_all(strips: Iterator[np.ndarray]) -> Iterator[None]:
    """Compute the strips that the block leaves, even if it fails: other processes need this one's devices."""
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    if jax.process_count() > 1:
        collections.deque(strips, maxlen=0)
    if failure:
        raise failure


def _read(source: pathlib.Path | None, largest_pixels: int) -> Photo:
    if source is None:
        return read_photo(sys.stdin.buffer, name='standard input', largest_pixels=largest_pixels)
    return read_photo(source, largest_pixels=largest_pixels)


def _check_misnamed(job: Job, photo: Photo, scale: int, form: str) -> None:
    """Warn if an input's suffix names another format than its contents have: the output follows the name.

    Raises:
        UserError: the named format cannot hold the image.
    """
    called = None if job.source is None else SUFFIXES.get(job.source.suffix.lower())
    if called is None or photo.format in (called, form):
        return
    true = f'{job}: a {photo.format} file by its contents (--format={photo.format.lower()} keeps that format)'
    check_output(form, **kind_of_output(photo, scale), name=true)
    logging.warning('%s; writing %s, as its name says', true, form)


def kind_of_output(photo: Photo, scale: int) -> dict[str, Any]:
    """Height, width, channels with alpha, and dtype of a restored photograph, as `write_photo` takes them."""
    height, width, channels = photo.pixels.shape
    channels += photo.alpha is not None
    return {'height': scale * height, 'width': scale * width, 'channels': channels, 'dtype': photo.pixels.dtype}


def _write(
    target: pathlib.Path | None, strips: Iterator[np.ndarray], photo: Photo, scale: int, form: str, quality: int | None
) -> None:
    about = kind_of_output(photo, scale) | {'format': form, 'metadata': photo.metadata, 'quality': quality}
    if target is None:
        try:
            with open(sys.stdout.fileno(), 'wb', closefd=False) as stream:
                write_photo(stream, strips, name='standard output', **about)
        except OSError as error:  # on closing, when the rest is written
            raise UserError(f'standard output: cannot be written: {error.strerror}') from error
    else:
        if not os.path.isdir(target.parent):
            make_output_folder(target.parent)
        write_photo(target, strips, **about)


def named_strips(name: str, strips: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same strips; errors begin with the name of the image."""
    with errors_named(name):
        yield from strips


@contextlib.contextmanager
def errors_named(name: str) -> Iterator[None]:
    """Make errors begin with the name of the image; too little memory is a `UserError`."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{name}: {error}') from error
    except MemoryError as error:
        raise UserError(f'{name}: too little memory') from error
