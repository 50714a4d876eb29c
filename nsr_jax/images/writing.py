"""Writes whole image files or none: 8-bit images as PNG, and any kind strip by strip in any format."""

import dataclasses
import io
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
import PIL.Image

from nsr_jax.atomic_files import make_output_folder, replacing, write_atomically
from nsr_jax.errors import UserError
from nsr_jax.images import jpeg_file, png_file, xmp
from nsr_jax.images.formats import check_output, check_quality
from nsr_jax.images.libvips import pyvips
from nsr_jax.images.metadata import Metadata, warn_left_out
from nsr_jax.images.tiff_file import write_tiff

JPEG_QUALITY = 95
_MODES = {1: 'L', 2: 'LA', 3: 'RGB', 4: 'RGBA'}  # Pillow's, by the number of channels
_GRAY, _COLOUR = b'GRAY', b'RGB '  # colour spaces of profiles
_READ_AT_ONCE = 2**20


def encode_png(image: np.ndarray) -> bytes:
    """The bytes of a PNG file of a uint8 image, (H, W, 3) RGB or (H, W, 1) or (H, W) gray.

    Raises:
        ValueError: the type or shape is another; floats are refused because the caller must choose how to round.
    """
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))):
        raise ValueError(f'image must be uint8 (H, W), (H, W, 1) or (H, W, 3), got {image.dtype} {image.shape}')
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(image)).save(buffer, format='PNG')
    return buffer.getvalue()


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write a uint8 image (as in `encode_png`) as a whole PNG file, and make its folder.

    Raises:
        UserError: the name does not end in .png, or the file cannot be written.
        ValueError: as in `encode_png`.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() != '.png':
        raise UserError(f'{path}: images are written as PNG, so the name must end in .png')
    data = encode_png(image)
    make_output_folder(path.parent)
    write_atomically(path, data)


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
    """Write an upright image, whose strips may be computed meanwhile.

    PNG, JPEG and TIFF hold a few strips at a time; the encoders of WebP and BMP need the whole picture, at four bytes a
    pixel and more. Strips are taken in this thread; their exceptions are raised, and no file remains then.

    Args:
        target: a path in an existing folder, where the file appears when it is whole; or a binary stream, which gets
            the whole file at the end.
        strips: (rows, width, channels) of dtype, from top to bottom, with straight alpha last.
        height: of the image.
        width: of the image.
        channels: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
        dtype: uint8 or uint16.
        format: one of `formats.FORMATS`.
        metadata: of the original image; size and orientation are adapted. None: none.
        quality: 1 to 100, of JPEG and WebP; None: JPEG of quality 95, lossless WebP.
        name: of the file in error messages; None: its path, or 'output'.

    Raises:
        UserError: the format or quality does not fit (before a strip is taken), or the file cannot be written.
        ValueError: the strips do not make up such an image.
    """
    is_path = isinstance(target, str | os.PathLike)
    name = name or (str(target) if is_path else 'output')
    dtype = np.dtype(dtype)
    check_output(format, height, width, channels, dtype, name)
    check_quality(format, quality)
    metadata = _fitted((metadata or Metadata()).of_upright(height, width), format, channels)
    shape = height, width, channels
    checked = _checked(strips, shape, dtype)

    def write(file: BinaryIO) -> None:
        if format == 'TIFF':
            write_tiff(file, checked, shape, dtype, metadata)
        elif format in ('PNG', 'JPEG'):
            _encode(file, png_file.bare_png(checked, shape, dtype), format, metadata, quality or JPEG_QUALITY)
        else:
            _write_whole(file, checked, shape, format, metadata, quality)

    try:
        if is_path:
            with replacing(target) as file:
                write(file)
        else:
            with tempfile.TemporaryFile() as file:
                write(file)
                file.seek(0)
                shutil.copyfileobj(file, target)
    except _StripsFailedError as failed:
        raise failed.error from None
    except (OSError, pyvips.Error) as error:
        reason = getattr(error, 'strerror', None) or ' '.join(str(error).split())
        raise UserError(f'{name}: cannot be written: {reason}') from error


def _fitted(metadata: Metadata, form: str, channels: int) -> Metadata:
    """The metadata that a file of a format can hold; a warning names the rest."""
    lost, claims, dropped = [], [], []
    if form != 'PNG':
        lost += png_file.names_of_kept(metadata.png_chunks, has_profile=bool(metadata.icc))
        dropped.append('png_chunks')
    if form != 'JPEG':
        lost += jpeg_file.names_of_kept(metadata.jpeg_segments)
        dropped.append('jpeg_segments')
    if png_file.CAPTION in lost:
        claims.append(xmp.CAPTION)
    if metadata.icc and (reason := _reason_against_profile(metadata.icc, form, channels)):
        lost.append(f'colour profile, {reason}')
        claims.append(xmp.PROFILE)
        dropped.append('icc')
    if form == 'BMP':
        lost += [name for name, part in (('EXIF', metadata.exif), ('XMP', metadata.xmp)) if part]
        dropped += ['exif', 'xmp']
    kept, found = dataclasses.replace(metadata, **dict.fromkeys(dropped, b'')).without(claims)
    warn_left_out(metadata.name, [*lost, *found], f'a {form} file cannot hold it')
    return kept


