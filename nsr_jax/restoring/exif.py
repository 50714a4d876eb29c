"""What EXIF and XMP say of an image's size and orientation, made true of a restored one; all else is kept bit by bit.

Changing entries where they stand keeps the notes of camera makers whole, which point into the block by its own offsets.
"""

import re
import struct

from nsr_jax.restoring.directories import LONG, SHORT, Entry, Layout, entry_of, layout_of, number, read_directory

_IMAGE_WIDTH, _IMAGE_LENGTH, _ORIENTATION, _RESOLUTION_X, _RESOLUTION_Y = 0x0100, 0x0101, 0x0112, 0x011A, 0x011B
_THUMBNAIL_OFFSET, _THUMBNAIL_SIZE = 0x0201, 0x0202
EXIF_DIRECTORY = 0x8769
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003


def exif_of_upright(exif: bytes, height: int, width: int) -> bytes:
    """The EXIF block of an upright image of another size, without the thumbnail of the former one.

    Args:
        exif: the block, without the 'Exif' in front of it that JPEG has.
        height: of the image that it is now for, in pixels.
        width: likewise.

    Raises:
        ValueError: the block is broken.
    """
    layout, first = layout_of(exif)
    if layout.big:
        raise ValueError('EXIF with offsets of 64 bits')
    block = bytearray(exif)
    entries, end = read_directory(exif, layout, first)
    if len(exif) >= end + 4:
        _drop_thumbnail(block, layout, end)
    if _ORIENTATION in entries:
        lies = (number(layout, entries[_ORIENTATION]) or 0) > 4  # on its side
        if lies and entries.keys() >= {_RESOLUTION_X, _RESOLUTION_Y}:
            across, down = (
                slice(entries[tag].place + 2, entries[tag].place + 12) for tag in (_RESOLUTION_X, _RESOLUTION_Y)
            )
            block[across], block[down] = exif[down], exif[across]
        _set(block, layout, entries[_ORIENTATION], SHORT, 1)
    inner = number(layout, entries.get(EXIF_DIRECTORY))
    if inner is not None:
        entries |= read_directory(exif, layout, inner)[0]
    for tag, size in ((_IMAGE_WIDTH, width), (_IMAGE_LENGTH, height), (_PIXEL_WIDTH, width), (_PIXEL_HEIGHT, height)):
        if tag in entries:
            _set(block, layout, entries[tag], LONG, size)
    read_directory(block, *layout_of(block))  # broken by now, if one directory lay over another
    return bytes(block)


def _set(block: bytearray, layout: Layout, entry: Entry, kind: int, one: int) -> None:
    """Make an entry one number, whatever it was."""
    value = entry_of(layout, kind, one).value
    struct.pack_into(f'{layout.order}HI4s', block, entry.place + 2, kind, 1, value)  # which fills up with zeros


def _drop_thumbnail(block: bytearray, layout: Layout, place: int) -> None:
    """Blank the thumbnail whose directory is pointed to at `place`, and the pointer."""
    (start,) = struct.unpack_from(layout.offset, block, place)
    struct.pack_into(layout.offset, block, place, 0)
    try:
        entries, _ = read_directory(bytes(block), layout, start)
    except ValueError:  # it points nowhere
        return
    offset, size = (number(layout, entries.get(tag)) for tag in (_THUMBNAIL_OFFSET, _THUMBNAIL_SIZE))
    if start and offset and size:
        stop = min(offset + size, len(block))
        block[offset:stop] = bytes(max(0, stop - offset))


def xmp_of_upright(xmp: bytes, height: int, width: int) -> bytes:
    """The XMP packet of an upright image of another size, without the thumbnails of the former one."""
    for names, value in (
        (rb'tiff:Orientation', 1),
        (rb'tiff:ImageWidth|exif:PixelXDimension', width),
        (rb'tiff:ImageLength|exif:PixelYDimension', height),
    ):
        # An attribute (name="3") or an element (<name>3</name>).
        xmp = re.sub(rb'\b(' + names + rb')(\s*=\s*["\']|>)\d+', rb'\g<1>\g<2>%d' % value, xmp)
    return _without_thumbnails(xmp)


def _without_thumbnails(xmp: bytes) -> bytes:
    # No regular expression: it would seek the end anew from each start, which is the square of a hostile length.
    kept, place, end_tag = [], 0, b'</xmp:Thumbnails>'
    while (start := xmp.find(b'<xmp:Thumbnails', place)) >= 0 and (end := xmp.find(end_tag, start)) >= 0:
        kept.append(xmp[place:start])
        place = end + len(end_tag)
    return b''.join([*kept, xmp[place:]])
