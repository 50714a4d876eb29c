"""Reading and writing 8-bit gray and RGB images with Pillow."""

import contextlib
import io
import os
import pathlib
import re
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from nsr_jax.atomic_files import make_output_folder, read_bounded, write_atomically
from nsr_jax.errors import UserError
from nsr_jax.ops.upright import turn_upright

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp')
# Control characters, line ends, and the bytes of a file system that are not UTF-8.
_NO_NAME = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
# A small file may claim to be a huge image, to fill the memory of whoever opens it.
LARGEST_PIXELS = 250_000_000
_BYTES_PER_PIXEL = 4  # of a file, at most, where samples have 8 bits
_METADATA_BYTES = 2**26
# Pillow joins the EXIF blocks of a JPEG file one by one, each time copying all before it.
_EXIF_HEAD, _MOST_EXIF_BLOCKS = b'Exif\0\0', 100
# By what a file begins with. `PIL.Image.open` has a limit of its own, and would look for further pictures in the file.
_OPENERS = {b'\x89PNG\r\n\x1a\n': PngImageFile, b'\xff\xd8\xff': JpegImageFile, b'BM': BmpImageFile}
# Of a PNG file: signature (8), chunk length (4), 'IHDR' (4), width (4), height (4), then the bits of a sample.
_PNG_BIT_DEPTH_OFFSET = 24


def list_images(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The PNG, JPEG and BMP files directly in `folder` (not in its subfolders) that are not hidden, sorted by name.

    Raises:
        UserError: there is no such folder, no image in it, or one whose name does not pass `check_name`.
    """
    folder = pathlib.Path(folder)
    try:
        if not folder.is_dir():
            raise UserError(f'{folder}: no such folder of images')
        paths = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith('.'))
        images = sorted((path for path in paths if path.is_file()), key=lambda path: path.name)
    except OSError as error:
        raise UserError(f'{error.filename}: cannot be looked at: {error.strerror}') from error
    for path in images:
        check_name(path.name, folder)
    if not images:
        raise UserError(f'{folder}: no image in this folder; files are sought that end in {", ".join(SUFFIXES)}')
    return images


def check_name(name: str, place: str | os.PathLike) -> None:
    """Raise `UserError` for a file name in a folder or zip file that tables and messages could not hold."""
    if _NO_NAME.search(name):
        raise UserError(f'{place}: the name {name!r} has characters that are no text; give the file another one')


def read_image(path: str | os.PathLike) -> np.ndarray:
    """The image in a file: uint8, (H, W, 3) RGB or (H, W, 1) gray. Errors as of `read_file` and `decode_image`."""
    return decode_image(read_file(path), str(path))


def read_file(path: str | os.PathLike) -> bytes:
    """The bytes of an image file.

    Raises:
        UserError: it cannot be read, is no file, or is larger than any image that is accepted.
    """
    path = pathlib.Path(path)
    check_file(path)
    try:
        with path.open('rb') as file:
            return read_limited(file, str(path), os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error


def check_file(path: pathlib.Path) -> None:
    """Raise `UserError` as `read_file` does, without reading the file."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device may never end
        raise UserError(f'{path}: cannot be read: not a file')
    _check_bytes(status.st_size, str(path))


def read_limited(file: BinaryIO, name: str, expected: int = 0) -> bytes:
    """All that is left of an open image file, which may grow or unpack while it is read; `expected` bytes or more.

    Raises:
        UserError: that is more than the file of any image that is accepted; the line begins with `name`.
    """
    try:
        data = read_bounded(file, _largest_file(), expected)
    except MemoryError as error:
        raise UserError(f'{name}: too large for the memory of this machine') from error
    _check_bytes(len(data), name)
    return data


def _largest_file() -> int:
    return _BYTES_PER_PIXEL * LARGEST_PIXELS + _METADATA_BYTES


def _check_bytes(size: int, name: str) -> None:
    if size > _largest_file():
        raise UserError(f'{name}: a larger file than any image of as many pixels as the {_limit()}')


def _limit() -> str:
    return f'{LARGEST_PIXELS:,} that are accepted; LARGEST_PIXELS in nsr_jax/images/decoding.py raises the limit'


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
    with _opened(data, name) as image:
        mode = _mode(image, data)
        if mode not in ('L', 'RGB'):
            raise UserError(f'{name}: image of mode {mode}; accepted are 8-bit gray (L) and 8-bit RGB')
        pixels = np.array(image)
        orientation = image.getexif().get(PIL.ExifTags.Base.Orientation)
    pixels = np.ascontiguousarray(turn_upright(pixels, orientation))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def image_shape(data: bytes, name: str) -> tuple[int, int, int]:
    """Height, width and channels by the header, before the image is turned upright. Errors as of `decode_image`."""
    with _opened(data, name) as image:
        return image.height, image.width, len(image.getbands())


@contextlib.contextmanager
def _opened(data: bytes, name: str) -> Iterator[PIL.ImageFile.ImageFile]:
    """The image by its header; what goes wrong with it from here on is told in the name of the image."""
    opener = next((opener for start, opener in _OPENERS.items() if data.startswith(start)), None)
    if opener is None:
        raise UserError(f'{name}: not a PNG, JPEG or BMP image, or a broken one')
    if data.count(_EXIF_HEAD) > _MOST_EXIF_BLOCKS:
        raise UserError(f'{name}: more than {_MOST_EXIF_BLOCKS} blocks of EXIF in one file')
    try:
        with opener(io.BytesIO(data)) as image:
            if image.width * image.height > LARGEST_PIXELS:
                raise UserError(f'{name}: {image.width}x{image.height} pixels are more than the {_limit()}')
            yield image
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f'{name}: too large for the memory of this machine') from error
    # Pillow's decoders answer broken files with any of these.
    except (OSError, SyntaxError, EOFError, LookupError, ArithmeticError, TypeError, ValueError, struct.error) as error:
        raise UserError(f'{name}: broken or truncated image: {error}') from error


