"""Reads image files for training, evaluation and restoring.

`read_image`, `decode_image` and `image_shape` accept only 8-bit gray and RGB, so that pixels are never converted;
`read_opaque` also takes these from TIFF and WebP, and from beside alpha that hides nothing. `read_photo` reads
photographs of any kind with their metadata, `photo_size` their size alone, and `read_plain` converts them to 8-bit gray
and RGB.
Formats are recognized by the first bytes of a file. The limits and the errors are the same for all.
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
from nsr_jax.images.exif import ORIENTATION, ORIENTATIONS, orientation_of_exif
from nsr_jax.images.formats import FORMATS, SIGNATURE_BYTES, SUFFIXES, format_of
from nsr_jax.images.libvips import pyvips
from nsr_jax.images.metadata import Metadata, warn_left_out
from nsr_jax.ops.upright import turn_upright

# A small file may claim to be a huge image, to fill the reader's memory.
LARGEST_PIXELS = 250_000_000
_BYTES_PER_PIXEL = 8  # at most, in a file: four channels of 16 bits
_METADATA_BYTES = 2**26
_RAISES_THE_LIMIT = 'largest_pixels, or LARGEST_PIXELS in nsr_jax/images/reading.py, raises the limit'
# Pillow joins the EXIF blocks of a JPEG file one by one, each time copying all before it.
_EXIF_HEAD, _MOST_EXIF_BLOCKS = b'Exif\0\0', 100

# Of benchmark sets and of training sets that are known by name, which are never converted.
SET_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp')
# Control characters, line ends, and the bytes of a file system that are not UTF-8.
_NO_NAME = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')

# `PIL.Image.open` has a limit of its own and would look for further pictures in the file.
_PILLOW = {'PNG': PngImageFile, 'JPEG': JpegImageFile, 'BMP': BmpImageFile}
_ALPHA_MODES = ('LA', 'RGBA', 'L with transparency', 'RGB with transparency')  # as `_mode` names them
_LIBVIPS = {
    'PNG': pyvips.Image.pngload_buffer,
    'JPEG': pyvips.Image.jpegload_buffer,
    'TIFF': pyvips.Image.tiffload_buffer,
    'WEBP': pyvips.Image.webpload_buffer,
}
_LIBVIPS_FILES = {
    'PNG': pyvips.Image.pngload,
    'JPEG': pyvips.Image.jpegload,
    'TIFF': pyvips.Image.tiffload,
    'WEBP': pyvips.Image.webpload,
}
# What Pillow and libvips raise for broken files.
_DECODER_ERRORS = (
    OSError, SyntaxError, EOFError, LookupError, ArithmeticError, TypeError, ValueError, struct.error, pyvips.Error,
)  # fmt: skip
# A PNG file begins with signature (8), chunk length (4), 'IHDR' (4), width (4), height (4) and the bits of a sample.
_PNG_BIT_DEPTH_OFFSET = 24

_PARTS = {'PNG': png_file, 'JPEG': jpeg_file, 'WEBP': webp_file}  # readers of metadata
_DTYPES = {'uchar': np.uint8, 'ushort': np.uint16}
# Interpretations in libvips by the number of channels.
_GRAY, _COLOUR = ('b-w', 'grey16'), ('srgb', 'rgb16')
_MEANINGS = {1: _GRAY, 2: _GRAY, 3: _COLOUR, 4: _COLOUR}


@dataclasses.dataclass(frozen=True, eq=False)
class Photo:
    """An upright photograph.

    Attributes:
        pixels: (H, W, 1) gray or (H, W, 3) RGB, uint8 or uint16, not multiplied by alpha.
        alpha: (H, W) of the same dtype, 0 where a pixel is transparent; None: there is none.
        format: one of `formats.FORMATS`, by the contents of the file.
        metadata: of the file.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    format: str
    metadata: Metadata


# --- The bytes of a file ---


