"""Writing images strip by strip, in any of the formats, so that a file is whole or not there."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
import PIL.Image

from nsr_jax.atomic_files import replacing
from nsr_jax.errors import UserError
from nsr_jax.images.fitting import fitted
from nsr_jax.images.formats import check_output, check_quality
from nsr_jax.images.libvips import pyvips
from nsr_jax.images.metadata import Metadata
from nsr_jax.images.strip_writer import write_stream
from nsr_jax.images.tiff_file import write_tiff

JPEG_QUALITY = 95
_MODES = {1: 'L', 2: 'LA', 3: 'RGB', 4: 'RGBA'}  # Pillow's, by the number of channels


def write_photo(
    target: str | os.PathLike | BinaryIO,
    strips: Iterable[np.ndarray],
    *,
    height: int,
    width: int,
    channels: int,
    dtype: np.dtype | type,
    format: str,
    metadata: Metadata | None = None,
    quality: int | None = None,
    name: str | None = None,
) -> None:
    """Write an upright image of which the strips may still have to be made.

    PNG, JPEG and TIFF hold a few strips at a time; encoders of WebP and BMP want the whole picture, at four bytes a
    pixel and more. Strips are pulled in this thread; what they raise is raised, and nothing is left then.

    Args:
        target: a file, which is written under a temporary name beside it and renamed, in a folder that is there; or a
            binary stream, which is given the file when it is whole.
        strips: (rows, width, channels) of dtype, from top to bottom, alpha last; not multiplied by it.
        height: of the image.
        width: likewise.
        channels: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
        dtype: uint8 or uint16.
        format: one of `formats.FORMATS`.
        metadata: of the image that this one was made from; size and orientation in it are set right. None: nothing.
        quality: 1 to 100, of JPEG and WebP; None: JPEG is written with 95, WebP without loss.
        name: how errors call the file; None: its path, or 'output'.

    Raises:
        UserError: a format or quality that does not fit, before a strip is pulled; or the file cannot be written.
        ValueError: strips that are not of this image.
    """
    is_path = isinstance(target, str | os.PathLike)
    name = name or (str(target) if is_path else 'output')
    dtype = np.dtype(dtype)
    check_output(format, height, width, channels, dtype, name)
    check_quality(format, quality)
    metadata = fitted((metadata or Metadata()).of_upright(height, width), format, channels)
    checked = _Strips(strips, height, width, channels, dtype)

    def write(file: BinaryIO) -> None:
        if format == 'TIFF':
            write_tiff(file, checked, height, width, channels, dtype, metadata)
        elif format in ('PNG', 'JPEG'):
            write_stream(file, checked, height, width, channels, dtype, format, metadata, quality or JPEG_QUALITY)
        else:
            _write_whole(file, checked, height, width, channels, format, metadata, quality)

    try:
        if is_path:
            with replacing(target) as file:
                write(file)
        else:
            with tempfile.TemporaryFile() as file:
                write(file)
                file.seek(0)
                shutil.copyfileobj(file, target)
    except OSError as error:
        if error is checked.failure:
            raise
        raise UserError(f'{name}: cannot be written: {error.strerror or error}') from error
    except pyvips.Error as error:
        raise UserError(f'{name}: cannot be written: {" ".join(str(error).split())}') from error


class _Strips:
    """Strips that are checked as they are pulled, and whose own failure is told from that of writing them."""

    def __init__(self, strips: Iterable[np.ndarray], height: int, width: int, channels: int, dtype: np.dtype):
        self._strips = strips
        self._shape = height, width, channels
        self._dtype = dtype
        self.failure: OSError | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        height, *row = self._shape
        done = 0
        strips = iter(self._strips)
        while True:
            try:
                strip = next(strips, None)
            except OSError as error:
                self.failure = error
                raise
            if strip is None:
                break
            done += len(strip)
            if list(strip.shape[1:]) != row or strip.dtype != self._dtype or done > height:
                raise ValueError(f'a strip of {strip.dtype} {strip.shape} in row {done - len(strip)} of {self}')
            if len(strip):
                yield strip
        if done < height:
            raise ValueError(f'{done} rows of {self}')

    def __str__(self) -> str:
        return f'an image of {self._dtype} {self._shape}'


def _write_whole(
    file: BinaryIO,
    strips: Iterable[np.ndarray],
    height: int,
    width: int,
    channels: int,
    format: str,
    metadata: Metadata,
    quality: int | None,
) -> None:
    """WebP and BMP, by Pillow."""
    picture = PIL.Image.new(_MODES[channels], (width, height))
    done = 0
    for strip in strips:
        pixels = strip[..., 0] if channels == 1 else strip
        picture.paste(PIL.Image.fromarray(np.ascontiguousarray(pixels)), (0, done))
        done += len(strip)
    if format == 'BMP':
        options = {'dpi': metadata.resolution} if metadata.resolution else {}
    else:
        options = {'icc_profile': metadata.icc, 'exif': metadata.exif, 'xmp': metadata.xmp}
        options |= {'lossless': True, 'exact': True} if quality is None else {'quality': quality}
    picture.save(file, format, **options)
