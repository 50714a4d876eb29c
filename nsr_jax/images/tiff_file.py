"""TIFF files: which image is the photograph, its metadata, and a streaming writer.

libvips writes TIFF without EXIF, and Pillow cannot write 16-bit RGB, so this module lays out the file; the samples are
horizontal differences (TIFF 6.0, section 14), compressed by zlib.
"""

import fractions
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from absl import logging

from nsr_jax.errors import UserError
from nsr_jax.images import exif
from nsr_jax.images.exif import Entries, Entry, Layout
from nsr_jax.images.metadata import Metadata

_GPS_DIRECTORY = 0x8825
# Tags by a person or a camera: names, makers, texts, dates, rights, ratings, IPTC.
_SAID = {269, 270, 271, 272, 285, 305, 306, 315, 316, 18246, 18249, 33432, 33723, *range(40091, 40096)}

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _CHANNELS, _ROWS_PER_STRIP, _STRIP_SIZES, _RESOLUTION_X, _RESOLUTION_Y = 273, 277, 278, 279, 282, 283
_RESOLUTION_UNIT, _PREDICTOR, _EXTRA_SAMPLES, _XMP, _ICC = 296, 317, 338, 700, 34675
_DEFLATE, _NO_UNIT, _INCH, _HORIZONTAL, _STRAIGHT_ALPHA = 8, 1, 2, 2, 2

_DESCRIPTION, _SHAPE = 270, b'{"shape": '  # tifffile writes this, and trusts it when reading

_STRIP_BYTES = 2**20
_LARGEST = 2**32 - 2**26  # in bytes, of the samples; beyond it, offsets have 64 bits

# It is unknown which of these still apply to a restored image.
_OTHERS = {
    (33550, 33920, 33922, 34264, 34735, 34736, 34737, 42112, 42113): 'place on the earth (GeoTIFF)',
    (34377, 37724): 'layers and other data of Photoshop',
    (301, 318, 319, 532): 'meaning of colours without a profile',
    (52545,): 'content credentials',
}
# Tags of storage, size and printing, and of metadata that are kept in another way.
_STORAGE = {254, 255, *range(256, 267), *range(273, 285), *range(288, 298), 317, *range(320, 326), 330, 332, 333, 334}
_STORAGE |= {336, 337, 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 559, 700, 34665, 34675, 34853, 50341}

_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _DNG_VERSION = 254, 255, 50706
_REDUCED, _MASK, _OLD_REDUCED = 1, 4, 2  # subfile types
_JPEG, _GRAY, _RGB, _PALETTE, _YCBCR = 7, 1, 2, 3, 6
_ALPHAS = (1, 2)  # premultiplied and straight; 0 has an unknown meaning
_PHOTOMETRICS = {5: 'CMYK', 6: 'YCbCr', 8: 'CIE L*a*b*', 9: 'CIE L*a*b*', 10: 'CIE L*a*b*', 32803: 'raw sensor data'}
_MOST_PAGES = 32


class Picture(NamedTuple):
    """The photograph among the images of a TIFF file.

    Attributes:
        page: its number, from 0.
        others: how many other images there are, all of them smaller versions or masks.
        layout: of the file.
        entries: of its directory.
    """

    page: int
    others: int
    layout: Layout
    entries: dict[int, Entry]

    def number(self, tag: int) -> int | None:
        """The first number that the directory holds for a tag; None: it holds none."""
        return exif.number(self.layout, self.entries.get(tag))