def list_images(folder: str | os.PathLike, suffixes: Collection[str] = SET_SUFFIXES) -> list[pathlib.Path]:
    """The files directly in `folder` with one of these suffixes, in any case, that are not hidden, sorted by name.

    Raises:
        UserError: there is no such folder, no image in it, or one whose name does not pass `check_name`.
    """
    folder = pathlib.Path(folder)
    try:
        if not folder.is_dir():
            raise UserError(f'{folder}: no such folder of images')
        paths = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.name[0] != '.']
        images = sorted((path for path in paths if path.is_file()), key=lambda path: path.name)
    except OSError as error:
        raise UserError(f'{error.filename}: cannot be read: {error.strerror}') from error
    for path in images:
        check_name(path.name, folder)
    if not images:
        raise UserError(f'{folder}: no image in this folder (no file in {", ".join(suffixes)})')
    return images


def list_photos(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The PNG, JPEG, TIFF, WebP and BMP files in `folder` and its subfolders, by suffix, sorted by their paths.

    Hidden files and folders, and links to folders, are passed over.

    Raises:
        UserError: a folder cannot be read, there is no image, or a path does not pass `check_name`.
    """
    folder, found = pathlib.Path(folder), []

    def refuse(error: OSError) -> None:
        raise UserError(f'{error.filename}: cannot be read: {error.strerror}') from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if name[0] != '.']
        paths = [pathlib.Path(place, name) for name in files if name[0] != '.']
        found += [path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file()]
    for path in found:
        check_name(str(path.relative_to(folder)), folder)
    if not found:
        raise UserError(f'{folder}: no image in this folder or below (no file in {", ".join(SUFFIXES)})')
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def check_name(name: str, place: str | os.PathLike) -> None:
    """Raise `UserError` for a file name in a folder or zip file that cannot be printed in tables and messages."""
    if _NO_NAME.search(name):
        raise UserError(f'{place}: the name {name!r} has characters that are not text; rename the file')


def check_file(path: str | os.PathLike) -> None:
    """Raise `UserError` as `read_file` does, without reading the file."""
    with _errors_named(str(path)):
        _size_of_file(pathlib.Path(path), LARGEST_PIXELS)


def read_file(path: str | os.PathLike, *, name: str | None = None, largest_pixels: int | None = None) -> bytes:
    """The bytes of an image file.

    Args:
        path: of the file.
        name: of the file in error messages; None: its path.
        largest_pixels: limit for an image; None: `LARGEST_PIXELS`.

    Raises:
        UserError: it cannot be read, is not a regular file, or is larger than any accepted image.
    """
    path = pathlib.Path(path)
    with _errors_named(name or str(path)):
        size = _size_of_file(path, largest_pixels or LARGEST_PIXELS)
        with path.open('rb') as file:
            return _read_all(file, largest_pixels or LARGEST_PIXELS, size)


def read_stream(stream: IO[bytes], name: str, *, largest_pixels: int | None = None) -> bytes:
    """The rest of an open image file, which may grow or unpack while it is read; arguments as in `read_file`.

    Raises:
        UserError: it cannot be read, or is larger than any accepted image.
    """
    with _errors_named(name):
        return _read_all(stream, largest_pixels or LARGEST_PIXELS)


def _size_of_file(path: pathlib.Path, largest_pixels: int) -> int:
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
        most = f'the {largest_pixels:,} that are accepted; {_RAISES_THE_LIMIT}'
        raise UserError(f'{width}x{height} pixels are more than {most}')


def _format_of(data: bytes, accepted: Collection[str]) -> str:
    """The format of a file by its first bytes; raises `UserError` unless it is accepted."""
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
    """Turn errors of an image into one line that begins with its name."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{name}: {error}') from error
    except MemoryError as error:
        raise UserError(f'{name}: too large for the memory of this machine') from error
    except _DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.strerror:  # of the operating system, not of a decoder
            raise UserError(f'{name}: cannot be read: {error.strerror}') from error
        # libvips gives a chain of errors; its last line is the cause.
        lines = (error.detail if isinstance(error, pyvips.Error) else str(error)).strip().splitlines()
        reason = lines[-1].strip() if lines else type(error).__name__
        raise UserError(f'{name}: broken, truncated or of an unknown kind: {reason}') from error


# --- 8-bit gray and RGB, by Pillow ---


def read_image(path: str | os.PathLike) -> np.ndarray:
    """The image in a file: uint8, (H, W, 3) RGB or (H, W, 1) gray; errors as in `read_file` and `decode_image`."""
    return decode_image(read_file(path), str(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode the bytes of a PNG, JPEG or BMP file, turned upright as its EXIF orientation says.

    Args:
        data: the bytes of the file.
        name: of the image, for error messages.

    Returns:
        uint8, (H, W, 3) RGB or (H, W, 1) gray.

    Raises:
        UserError: the file is broken or of another format, has more than `LARGEST_PIXELS`, or is not 8-bit gray or RGB
            (but has a palette, alpha, 1 bit, 16 bits or CMYK): a conversion would change pixels and thus scores.
    """
    with _errors_named(name), _opened_by_pillow(data, _format_of(data, _PILLOW), LARGEST_PIXELS) as image:
        mode = _mode(image, data)
        if mode not in ('L', 'RGB'):
            raise UserError(f'image of mode {mode}; accepted are 8-bit gray (L) and 8-bit RGB')
        pixels = np.array(image)
        orientation = image.getexif().get(PIL.ExifTags.Base.Orientation)
    pixels = np.ascontiguousarray(turn_upright(pixels, orientation))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def read_opaque(path: str | os.PathLike) -> np.ndarray:
    """The image in a file that any tool may have written, without converting pixels.

    What `read_image` takes, and also 8-bit gray and RGB in TIFF and WebP files, and beside alpha that is opaque in
    every pixel, which is dropped.

    Returns:
        uint8, (H, W, 3) RGB or (H, W, 1) gray.

    Raises:
        UserError: as in `read_image` and `read_photo`; or a pixel is not opaque, or samples have 16 bits.
    """
    data, name = read_file(path), str(path)
    with _errors_named(name):
        form = _format_of(data, FORMATS)
        if form in _PILLOW:
            with _opened_by_pillow(data, form, LARGEST_PIXELS) as image:
                mode = _mode(image, data)
    if form in _PILLOW and mode not in _ALPHA_MODES:
        return decode_image(data, name)
    photo, accepted = read_photo(data, name=name), 'accepted are 8-bit gray and RGB, without alpha or with opaque alpha'
    if photo.pixels.dtype != np.uint8:
        raise UserError(f'{name}: an image of 16 bits; {accepted}')
    if photo.alpha is not None and photo.alpha.min() < 255:
        raise UserError(f'{name}: its alpha is not opaque: {np.mean(photo.alpha < 255):.1%} of the pixels; {accepted}')
    return photo.pixels


def read_plain(data: bytes, name: str) -> np.ndarray:
    """As `decode_image`, for the bytes of a photograph of any kind that `read_photo` takes; errors as there.

    Palettes become colours, 16 bits are rounded to 8, and transparent colours lie on black, as networks see them.
    """
    photo = read_photo(data, name=name)
    most = np.iinfo(photo.pixels.dtype).max
    values = photo.pixels / np.float64(most)
    if photo.alpha is not None:
        values *= photo.alpha[..., None] / np.float64(most)
    return np.rint(255 * values).astype(np.uint8)


def image_shape(data: bytes, name: str) -> tuple[int, int, int]:
    """Height, width and channels in the header, before turning upright; errors as in `decode_image`."""
    with _errors_named(name), _opened_by_pillow(data, _format_of(data, _PILLOW), LARGEST_PIXELS) as image:
        return image.height, image.width, len(image.getbands())


@contextlib.contextmanager
def _opened_by_pillow(data: bytes, form: str, largest_pixels: int) -> Iterator[PIL.ImageFile.ImageFile]:
    """The image, whose header is read but whose pixels are not decoded yet."""
    with _PILLOW[form](io.BytesIO(data)) as image:
        _check_pixels(image.width, image.height, largest_pixels)
        yield image


def _mode(image: PIL.Image.Image, data: bytes) -> str:
    """Pillow's mode, plus what Pillow would silently drop: 16-bit RGB and a transparent colour of PNG."""
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

    Palettes become RGB (gray ones of TIFF become gray), and 1 to 4 bits become 8. Values are not converted: the colour
    profile is kept beside them. From a JPEG file with several pictures (a gain map, a second lens) the first is read,
    from a TIFF file the one that is not a smaller version of another. A further channel is alpha if the file says so.
    Other channels, and other contents that cannot be kept, are left out with a warning that names them. The file is
    held in memory beside its pixels.

    Args:
        source: a path, the bytes of a file, or a binary stream, which is read to its end unless it is too long.
        name: of the image in error messages; None: its path, or 'image'.
        largest_pixels: limit for the image; None: `LARGEST_PIXELS`.

    Raises:
        UserError: the file is missing, broken, too large, or of another kind (CMYK, floats, more channels, several
            frames or pages). The line begins with the name.
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


def photo_size(path: str | os.PathLike) -> tuple[int, int] | None:
    """Height and width in the header of a photograph, which alone is read, before turning upright.

    Of a TIFF file with several pictures they are those of the first one. None: it cannot be read, is not a regular
    file, or is no image that `read_photo` takes; `read_photo` says why.
    """
    try:
        if not os.path.isfile(path):  # a pipe may never end
            return None
        with open(path, 'rb') as file:
            form = format_of(file.read(SIGNATURE_BYTES))
            if form == 'BMP':
                file.seek(0)
                with BmpImageFile(file) as bitmap:
                    return bitmap.height, bitmap.width
        if form is None:
            return None
        image = _LIBVIPS_FILES[form](os.fspath(path), access='sequential')
        return image.height, image.width
    except _DECODER_ERRORS:
        return None


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
    if image.format not in _DTYPES or image.interpretation not in _MEANINGS.get(bands, ()):
        raise UserError(
            f'an image of {image.bands} channels of type {image.format}, {image.interpretation}; accepted are gray and '
            'RGB of 8 or 16 bits, with or without alpha'
        )
    _check_pixels(image.width, image.height, largest_pixels)
    lost = tiff_file.left_out(picture) if picture else _PARTS[form].left_out(data)
    if image.bands > bands:
        lost.append(f'further channels ({image.bands - bands}) that the file does not mark as transparency')
        kept = image.extract_band(0, n=colours)
        image = kept if alpha is None else kept.bandjoin(image.extract_band(alpha))
    samples = np.frombuffer(image.write_to_memory(), _DTYPES[str(image.format)])
    if lacks_end:
        if not jpeg_file.is_whole(data, samples):
            raise UserError('truncated: a part of the picture is missing')
        logging.warning('%s: the end of the file is missing, but the picture is complete and was read', name)
    samples = samples.reshape(image.height, image.width, bands)
    metadata, orientation = _metadata(image, data, form, picture, name)
    metadata, found = metadata.without((*xmp.FURTHER_PICTURES, *([xmp.REGIONS] if metadata.turned else [])))
    warn_left_out(name, [*lost, *found], 'it does not apply to the restored picture or cannot be stored with it')
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
    """The metadata of a file, and its orientation, for which EXIF overrides XMP."""
    icc = png_file.profile(data) if form == 'PNG' else _field(image, 'icc-profile-data') or b''
    if picture:
        exif, packet = tiff_file.exif_and_xmp(data, picture)
        orientation = picture.number(ORIENTATION)
    else:
        exif, packet = _PARTS[form].exif_and_xmp(data)
        exif = exif.removeprefix(_EXIF_HEAD)
        orientation = orientation_of_exif(exif)
    if orientation is None or orientation not in ORIENTATIONS:
        orientation = xmp.orientation_of_xmp(packet) or 1
    resolution = None
    if form == 'PNG':
        resolution = png_file.resolution(data)
    elif form != 'WEBP' and _field(image, 'resolution-unit'):  # WebP has one only in its EXIF
        resolution = image.xres * 25.4, image.yres * 25.4  # libvips counts pixels per millimetre
    if resolution and orientation > 4:  # the image is on its side
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
    """The resolution, or None if no format could store it."""
    return resolution if resolution and all(0 < each < 1e6 for each in resolution) else None


def _field(image: pyvips.Image, name: str) -> Any:
    return image.get(name) if image.get_typeof(name) else None