def _reason_against_profile(icc: bytes, form: str, channels: int) -> str | None:
    """Why a profile cannot be stored in a file; None if it can."""
    space = icc[16:20]
    if form == 'BMP':
        return 'for which it has no place'
    fits = space == (_GRAY if channels < 3 and form != 'WEBP' else _COLOUR)  # WebP stores gray as colours
    # An RGB profile defines gray, too, but PNG forbids it for gray images.
    if fits or (space == _COLOUR and form != 'PNG'):
        return None
    return f'which is for {space.decode("latin-1")!r} and does not fit {channels} channels'


class _StripsFailedError(Exception):
    """Computing the strips failed with an `OSError`, as opposed to writing them."""

    def __init__(self, error: OSError):
        super().__init__(error)
        self.error = error


def _checked(strips: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype) -> Iterator[np.ndarray]:
    """The strips without empty ones; raises `ValueError` if they do not make up such an image."""
    strips, done = iter(strips), 0
    while True:
        try:
            strip = next(strips, None)
        except OSError as error:
            raise _StripsFailedError(error) from error
        if strip is None:
            break
        done += len(strip)
        if strip.shape[1:] != shape[1:] or strip.dtype != dtype or done > shape[0]:
            place = f'in row {done - len(strip)} of an image of {dtype} {shape}'
            raise ValueError(f'a strip of {strip.dtype} {strip.shape} {place}')
        if len(strip):
            yield strip
    if done < shape[0]:
        raise ValueError(f'{done} rows of an image of {dtype} {shape}')


def _encode(file: BinaryIO, pieces: Iterable[bytes], form: str, metadata: Metadata, quality: int) -> None:
    """Encode the pieces of a bare PNG file (`png_file.bare_png`) as PNG or JPEG by libvips, in another thread.

    Pieces are made in the caller's thread, where they can be interrupted: in threads of libvips, Python would see
    neither signals nor exceptions. An `OSError` of the file is raised, and a `pyvips.Error` if libvips fails otherwise.
    """
    options: dict[str, Any] = {'keep': 'none'}
    if form == 'PNG':
        output = _Output(file, png_file.metadata_chunks(metadata), png_file.header_and_pixels)
        options |= {'compression': 6, 'filter': 'all'}
    else:
        output = _Output(file, jpeg_file.metadata_segments(metadata), jpeg_file.header_and_pixels)
        options['Q'] = quality
    failures: list[Exception] = []

    def write(data: bytes | bytearray | memoryview) -> int:
        try:
            output.write(bytes(data))
        except OSError as error:  # C code would not pass it on
            failures.append(error)
            return -1
        return len(data)

    def work(read_end: int) -> None:
        target = pyvips.TargetCustom()
        target.on_write(write)
        try:
            source = pyvips.Source.new_from_descriptor(read_end)
            image = pyvips.Image.pngload_source(source, access='sequential', fail_on='error', unlimited=True)
            save = image.pngsave_target if form == 'PNG' else image.jpegsave_target
            save(target, **options)
        except pyvips.Error as error:
            failures.append(error)
        finally:
            while os.read(read_end, _READ_AT_ONCE):  # or the writer would wait for room in the pipe
                pass

    read_end, write_end = os.pipe()
    thread = threading.Thread(target=work, args=(read_end,), daemon=True)
    thread.start()
    try:
        with open(write_end, 'wb') as pipe:  # if it is closed early, the encoder sees a truncated file, and stops
            for piece in pieces:
                pipe.write(piece)
                if failures:
                    break
    finally:
        thread.join()
        os.close(read_end)
    if failures:
        raise failures[0]


class _Output:
    """A file that gets our metadata between header and pixels, in place of the encoder's."""

    def __init__(self, file: BinaryIO, metadata: bytes, places: Callable[[bytes], tuple[int, int] | None]):
        self._file = file
        self._metadata = metadata
        self._places = places
        self._start: bytes | None = b''  # not written yet; None once the pixels have begun

    def write(self, data: bytes) -> None:
        if self._start is not None:
            self._start += data
            if (places := self._places(self._start)) is None:
                return
            data = self._start[: places[0]] + self._metadata + self._start[places[1] :]
            self._start = None
        self._file.write(data)


def _write_whole(
    file: BinaryIO,
    strips: Iterable[np.ndarray],
    shape: tuple[int, int, int],
    format: str,
    metadata: Metadata,
    quality: int | None,
) -> None:
    """WebP and BMP, by Pillow."""
    height, width, channels = shape
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
