"""Reading image files: one reader for training and evaluation, which compute with every pixel, and for restoring.

`read_image`, `decode_image` and `image_shape` take 8-bit gray and RGB alone and refuse all that would have to be
converted; `read_photo` takes photographs of any kind, with all that they say. Files are known by their first bytes. The
limits, and the errors that broken files end in, are the same.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import stat
import struct
from collections.abc import Collection, Iterator
from typing import IO, Any, BinaryIO

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageFile
from absl import logging
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from nsr_jax.atomic_files import read_bounded
from nsr_jax.errors import UserError
from nsr_jax.images import bmp_file, jpeg_file, png_file, tiff_file, webp_file, xmp
from nsr_jax.images.exif import orientation_of_exif
from nsr_jax.images.formats import FORMATS, format_of
from nsr_jax.images.libvips import pyvips
from nsr_jax.images.metadata import Metadata, warn_left_out
from nsr_jax.ops.upright import turn_upright

# A small file may claim to be a huge image, to fill the memory of whoever opens it.
LARGEST_PIXELS = 250_000_000
_BYTES_PER_PIXEL = 8  # of a file, at most: four channels of 16 bits
_METADATA_BYTES = 2**26
_RAISES_THE_LIMIT = 'largest_pixels, or LARGEST_PIXELS in nsr_jax/images/reading.py, raises the limit'
# Pillow joins the EXIF blocks of a JPEG file one by one, each time copying all before it.
_EXIF_HEAD, _MOST_EXIF_BLOCKS = b'Exif\0\0', 100

TRAINING_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp')
# Control characters, line ends, and the bytes of a file system that are not UTF-8.
_NO_NAME = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')

# `PIL.Image.open` has a limit of its own, and would look for further pictures in the file.
_PILLOW = {'PNG': PngImageFile, 'JPEG': JpegImageFile, 'BMP': BmpImageFile}
_LIBVIPS = {
    'PNG': pyvips.Image.pngload_buffer,
    'JPEG': pyvips.Image.jpegload_buffer,
    'TIFF': pyvips.Image.tiffload_buffer,
    'WEBP': pyvips.Image.webpload_buffer,
}
# How Pillow and libvips answer broken files.
_DECODER_ERRORS = (
    OSError, SyntaxError, EOFError, LookupError, ArithmeticError, TypeError, ValueError, struct.error, pyvips.Error,
)  # fmt: skip
# Of a PNG file: signature (8), chunk length (4), 'IHDR' (4), width (4), height (4), then the bits of a sample.
_PNG_BIT_DEPTH_OFFSET = 24

_PARTS = {'PNG': png_file, 'JPEG': jpeg_file, 'WEBP': webp_file}  # what else stands in a file
_DTYPES = {'uchar': np.uint8, 'ushort': np.uint16}
# What libvips calls the meaning of one or two channels, and of three or four.
_GRAY, _COLOUR = ('b-w', 'grey16'), ('srgb', 'rgb16')


@dataclasses.dataclass(frozen=True, eq=False)
class Photo:
    """A photograph as it came, but upright.

    Attributes:
        pixels: (H, W, 1) gray or (H, W, 3) RGB, uint8 or uint16, not multiplied by alpha.
        alpha: (H, W) of the same dtype, 0 where nothing is seen of a pixel; None: there is none.
        format: one of `formats.FORMATS`: what the file is, whatever its name.
        metadata: of the file.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    format: str
    metadata: Metadata


# --- The bytes of a file ---


