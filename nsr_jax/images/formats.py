"""File formats of photographs: their names, and what each of them can hold."""

import dataclasses
from collections.abc import Collection

import numpy as np

from nsr_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class _Format:
    """What files of a format can hold.

    Attributes:
        suffixes: of file names; the first one is for new files.
        longest_side: in pixels.
        alpha: whether there may be transparency.
        sixteen_bits: whether samples may have 16 bits; they may have 8 everywhere.
        quality: whether encoding may lose something, as a quality says.
        largest_file: of the samples without compression, in bytes; None: no limit that anything reaches.
    """

    suffixes: tuple[str, ...]
    longest_side: int
    alpha: bool
    sixteen_bits: bool
    quality: bool = False
    largest_file: int | None = None


_JPEG_SUFFIXES = '.jpg', '.jpeg', '.jpe', '.jfif', '.jif', '.jfi'

_FORMATS = {
    'PNG': _Format(('.png',), longest_side=100_000_000, alpha=True, sixteen_bits=True),
    'JPEG': _Format(_JPEG_SUFFIXES, longest_side=65_500, alpha=False, sixteen_bits=False, quality=True),
    'TIFF': _Format(('.tif', '.tiff'), longest_side=100_000_000, alpha=True, sixteen_bits=True),
    'WEBP': _Format(('.webp',), longest_side=16_383, alpha=True, sixteen_bits=False, quality=True),
    'BMP': _Format(
        ('.bmp', '.dib'), longest_side=100_000_000, alpha=False, sixteen_bits=False, largest_file=2**32 - 2000
    ),
}

FORMATS = tuple(_FORMATS)
SUFFIXES = {suffix: name for name, form in _FORMATS.items() for suffix in form.suffixes}

SIGNATURE_BYTES = 18  # that `format_of` looks at
_SIGNATURES = {
    b'\x89PNG\r\n\x1a\n': 'PNG',
    b'\xff\xd8\xff': 'JPEG',
    b'II\x2a\x00': 'TIFF',
    b'MM\x00\x2a': 'TIFF',
    b'II\x2b\x00': 'TIFF',
    b'MM\x00\x2b': 'TIFF',
}
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # their lengths: a text may begin with BM too


def format_of(start: bytes) -> str | None:
    """Which of `FORMATS` a file is that begins with these bytes; None: none of them."""
    if start[:4] == b'RIFF' and start[8:12] == b'WEBP':
        return 'WEBP'
    if start[:2] == b'BM' and int.from_bytes(start[14:18], 'little') in _BMP_HEADERS:
        return 'BMP'
    return next((form for signature, form in _SIGNATURES.items() if start.startswith(signature)), None)


def check_format(name: str) -> None:
    """Raise `UserError` unless this is one of `FORMATS`."""
    if name not in _FORMATS:
        raise UserError(f'unknown format {name!r}: one of {", ".join(FORMATS)} needed')


def suffix_of(name: str) -> str:
    """What the name of a new file of a format ends in, with its dot.

    Raises:
        UserError: an unknown format.
    """
    check_format(name)
    return _FORMATS[name].suffixes[0]


def check_quality(name: str, quality: int | None) -> None:
    """Check that a quality can be asked for.

    Args:
        name: a format.
        quality: None asks for nothing.

    Raises:
        UserError: an unknown format, one that loses nothing, or not a whole number from 1 to 100.
    """
    check_format(name)
    if quality is None:
        return
    if not takes_quality(name):
        lossy = ' and '.join(each for each, form in _FORMATS.items() if form.quality)
        raise UserError(f'{name} keeps every pixel as it is and takes no quality; {lossy} do')
    if not isinstance(quality, int) or isinstance(quality, bool) or not 1 <= quality <= 100:
        raise UserError(f'quality must be a whole number from 1 to 100, not {quality!r}')


def takes_quality(name: str) -> bool:
    """Whether encoding in a format may lose something, as a quality says.

    Raises:
        UserError: an unknown format.
    """
    check_format(name)
    return _FORMATS[name].quality


def check_quality_of_any(names: Collection[str], quality: int | None) -> None:
    """Check that a quality can be asked for where files of several formats are written.

    Args:
        names: of the formats, at least one. Those that lose nothing are passed over, unless there are no others.
        quality: None asks for nothing.

    Raises:
        UserError: as `check_quality`.
    """
    check_quality(min(names, key=lambda name: (not takes_quality(name), name)), quality)


def check_output(form: str, height: int, width: int, channels: int, dtype: np.dtype | type, name: str) -> None:
    """Check that a format can hold an image, before anything is computed.

    Args:
        form: one of `FORMATS`.
        height: of the image that is to be written, in pixels.
        width: likewise.
        channels: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
        dtype: uint8 or uint16.
        name: how errors call the file.

    Raises:
        UserError: an unknown format, or it cannot; the line says which formats can.
        ValueError: an image that no format holds.
    """
    check_format(form)
    dtype = np.dtype(dtype)
    if min(height, width) < 1 or channels not in (1, 2, 3, 4) or dtype not in (np.uint8, np.uint16):
        raise ValueError(f'{height}x{width}x{channels} {dtype}: no image of uint8 or uint16 of 1 to 4 channels')
    if reason := _reason_against(form, height, width, channels, dtype):
        able = [each for each in FORMATS if not _reason_against(each, height, width, channels, dtype)]
        raise UserError(f'{name}: {form} cannot hold {reason}; {_listed(able)} can')


def _reason_against(form: str, height: int, width: int, channels: int, dtype: np.dtype) -> str | None:
    """What it is about the image that the format cannot hold; None where it can."""
    able = _FORMATS[form]
    if dtype == np.uint16 and not able.sixteen_bits:
        return '16 bits per sample'
    if channels in (2, 4) and not able.alpha:
        return 'transparency'
    if max(height, width) > able.longest_side:
        return f'{width}x{height} pixels (its longest side is {able.longest_side:,})'
    padded = -(-width * channels // 4) * 4  # rows of BMP are padded
    if able.largest_file is not None and height * padded > able.largest_file:
        return f'{width}x{height} pixels (its largest file is 4 GiB)'
    return None


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f'{", ".join(names[:-1])} and {names[-1]}'
