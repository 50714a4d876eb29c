"""TIFF files: what is kept of them beside their pixels, and a writer that streams.

libvips writes TIFF without its EXIF, and Pillow no 16-bit colours, so that the container is laid out here; the samples
are compressed by zlib, with horizontal differences (TIFF 6.0, section 14).
"""

import fractions
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
from absl import logging

from nsr_jax.images.directories import (
    LONG,
    LONG8,
    RATIONAL,
    SHORT,
    Entries,
    Entry,
    Layout,
    directory_bytes,
    entry_of,
    layout_of,
    number,
    read_directory,
)
from nsr_jax.images.exif import EXIF_DIRECTORY
from nsr_jax.images.metadata import Metadata

_GPS_DIRECTORY, _INTEROPERABILITY_DIRECTORY = 0x8825, 0xA005
# Of a TIFF's first directory, what a person or a camera has said: names, makers, texts, dates, rights, ratings, IPTC.
SAID = {269, 270, 271, 272, 285, 305, 306, 315, 316, 18246, 18249, 33432, 33723, *range(40091, 40096)}

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _CHANNELS, _ROWS_PER_STRIP, _STRIP_SIZES, _RESOLUTION_X, _RESOLUTION_Y = 273, 277, 278, 279, 282, 283
_RESOLUTION_UNIT, _PREDICTOR, _EXTRA_SAMPLES, _XMP, _ICC = 296, 317, 338, 700, 34675
_DEFLATE, _NO_UNIT, _INCH, _HORIZONTAL, _STRAIGHT_ALPHA = 8, 1, 2, 2, 2

_DESCRIPTION, _SHAPE = 270, b'{"shape": '  # which tifffile writes, and believes

_STRIP_BYTES = 2**20
_LARGEST = 2**32 - 2**26  # of the samples; beyond, offsets have 64 bits


def exif_and_xmp(data: bytes, place: int) -> tuple[bytes, bytes]:
    """What a TIFF file says of the image whose directory stands at `place`: an EXIF block, and the XMP packet.

    Either is empty where there is none.

    Raises:
        ValueError: the file is broken.
    """
    layout, _ = layout_of(data)
    said = _said(data, layout, place)
    xmp = read_directory(data, layout, place)[0].get(_XMP)
    small = Layout(layout.order)
    return small.header(8) + directory_bytes(said, small, 8) if said else b'', xmp.value if xmp else b''


def is_about_the_former(description: bytes) -> bool:
    """Whether a description says of which size or kind the image is, for programs: those of tifffile and OME."""
    return description.startswith(_SHAPE) or (description.startswith(b'<?xml') and b'<OME' in description)


def _said(data: bytes, layout: Layout, first: int) -> dict[int, Entry | Entries]:
    """What is kept of the first directory, and those of EXIF and GPS."""
    entries, _ = read_directory(data, layout, first)
    said: dict[int, Entry | Entries] = {tag: entry for tag, entry in entries.items() if tag in SAID}
    if _DESCRIPTION in said and is_about_the_former(said[_DESCRIPTION].value):
        del said[_DESCRIPTION]
    for tag in (EXIF_DIRECTORY, _GPS_DIRECTORY):
        place = number(layout, entries.get(tag))
        if place is not None:
            try:
                inner, _ = read_directory(data, layout, place)
            except ValueError as error:
                logging.warning('%s of a TIFF file; it is left out', error)
                continue
            inner.pop(_INTEROPERABILITY_DIRECTORY, None)  # an offset, which would point nowhere
            if inner:
                said[tag] = inner
    return said


def write_tiff(
    file: BinaryIO,
    strips: Iterable[np.ndarray],
    height: int,
    width: int,
    channels: int,
    dtype: np.dtype,
    metadata: Metadata,
) -> None:
    """Write an image; the directory follows the samples. Beyond 4 GiB the file is a BigTIFF.

    Args:
        file: empty, and can be sought in.
        strips: (rows, width, channels), from top to bottom, exactly `height` rows of them.
        height: of the image.
        width: likewise.
        channels: likewise.
        dtype: uint8 or uint16.
        metadata: of the image as it is written.
    """
    row_bytes = width * channels * dtype.itemsize
    exif_layout, first = layout_of(metadata.exif) if metadata.exif else (Layout(), 0)
    # In the byte order of the EXIF block, whose values need no change then.
    layout = Layout(exif_layout.order, big=height * row_bytes > _LARGEST)
    rows = min(height, max(1, _STRIP_BYTES // row_bytes))
    places, sizes = [], []
    file.write(layout.header(0))
    for strip in _of_rows(strips, rows):
        differences = strip.copy()
        differences[:, 1:] -= strip[:, :-1]
        packed = zlib.compress(differences.astype(dtype.newbyteorder(layout.order)))
        places.append(file.tell())
        sizes.append(len(packed))
        file.write(packed)
    file.write(bytes(file.tell() % 2))
    start = file.tell()
    entries = _said(metadata.exif, exif_layout, first) if metadata.exif else {}
    entries |= _entries(layout, height, width, channels, dtype, metadata)
    entries[_ROWS_PER_STRIP] = entry_of(layout, LONG, rows)
    entries[_STRIP_OFFSETS] = entry_of(layout, LONG8 if layout.big else LONG, *places)
    entries[_STRIP_SIZES] = entry_of(layout, LONG, *sizes)
    file.write(directory_bytes(entries, layout, start))
    file.seek(0)
    file.write(layout.header(start))


def _of_rows(strips: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """The same in strips of `rows` each; the last one may be shorter."""
    rest = None
    for strip in strips:
        joined = strip if rest is None else np.concatenate([rest, strip])
        whole = len(joined) // rows * rows
        yield from (joined[start : start + rows] for start in range(0, whole, rows))
        rest = joined[whole:]
    if rest is not None and len(rest):
        yield rest


def _entries(
    layout: Layout, height: int, width: int, channels: int, dtype: np.dtype, metadata: Metadata
) -> dict[int, Entry | Entries]:
    def shorts(*values: int) -> Entry:
        return entry_of(layout, SHORT, *values)

    entries = {
        _WIDTH: entry_of(layout, LONG, width),
        _HEIGHT: entry_of(layout, LONG, height),
        _BITS: shorts(*[8 * dtype.itemsize] * channels),
        _COMPRESSION: shorts(_DEFLATE),
        _PHOTOMETRIC: shorts(1 if channels < 3 else 2),
        _CHANNELS: shorts(channels),
        _PREDICTOR: shorts(_HORIZONTAL),
        _RESOLUTION_UNIT: shorts(_INCH if metadata.resolution else _NO_UNIT),
    }
    if channels in (2, 4):
        entries[_EXTRA_SAMPLES] = shorts(_STRAIGHT_ALPHA)
    for tag, value in zip((_RESOLUTION_X, _RESOLUTION_Y), metadata.resolution or (1, 1), strict=True):
        ratio = fractions.Fraction(value).limit_denominator(1000)
        entries[tag] = Entry(RATIONAL, 1, struct.pack(f'{layout.order}II', *ratio.as_integer_ratio()))
    if metadata.xmp:
        entries[_XMP] = Entry(1, len(metadata.xmp), metadata.xmp)
    if metadata.icc:
        entries[_ICC] = Entry(7, len(metadata.icc), metadata.icc)
    return entries