def find_picture(data: bytes) -> Picture:
    """The one image of a TIFF file that is neither a smaller version of another nor a mask.

    Raises:
        UserError: there are none or several, or libvips would misread it: it is a raw photograph, or neither gray, RGB
            nor a palette. The line does not name the file.
        ValueError: the file is broken.
    """
    layout, place = exif.layout_of(data)
    found, seen = [], []
    while place and place not in seen:
        if len(seen) == _MOST_PAGES:
            raise UserError(f'more than {_MOST_PAGES} frames or pages in one file; save them as one file each')
        try:
            entries, end = exif.read_directory(data, layout, place)
            (following,) = struct.unpack_from(layout.offset, data, end)
        except (ValueError, struct.error):
            if not seen:
                raise
            break
        if not seen and _DNG_VERSION in entries:
            break
        page = Picture(len(seen), 0, layout, entries)
        is_part = (page.number(_SUBFILE_TYPE) or 0) & (_REDUCED | _MASK)
        if not is_part and page.number(_OLD_SUBFILE_TYPE) != _OLD_REDUCED:
            found.append(page)
        seen.append(place)
        place = following
    if not found:
        raise UserError('a raw photograph, or a file of previews; develop it first')
    if len(found) > 1:
        raise UserError(f'{len(found)} frames or pages in one file; save them as one file each')
    (picture,) = found
    photometric = picture.number(_PHOTOMETRIC) or 0
    if photometric > 3 and (photometric, picture.number(_COMPRESSION)) != (_YCBCR, _JPEG):
        name = _PHOTOMETRICS.get(photometric, f'photometric interpretation {photometric}')
        raise UserError(f'TIFF of {name}; accepted are gray, RGB and palettes')
    return picture._replace(others=len(seen) - 1)


def alpha_of(picture: Picture) -> tuple[int, int | None] | None:
    """The number of colour channels, and the index of the one that the file marks as alpha (None: no alpha).

    None if all channels are colours, or become colours by a palette.
    """
    channels, photometric = picture.number(_CHANNELS) or 1, picture.number(_PHOTOMETRIC)
    colours = 3 if photometric in (_RGB, _YCBCR) else 1
    if photometric == _PALETTE or channels <= colours:
        return None
    extra = picture.entries.get(_EXTRA_SAMPLES)
    kinds = exif.numbers(picture.layout, extra)[: channels - colours] if extra else ()
    return colours, next((colours + i for i, kind in enumerate(kinds) if kind in _ALPHAS), None)


def exif_and_xmp(data: bytes, picture: Picture) -> tuple[bytes, bytes]:
    """The metadata of a picture as an EXIF block, and its XMP packet; either is empty if there is none."""
    said = _said(data, picture.layout, picture.entries)
    xmp = picture.entries.get(_XMP)
    small = Layout(picture.layout.order)
    block = small.header(8) + exif.directory_bytes(said, small, 8) if said else b''
    return block, bytes(xmp.value) if xmp else b''


def left_out(picture: Picture) -> list[str]:
    """Names of the other contents of a TIFF file that are not kept."""
    tags = picture.entries.keys()
    names = [f'smaller versions or masks ({picture.others})'] if picture.others else []
    names += [name for known, name in _OTHERS.items() if tags & set(known)]
    if _describes_size(picture.entries):
        names.append('description of its size')
    unknown = tags - _SAID - _STORAGE - {tag for known in _OTHERS for tag in known}
    return [*names, *(f'tag {tag}' for tag in sorted(unknown))]


def _describes_size(entries: dict[int, Entry]) -> bool:
    """Whether the description gives the size or kind of the original image, as those of tifffile and OME do."""
    text = bytes(entries[_DESCRIPTION].value) if _DESCRIPTION in entries else b''
    return text.startswith(_SHAPE) or (text.startswith(b'<?xml') and b'<OME' in text)


def _said(data: bytes, layout: Layout, entries: dict[int, Entry]) -> dict[int, Entry | Entries]:
    """The entries that are kept of a directory and of its subdirectories for EXIF and GPS."""
    said: dict[int, Entry | Entries] = {tag: entry for tag, entry in entries.items() if tag in _SAID}
    if _describes_size(entries):
        del said[_DESCRIPTION]
    for tag in (exif.EXIF_DIRECTORY, _GPS_DIRECTORY):
        place = exif.number(layout, entries.get(tag))
        if place is None:
            continue
        try:
            inner, _ = exif.read_directory(data, layout, place)
        except ValueError as error:
            logging.warning('%s of a TIFF file; it is left out', error)
            continue
        inner.pop(exif.INTEROPERABILITY_DIRECTORY, None)  # an offset that would be wrong
        if inner:
            said[tag] = inner
    return said