def _mode(image: PIL.Image.Image, data: bytes) -> str:
    """Pillow's mode, but telling what Pillow would drop in silence: 16-bit RGB and a transparent colour of PNG."""
    if image.format == 'PNG' and data[_PNG_BIT_DEPTH_OFFSET] == 16:
        return f'{image.mode} with 16 bits'
    if 'transparency' in image.info:
        return f'{image.mode} with transparency'
    return image.mode


def encode_png(image: np.ndarray) -> bytes:
    """The bytes of a PNG file of a uint8 image, (H, W, 3) RGB or (H, W, 1) or (H, W) gray.

    Raises:
        ValueError: another type or shape; floats are refused because whoever has them must say how to round.
    """
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))):
        raise ValueError(f'image must be uint8 (H, W), (H, W, 1) or (H, W, 3), got {image.dtype} {image.shape}')
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(image)).save(buffer, format='PNG')
    return buffer.getvalue()


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write a uint8 image (as in `encode_png`) as a PNG file, making its folder; never leaves a part of a file.

    Raises:
        UserError: the name does not end in .png, or the file cannot be written.
        ValueError: as in `encode_png`.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() != '.png':
        raise UserError(f'{path}: images are written without loss, as PNG: the name must end in .png')
    data = encode_png(image)
    make_output_folder(path.parent)
    write_atomically(path, data)


def crop_to_multiple(image: np.ndarray, scale: int, name: str) -> np.ndarray:
    """Crop (H, W, C) at the bottom and right to the largest multiples of `scale`, as the field does with HR images.

    Raises:
        UserError: a side is shorter than `scale`; the line names the image by `name`.
    """
    height, width = (side - side % scale for side in image.shape[:2])
    if not (height and width):
        raise UserError(f'{name}: {image.shape[1]}x{image.shape[0]} pixels are too few for scale {scale}')
    return image[:height, :width]


def check_pair(hr: np.ndarray, lr: np.ndarray, scale: int, hr_name: str, lr_name: str) -> None:
    """Raise `UserError` unless `lr` (h, w, C) is `hr` (H, W, C), cropped to a multiple of `scale`, at 1 / `scale`."""
    expected = (hr.shape[0] // scale, hr.shape[1] // scale, hr.shape[2])
    if lr.shape != expected:
        raise UserError(
            f'{lr_name}: {_size(lr.shape)}, but scale {scale} of {hr_name} ({_size(hr.shape)}) needs {_size(expected)}'
        )


def _size(shape: Sequence[int]) -> str:
    return f'{shape[1]}x{shape[0]} pixels of {shape[2]} channel{"s" if shape[2] > 1 else ""}'