def list_images(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The PNG, JPEG and BMP files directly in `folder` (not in its subfolders) that are not hidden, sorted by name.

    Raises:
        UserError: there is no such folder, no image in it, or one whose name does not pass `check_name`.
    """
    folder = pathlib.Path(folder)
    try:
        if not folder.is_dir():
            raise UserError(f'{folder}: no such folder of images')
        paths = [path for path in folder.iterdir() if path.suffix.lower() in TRAINING_SUFFIXES and path.name[0] != '.']
        images = sorted((path for path in paths if path.is_file()), key=lambda path: path.name)
    except OSError as error:
        raise UserError(f'{error.filename}: cannot be looked at: {error.strerror}') from error
    for path in images:
        check_name(path.name, folder)
    if not images:
        sought = ', '.join(TRAINING_SUFFIXES)
        raise UserError(f'{folder}: no image in this folder; files are sought that end in {sought}')
    return images


def check_name(name: str, place: str | os.PathLike) -> None:
    """Raise `UserError` for a file name in a folder or zip file that tables and messages could not hold."""
    if _NO_NAME.search(name):
        raise UserError(f'{place}: the name {name!r} has characters that are no text; give the file another one')


def check_file(path: str | os.PathLike) -> None:
    """Raise `UserError` as `read_file` does, without reading the file."""
    with _errors_named(str(path)):
        _size_of_file(pathlib.Path(path), LARGEST_PIXELS)


def read_file(path: str | os.PathLike, *, name: str | None = None, largest_pixels: int | None = None) -> bytes:
    """The bytes of an image file.

    Args:
        path: of the file.
        name: how errors call it; None: its path.
        largest_pixels: of any image that is accepted; None: `LARGEST_PIXELS`.

    Raises:
        UserError: it cannot be read, is no file, or is larger than any image that is accepted.
    """
    path = pathlib.Path(path)
    with _errors_named(name or str(path)):
        size = _size_of_file(path, largest_pixels or LARGEST_PIXELS)
        with _told_if_unreadable(), path.open('rb') as file:
            return _read_all(file, largest_pixels or LARGEST_PIXELS, size)


def read_stream(stream: IO[bytes], name: str, *, largest_pixels: int | None = None) -> bytes:
    """All that is left of an open image file, which may grow or unpack while it is read.

    Args:
        stream: the file.
        name: how errors call it.
        largest_pixels: as in `read_file`.

    Raises:
        UserError: it cannot be read, or is larger than any image that is accepted.
    """
    with _errors_named(name), _told_if_unreadable():
        return _read_all(stream, largest_pixels or LARGEST_PIXELS)


def _size_of_file(path: pathlib.Path, largest_pixels: int) -> int:
    with _told_if_unreadable():
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device may never end
        raise UserError('cannot be read: not a file')
    _check_bytes(status.st_size, largest_pixels)
    return status.st_size


def _read_all(stream: IO[bytes], largest_pixels: int, expected: int = 0) -> bytes:
    data = read_bounded(stream, _largest_file(largest_pixels), expected)
    _check_bytes(len(data), largest_pixels)
    return data


def _largest_file(largest_pixels: int) -> int:
    return _BYTES_PER_PIXEL * largest_pixels + _METADATA_BYTES


def _check_bytes(size: int, largest_pixels: int) -> None:
    if size > _largest_file(largest_pixels):
        raise UserError(f'a larger file than any image of {largest_pixels:,} pixels; {_RAISES_THE_LIMIT}')


def _check_pixels(width: int, height: int, largest_pixels: int) -> None:
    if width * height > largest_pixels:
        accepted = f'more than the {largest_pixels:,} that are accepted'
        raise UserError(f'{width}x{height} pixels are {accepted}; {_RAISES_THE_LIMIT}')


def _format_of(data: bytes, accepted: Collection[str]) -> str:
    """Which of the accepted formats a file is, by its first bytes."""
    form = format_of(data)
    if form is None or form not in accepted:
        *most, last = (name.replace('WEBP', 'WebP') for name in accepted)
        raise UserError(f'not a {", ".join(most)} or {last} image' if data else 'an empty file')
    if data.count(_EXIF_HEAD) > _MOST_EXIF_BLOCKS:
        raise UserError(f'more than {_MOST_EXIF_BLOCKS} blocks of EXIF in one file')
    return form


# --- Errors ---


@contextlib.contextmanager
def _errors_named(name: str) -> Iterator[None]:
    """Tell what goes wrong with an image in one line that begins with its name."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{name}: {error}') from error
    except MemoryError as error:
        raise UserError(f'{name}: too large for the memory of this machine') from error
    except _DECODER_ERRORS as error:
        # libvips tells what led to what; its last line is about the cause.
        lines = (error.detail if isinstance(error, pyvips.Error) else str(error)).strip().splitlines()
        reason = lines[-1].strip() if lines else type(error).__name__
        raise UserError(f'{name}: broken, truncated or of an unknown kind: {reason}') from error


@contextlib.contextmanager
def _told_if_unreadable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f'cannot be read: {error.strerror or error}') from error


# --- 8-bit gray and RGB, by Pillow ---


