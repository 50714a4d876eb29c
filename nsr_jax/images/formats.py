"""File formats of photographs: their names, signatures and limits."""

import dataclasses
from collections.abc import Collection

import numpy as np

from nsr_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class _Format:
    """What files of a format can hold.

    Attributes:
        suffixes: of file names; new files get the first one.
        longest_side: in pixels.
        alpha: whether transparency can be stored.
        sixteen_bits: whether samples may have 16 bits besides 8.
        quality: whether encoding is lossy, at a given quality.
        largest_file: limit of the uncompressed samples, in bytes; None: no limit that matters.
    """

    suffixes: tuple[str, ...]
    longest_side: int = 100_000_000
    alpha: bool = False
    sixteen_bits: bool = False
    quality: bool = False
    largest_file: int | None = None


_FORMATS = {
    'PNG': _Format(('.png',), alpha=True, sixteen_bits=True),
    'JPEG': _Format(('.jpg', '.jpeg', '.jpe', '.jfif', '.jif', '.jfi'), longest_side=65_500, quality=True),
    'TIFF': _Format(('.tif', '.tiff'), alpha=True, sixteen_bits=True),
    'WEBP': _Format(('.webp',), longest_side=16_383, alpha=True, quality=True),
    'BMP': _Format(('.bmp', '.dib'), largest_file=2**32 - 2000),
}

FORMATS = tuple(_FORMATS)
SUFFIXES = {suffix: name for name, form in _FORMATS.items() for suffix in form.suffixes}

SIGNATURE_BYTES = 18  # that `format_of` looks at
_SIGNATURES = {
    'PNG': b'\x89PNG\r\n\x1a\n',
    'JPEG': b'\xff\xd8\xff',
    'TIFF': (b'II\x2a\0', b'MM\0\x2a', b'II\x2b\0', b'MM\0\x2b'),
}
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # their lengths; needed because a text may begin with BM, too


def format_of(start: bytes) -> str | None:
    """The one of `FORMATS` whose files begin with these bytes; None: none of them."""
    if start[:4] == b'RIFF' and start[8:12] == b'WEBP':
        return 'WEBP'
    if start[:2] == b'BM' and int.from_bytes(start[14:18], 'little') in _BMP_HEADERS:
        return 'BMP'
    return next((form for form, signature in _SIGNATURES.items() if start.startswith(signature)), None)


def _find(name: str) -> _Format:
    if name not in _FORMATS:
        raise UserError(f'unknown format {name!r}: one of {", ".join(FORMATS)} needed')
    return _FORMATS[name]


def suffix_of(name: str) -> str:
    """The suffix of new files of a format, with its dot; raises `UserError` for an unknown format."""
    return _find(name).suffixes[0]


def takes_quality(name: str) -> bool:
    """Whether a format is encoded at a quality; raises `UserError` for an unknown format."""
    return _find(name).quality


def check_quality(name: str, quality: int | None) -> None:
    """Check that a format can be written at a quality (None: no particular one).

    Raises:
        UserError: the format is unknown or lossless, or the quality is not a whole number from 1 to 100.
    """
    is_lossy = takes_quality(name)
    if quality is None:
        return
    if not is_lossy:
        raise UserError(f'{name} is lossless and takes no quality; {" and ".join(filter(takes_quality, FORMATS))} do')
    if not isinstance(quality, int) or isinstance(quality, bool) or not 1 <= quality <= 100:
        raise UserError(f'quality must be a whole number from 1 to 100, not {quality!r}')


def check_quality_of_any(names: Collection[str], quality: int | None) -> None:
    """`check_quality` for files of several formats; lossless ones are ignored, unless there are no others."""
    check_quality(min(names, key=lambda name: (not takes_quality(name), name)), quality)


def check_output(form: str, height: int, width: int, channels: int, dtype: np.dtype | type, name: str) -> None:
    """Check that a format can hold an image.

    Args:
        form: one of `FORMATS`.
        height: of the image, in pixels.
        width: of the image, in pixels.
        channels: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
        dtype: uint8 or uint16.
        name: of the file, for error messages.

    Raises:
        UserError: the format is unknown or cannot hold it; the line says which formats can.
        ValueError: no format can hold it.
    """
    dtype = np.dtype(dtype)
    if min(height, width) < 1 or channels not in (1, 2, 3, 4) or dtype not in (np.uint8, np.uint16):
        raise ValueError(f'{height}x{width}x{channels} {dtype}: not a uint8 or uint16 image of 1 to 4 channels')
    if reason := _reason_against(_find(form), height, width, channels, dtype):
        *most, last = [
            each for each, able in _FORMATS.items() if not _reason_against(able, height, width, channels, dtype)
        ]
        raise UserError(f'{name}: {form} cannot hold {reason}; {", ".join(most)} and {last} can')


def _reason_against(able: _Format, height: int, width: int, channels: int, dtype: np.dtype) -> str | None:
    """The property of the image that the format cannot hold; None if it can hold the image."""
    if dtype == np.uint16 and not able.sixteen_bits:
        return '16 bits per sample'
    if channels in (2, 4) and not able.alpha:
        return 'transparency'
    if max(height, width) > able.longest_side:
        return f'{width}x{height} pixels (its longest side is {able.longest_side:,})'
    padded = -(-width * channels // 4) * 4  # BMP pads its rows
    if able.largest_file is not None and height * padded > able.largest_file:
        return f'{width}x{height} pixels (its largest file is 4 GiB)'
    return None
