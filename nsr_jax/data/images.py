"""Reading and writing 8-bit gray and RGB images with Pillow."""

import io
import os
import pathlib
import struct
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageOps

from nsr_jax.errors import UserError
from nsr_jax.files import make_output_folder, write_atomically

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp')
_FORMATS = ('PNG', 'JPEG', 'BMP')
# Of a PNG file: signature (8), chunk length (4), 'IHDR' (4), width (4), height (4), then the bits of a sample.
_PNG_BIT_DEPTH_OFFSET = 24


def list_images(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The PNG, JPEG and BMP files directly in `folder` (not in its subfolders) that are not hidden, sorted by name.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f'{folder}: no such folder of images')
    paths = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith('.'))
    images = sorted((path for path in paths if path.is_file()), key=lambda path: path.name)
    if not images:
        raise UserError(f'{folder}: no image in this folder; files are sought that end in {", ".join(SUFFIXES)}')
    return images


def read_image(path: str | os.PathLike) -> np.ndarray:
    """The image in a file: uint8, (H, W, 3) RGB or (H, W, 1) gray. Errors as of `decode_image`."""
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode the bytes of a PNG, JPEG or BMP file, turned upright as its EXIF orientation says.

    Args:
        data: the bytes of the file.
        name: how errors call the image.

    Returns:
        uint8, (H, W, 3) RGB or (H, W, 1) gray.

    Raises:
        UserError: a broken or truncated file, another format, or an image that is not 8-bit gray or RGB (a palette,
          alpha, 1 bit, 16 bits, CMYK): converting would change the pixels that scores are computed from.
    """
    try:
        with PIL.Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            mode = _mode(image, data)
            if mode not in ('L', 'RGB'):
                raise UserError(f'{name}: image of mode {mode}; accepted are 8-bit gray (L) and 8-bit RGB')
            pixels = np.array(PIL.ImageOps.exif_transpose(image))
    except UserError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise UserError(f'{name}: not a PNG, JPEG or BMP image, or a broken one') from error
    except PIL.Image.DecompressionBombError as error:
        raise UserError(f'{name}: {error}') from error
    # Pillow's decoders answer broken files with any of these.
    except (OSError, SyntaxError, EOFError, LookupError, ArithmeticError, TypeError, ValueError, struct.error) as error:
        raise UserError(f'{name}: broken or truncated image: {error}') from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


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