def read_image(path: str | os.PathLike) -> np.ndarray:
    """The image in a file: uint8, (H, W, 3) RGB or (H, W, 1) gray. Errors as of `read_file` and `decode_image`."""
    return decode_image(read_file(path), str(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode the bytes of a PNG, JPEG or BMP file, turned upright as its EXIF orientation says.

    Args:
        data: the bytes of the file.
        name: how errors call the image.

    Returns:
        uint8, (H, W, 3) RGB or (H, W, 1) gray.

    Raises:
        UserError: a broken or truncated file, another format, more pixels than `LARGEST_PIXELS`, or an image that is
          not 8-bit gray or RGB (a palette, alpha, 1 bit, 16 bits, CMYK): converting would change the pixels that scores
          are computed from.
    """
    with _errors_named(name), _opened_by_pillow(data, _format_of(data, _PILLOW), LARGEST_PIXELS) as image:
        mode = _mode(image, data)
        if mode not in ('L', 'RGB'):
            raise UserError(f'image of mode {mode}; accepted are 8-bit gray (L) and 8-bit RGB')
        pixels = np.array(image)
        orientation = image.getexif().get(PIL.ExifTags.Base.Orientation)
    pixels = np.ascontiguousarray(turn_upright(pixels, orientation))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def image_shape(data: bytes, name: str) -> tuple[int, int, int]:
    """Height, width and channels by the header, before the image is turned upright. Errors as of `decode_image`."""
    with _errors_named(name), _opened_by_pillow(data, _format_of(data, _PILLOW), LARGEST_PIXELS) as image:
        return image.height, image.width, len(image.getbands())


@contextlib.contextmanager
def _opened_by_pillow(data: bytes, form: str, largest_pixels: int) -> Iterator[PIL.ImageFile.ImageFile]:
    """The image by its header, not decoded."""
    with _PILLOW[form](io.BytesIO(data)) as image:
        _check_pixels(image.width, image.height, largest_pixels)
        yield image


def _mode(image: PIL.Image.Image, data: bytes) -> str:
    """Pillow's mode, but telling what Pillow would drop in silence: 16-bit RGB and a transparent colour of PNG."""
    if image.format == 'PNG' and data[_PNG_BIT_DEPTH_OFFSET] == 16:
        return f'{image.mode} with 16 bits'
    if 'transparency' in image.info:
        return f'{image.mode} with transparency'
    return image.mode


# --- Photographs of any kind, by libvips (and BMP by Pillow) ---


def read_photo(
    source: str | os.PathLike | bytes | BinaryIO, *, name: str | None = None, largest_pixels: int | None = None
) -> Photo:
    """Read a PNG, JPEG, TIFF, WebP or BMP image.

    Palettes become RGB (but gray ones of TIFF gray), and 1 to 4 bits become 8. Values are not converted: the colour
    profile is kept beside them. Of a JPEG file with several pictures (a gain map, a second lens), the first is
    read, and of a TIFF file the one that is no smaller version of another. A channel beside the colours is alpha
    where the file says so; others are left out, and so is what a file holds beside its picture and cannot be kept; a
    warning says what. The file must be held in memory beside its pixels.

    Args:
        source: a file, the bytes of one, or a binary stream, which is read to its end or until it is too long.
        name: how errors call it; None: its path, or 'image'.
        largest_pixels: how many pixels an image may have; None: `LARGEST_PIXELS`.

    Raises:
        UserError: no such file, a broken or truncated one, an image of other kinds (CMYK, floats, more channels,
            several frames or pages), or a larger one. The line begins with the name.
    """
    is_path = isinstance(source, str | os.PathLike)
    name = name or (str(source) if is_path else 'image')
    if isinstance(source, bytes):
        data = source
    elif is_path:
        data = read_file(source, name=name, largest_pixels=largest_pixels)
    else:
        data = read_stream(source, name, largest_pixels=largest_pixels)
    with _errors_named(name):
        form = _format_of(data, FORMATS)
        if form == 'BMP':
            return _read_bmp(data, name, largest_pixels or LARGEST_PIXELS)
        return _read(data, form, name, largest_pixels or LARGEST_PIXELS)


def _read_bmp(data: bytes, name: str, largest_pixels: int) -> Photo:
    with _opened_by_pillow(data, 'BMP', largest_pixels) as image:
        samples = bmp_file.samples_of(image, data)
        resolution = image.info.get('dpi')
    metadata = Metadata(icc=bmp_file.profile(data), resolution=_plausible(resolution), name=name)
    return _photo(samples.reshape(*samples.shape[:2], -1), 'BMP', metadata)


def _read(data: bytes, form: str, name: str, largest_pixels: int) -> Photo:
    picture = tiff_file.find_picture(data) if form == 'TIFF' else None
    lacks_end = form == 'JPEG' and jpeg_file.end_of_picture(data) is None
    if lacks_end:
        data = jpeg_file.without_end(data)
    image = _open(data + jpeg_file.END if lacks_end else data, form, picture)
    colours, alpha = (tiff_file.alpha_of(picture) if picture else None) or (image.bands, None)
    bands = colours + (alpha is not None)
    meaning = {1: _GRAY, 2: _GRAY, 3: _COLOUR, 4: _COLOUR}.get(bands, ())
    if image.format not in _DTYPES or image.interpretation not in meaning:
        raise UserError(
            f'an image of {image.bands} channels of type {image.format}, {image.interpretation}; accepted are gray and '
            'RGB of 8 or 16 bits, with or without alpha'
        )
    _check_pixels(image.width, image.height, largest_pixels)
    lost = tiff_file.left_out(picture) if picture else _PARTS[form].left_out(data)
    if image.bands > bands:
        lost.append(f'further channels ({image.bands - bands}) that the file does not call transparency')
        kept = image.extract_band(0, n=colours)
        image = kept if alpha is None else kept.bandjoin(image.extract_band(alpha))
    samples = np.frombuffer(image.write_to_memory(), _DTYPES[str(image.format)])
    if lacks_end:
        if not jpeg_file.is_whole(data, samples):
            raise UserError('truncated: a part of the picture is missing')
        logging.warning('%s: the end of the file is missing; the picture is whole and was read', name)
    samples = samples.reshape(image.height, image.width, bands)
    metadata, orientation = _metadata(image, data, form, picture, name)
    metadata, found = metadata.without((*xmp.FURTHER_PICTURES, *([xmp.REGIONS] if metadata.turned else [])))
    warn_left_out(name, [*lost, *found], 'it is not of the restored picture or has no place beside it')
    return _photo(samples, form, metadata, orientation)


def _open(data: bytes, form: str, picture: tiff_file.Picture | None) -> pyvips.Image:
    pages: dict[str, Any] = {'page': picture.page} if picture else {}
    image = _LIBVIPS[form](data, access='sequential', fail_on='error', **pages)
    frames = png_file.number_of_frames(data) if form == 'PNG' else _field(image, 'n-pages') or 1
    if frames > 1 and not picture:
        raise UserError(f'{frames} frames or pages in one file; save them as one file each')
    return image


def _photo(samples: np.ndarray, form: str, metadata: Metadata, orientation: int = 1) -> Photo:
    samples = turn_upright(samples, orientation)
    if samples.shape[-1] in (2, 4):
        pixels, alpha = np.ascontiguousarray(samples[..., :-1]), np.ascontiguousarray(samples[..., -1])
    else:
        pixels, alpha = np.ascontiguousarray(samples), None
    return Photo(pixels, alpha, form, metadata)


def _metadata(
    image: pyvips.Image, data: bytes, form: str, picture: tiff_file.Picture | None, name: str
) -> tuple[Metadata, int]:
    """What a file says beside its pixels, and its orientation, for which EXIF counts more than XMP."""
    icc = png_file.profile(data) if form == 'PNG' else _field(image, 'icc-profile-data') or b''
    if picture:
        exif, packet = tiff_file.exif_and_xmp(data, picture)
        oriented = tiff_file.orientation(picture)
    else:
        exif, packet = _PARTS[form].exif_and_xmp(data)
        exif = exif.removeprefix(_EXIF_HEAD)
        oriented = orientation_of_exif(exif)
    orientation = oriented or xmp.orientation_of_xmp(packet) or 1
    resolution = None
    if form == 'PNG':
        resolution = png_file.resolution(data)
    elif form != 'WEBP' and _field(image, 'resolution-unit'):  # WebP has none but in its EXIF
        resolution = image.xres * 25.4, image.yres * 25.4  # libvips counts pixels in a millimetre
    if resolution and orientation > 4:  # it lies on its side
        resolution = resolution[1], resolution[0]
    metadata = Metadata(
        icc=icc,
        exif=exif,
        xmp=packet,
        resolution=_plausible(resolution),
        png_chunks=png_file.kept_chunks(data) if form == 'PNG' else b'',
        jpeg_segments=jpeg_file.kept_segments(data) if form == 'JPEG' else b'',
        turned=orientation > 1,
        name=name,
    )
    return metadata, orientation


def _plausible(resolution: tuple[float, float] | None) -> tuple[float, float] | None:
    """The resolution, unless it is beyond all that any format holds."""
    return resolution if resolution and all(0 < each < 1e6 for each in resolution) else None


def _field(image: pyvips.Image, name: str) -> Any:
    return image.get(name) if image.get_typeof(name) else None