def write_tiff(
    file: BinaryIO, strips: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype, metadata: Metadata
) -> None:
    """Write an image, with the directory after the samples; a file above 4 GiB becomes a BigTIFF.

    Args:
        file: empty and seekable.
        strips: (rows, width, channels), from top to bottom, with `height` rows in all.
        shape: height, width and channels of the image.
        dtype: uint8 or uint16.
        metadata: of the written image.
    """
    height, width, channels = shape
    row_bytes = width * channels * dtype.itemsize
    layout, entries = Layout(), {}
    if metadata.exif:
        layout, first = exif.layout_of(metadata.exif)
        entries = _said(metadata.exif, layout, exif.read_directory(metadata.exif, layout, first)[0])
    # The byte order is that of the EXIF block, so that its values need no change.
    layout = Layout(layout.order, big=height * row_bytes > _LARGEST)
    rows = min(height, max(1, _STRIP_BYTES // row_bytes))
    places, sizes = [], []
    file.write(layout.header(0))
    for strip in _of_rows(strips, rows):
        differences = strip.copy()
        differences[:, 1:] -= strip[:, :-1]
        packed = zlib.compress(differences.astype(dtype.newbyteorder(layout.order)).data)
        places.append(file.tell())
        sizes.append(len(packed))
        file.write(packed)
    file.write(bytes(file.tell() % 2))
    start = file.tell()
    entries |= _entries(layout, shape, dtype, metadata)
    entries[_ROWS_PER_STRIP] = exif.entry_of(layout, exif.LONG, rows)
    entries[_STRIP_OFFSETS] = exif.entry_of(layout, exif.LONG8 if layout.big else exif.LONG, *places)
    entries[_STRIP_SIZES] = exif.entry_of(layout, exif.LONG, *sizes)
    file.write(exif.directory_bytes(entries, layout, start))
    file.seek(0)
    file.write(layout.header(start))


def _of_rows(strips: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """The image, cut into strips of `rows` each; the last one may be shorter."""
    rest = None
    for strip in strips:
        joined = strip if rest is None else np.concatenate([rest, strip])
        whole = len(joined) // rows * rows
        yield from (joined[start : start + rows] for start in range(0, whole, rows))
        rest = joined[whole:]
    if rest is not None and len(rest):
        yield rest


def _entries(
    layout: Layout, shape: tuple[int, int, int], dtype: np.dtype, metadata: Metadata
) -> dict[int, Entry | Entries]:
    """The entries of an image's directory, except those that locate its samples."""
    height, width, channels = shape
    shorts = {
        _BITS: [8 * dtype.itemsize] * channels,
        _COMPRESSION: [_DEFLATE],
        _PHOTOMETRIC: [_GRAY if channels < 3 else _RGB],
        _CHANNELS: [channels],
        _PREDICTOR: [_HORIZONTAL],
        _RESOLUTION_UNIT: [_INCH if metadata.resolution else _NO_UNIT],
    }
    if channels in (2, 4):
        shorts[_EXTRA_SAMPLES] = [_STRAIGHT_ALPHA]
    entries: dict[int, Entry | Entries] = {
        _WIDTH: exif.entry_of(layout, exif.LONG, width),
        _HEIGHT: exif.entry_of(layout, exif.LONG, height),
        **{tag: exif.entry_of(layout, exif.SHORT, *values) for tag, values in shorts.items()},
    }
    for tag, value in zip((_RESOLUTION_X, _RESOLUTION_Y), metadata.resolution or (1, 1), strict=True):
        ratio = fractions.Fraction(value).limit_denominator(1000)
        entries[tag] = Entry(exif.RATIONAL, 1, struct.pack(f'{layout.order}II', *ratio.as_integer_ratio()))
    for tag, kind, value in ((_XMP, exif.BYTE, metadata.xmp), (_ICC, exif.UNDEFINED, metadata.icc)):
        if value:
            entries[tag] = Entry(kind, len(value), value)
    return entries
