"""Reading photographs of any kind: gray or RGB, with or without alpha, of 8 or 16 bits, with all that they say."""

import dataclasses
import os
import pathlib
import stat
import struct
from typing import BinaryIO

import numpy as np
from absl import logging

from nsr_jax.atomic_files import read_bounded
from nsr_jax.errors import UserError
from nsr_jax.images import bmp_file, jpeg_file, jpeg_scans, png_file, tiff_file, tiff_pictures, webp_file, xmp
from nsr_jax.images.exif import orientation_of_exif, orientation_of_xmp
from nsr_jax.images.formats import format_of
from nsr_jax.images.libvips import pyvips
from nsr_jax.images.metadata import Metadata, warn_left_out
from nsr_jax.ops.upright import turn_upright

LARGEST_PIXELS = 250_000_000
_BYTES_PER_PIXEL = 8  # at most: four channels of 16 bits
_METADATA_BYTES = 2**26

_LOADERS = {
    'PNG': pyvips.Image.pngload_buffer,
    'JPEG': pyvips.Image.jpegload_buffer,
    'WEBP': pyvips.Image.webpload_buffer,
}
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


def read_photo(
    source: str | os.PathLike | bytes | BinaryIO, *, name: str | None = None, largest_pixels: int = LARGEST_PIXELS
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
        largest_pixels: how many pixels an image may have. A small file may claim to be a huge image, to fill the memory
            of whoever opens it.

    Raises:
        UserError: no such file, a broken or truncated one, an image of other kinds (CMYK, floats, more channels,
            several frames or pages), or a larger one. The line begins with the name.
    """
    is_path = isinstance(source, str | os.PathLike)
    name = name or (str(source) if is_path else 'image')
    if isinstance(source, bytes):
        data = source
    elif is_path:
        data = _bytes_of_file(pathlib.Path(source), name, largest_pixels)
    else:
        data = _bytes_of_stream(source, name, largest_pixels)
    form = format_of(data)
    if form is None:
        raise UserError(f'{name}: {"not a PNG, JPEG, TIFF, WebP or BMP image" if data else "an empty file"}')
    try:
        return _read_bmp(data, name, largest_pixels) if form == 'BMP' else _read(data, form, name, largest_pixels)
    except UserError as error:
        raise UserError(f'{name}: {error}') from error
    except pyvips.Error as error:
        raise UserError(f'{name}: broken, truncated or of an unknown kind: {_reason(error)}') from error
    except MemoryError as error:
        raise UserError(f'{name}: too large for the memory of this machine') from error
    # Pillow's decoders answer broken files with any of these.
    except (OSError, SyntaxError, EOFError, LookupError, ArithmeticError, TypeError, ValueError, struct.error) as error:
        raise UserError(f'{name}: broken, truncated or of an unknown kind: {error}') from error


def _bytes_of_file(path: pathlib.Path, name: str, largest_pixels: int) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device may never end
            raise UserError(f'{name}: not a file')
        _check_bytes(status.st_size, name, largest_pixels)
        with path.open('rb') as file:
            return _bytes_of_stream(file, name, largest_pixels, status.st_size)
    except OSError as error:
        raise UserError(f'{name}: cannot be read: {error.strerror}') from error


def _bytes_of_stream(stream: BinaryIO, name: str, largest_pixels: int, expected: int = 0) -> bytes:
    try:
        data = read_bounded(stream, _largest_file(largest_pixels), expected)
    except MemoryError as error:
        raise UserError(f'{name}: too large for the memory of this machine') from error
    _check_bytes(len(data), name, largest_pixels)
    return data


def _largest_file(largest_pixels: int) -> int:
    return _BYTES_PER_PIXEL * largest_pixels + _METADATA_BYTES


def _check_bytes(size: int, name: str, largest_pixels: int) -> None:
    if size > _largest_file(largest_pixels):
        raise UserError(
            f'{name}: a larger file than any image of {largest_pixels:,} pixels, which are accepted; largest_pixels '
            'raises the limit'
        )


def _read(data: bytes, form: str, name: str, largest_pixels: int) -> Photo:
    picture = tiff_pictures.find_picture(data) if form == 'TIFF' else None
    lacks_end = form == 'JPEG' and jpeg_scans.end_of_picture(data) is None
    if lacks_end:
        data = jpeg_scans.without_end(data)
    image = _open(data + jpeg_scans.END if lacks_end else data, form, picture)
    colours, alpha = (tiff_pictures.alpha_of(data, picture) if picture else None) or (image.bands, None)
    bands = colours + (alpha is not None)
    meaning = {1: _GRAY, 2: _GRAY, 3: _COLOUR, 4: _COLOUR}.get(bands, ())
    if image.format not in _DTYPES or image.interpretation not in meaning:
        raise UserError(
            f'an image of {image.bands} channels of type {image.format}, {image.interpretation}; accepted are gray and '
            'RGB of 8 or 16 bits, with or without alpha'
        )
    _check_size(image.width, image.height, largest_pixels)
    lost = _left_out(data, form, picture)
    if image.bands > bands:
        lost.append(f'further channels ({image.bands - bands}) that the file does not call transparency')
        parts = [image.extract_band(0, n=colours), *([] if alpha is None else [image.extract_band(alpha)])]
        image = parts[0].bandjoin(parts[1:]) if alpha else parts[0]
    samples = np.frombuffer(image.write_to_memory(), _DTYPES[image.format])
    if lacks_end:
        if not jpeg_scans.is_whole(data, samples):
            raise UserError('truncated: a part of the picture is missing')
        logging.warning('%s: the end of the file is missing; the picture is whole and was read', name)
    samples = samples.reshape(image.height, image.width, bands)
    metadata, orientation = _metadata(image, data, form, picture, name)
    metadata, found = metadata.without((*xmp.FURTHER_PICTURES, *([xmp.REGIONS] if metadata.turned else [])))
    warn_left_out(name, [*lost, *found], 'it is not of the restored picture or has no place beside it')
    return _photo(samples, form, metadata, orientation)


def _open(data: bytes, form: str, picture: tiff_pictures.Picture | None) -> pyvips.Image:
    options = {'access': 'sequential', 'fail_on': 'error'}
    if picture:
        return pyvips.Image.tiffload_buffer(data, page=picture.page, **options)
    image = _LOADERS[form](data, **options)
    frames = png_file.number_of_frames(data) if form == 'PNG' else _field(image, 'n-pages') or 1
    if frames > 1:
        raise UserError(f'{frames} frames or pages in one file; save them as one file each')
    return image


def _left_out(data: bytes, form: str, picture: tiff_pictures.Picture | None) -> list[str]:
    """What of a file is not kept beside the picture; not told of XMP."""
    if picture:
        smaller = [f'smaller versions or masks ({picture.others})'] if picture.others else []
        return smaller + tiff_pictures.left_out(data, picture)
    return {'PNG': png_file, 'JPEG': jpeg_file, 'WEBP': webp_file}[form].left_out(data)


def _read_bmp(data: bytes, name: str, largest_pixels: int) -> Photo:
    with bmp_file.open_bmp(data) as image:
        _check_size(*image.size, largest_pixels)
        samples = bmp_file.samples_of(image, data)
        across, down = image.info.get('dpi', (0, 0))
    metadata = Metadata(icc=bmp_file.profile(data), resolution=_plausible((across, down)), name=name)
    return _photo(samples.reshape(*samples.shape[:2], -1), 'BMP', metadata)


def _check_size(width: int, height: int, largest_pixels: int) -> None:
    if width * height > largest_pixels:
        raise UserError(
            f'{width}x{height} pixels are more than the {largest_pixels:,} that are accepted; largest_pixels raises '
            'the limit'
        )


def _photo(samples: np.ndarray, form: str, metadata: Metadata, orientation: int = 1) -> Photo:
    samples = turn_upright(samples, orientation)
    if samples.shape[-1] in (2, 4):
        pixels, alpha = np.ascontiguousarray(samples[..., :-1]), np.ascontiguousarray(samples[..., -1])
    else:
        pixels, alpha = np.ascontiguousarray(samples), None
    return Photo(pixels, alpha, form, metadata)


def _metadata(
    image: pyvips.Image, data: bytes, form: str, picture: tiff_pictures.Picture | None, name: str
) -> tuple[Metadata, int]:
    """What a file says beside its pixels, and its orientation, for which EXIF counts more than XMP."""
    icc = png_file.profile(data) if form == 'PNG' else _field(image, 'icc-profile-data') or b''
    if picture:
        exif, packet = tiff_file.exif_and_xmp(data, picture.place)
        oriented = tiff_pictures.orientation(data, picture)
    else:
        exif, packet = {'PNG': png_file, 'JPEG': jpeg_file, 'WEBP': webp_file}[form].exif_and_xmp(data)
        exif = exif.removeprefix(b'Exif\0\0')
        oriented = orientation_of_exif(exif)
    orientation = oriented or orientation_of_xmp(packet) or 1
    resolution = None
    if form == 'PNG':
        resolution = png_file.resolution(data)
    elif form != 'WEBP' and _field(image, 'resolution-unit'):  # WebP has none but in its EXIF
        resolution = image.xres * 25.4, image.yres * 25.4  # libvips counts pixels in a millimetre
    if resolution and orientation > 4:  # it lies on its side
        resolution = resolution[::-1]
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


def _field(image: pyvips.Image, name: str) -> bytes | int | str | None:
    return image.get(name) if image.get_typeof(name) else None


def _reason(error: pyvips.Error) -> str:
    """The last line of what libvips has to say, which is about the cause."""
    lines = [line.strip() for line in error.detail.splitlines() if line.strip()]
    return lines[-1] if lines else 'libvips does not say why'
