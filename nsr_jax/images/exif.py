"""What EXIF and XMP say of an image's size and orientation, made true of a restored one; all else is kept bit by bit.

Changing entries where they stand keeps the notes of camera makers whole, which point into the block by its own offsets.
"""

import itertools
import re
import struct

from nsr_jax.images.directories import LONG, SHORT, Entry, Layout, entry_of, layout_of, number, read_directory

_IMAGE_WIDTH, _IMAGE_LENGTH, _ORIENTATION, _RESOLUTION_X, _RESOLUTION_Y = 0x0100, 0x0101, 0x0112, 0x011A, 0x011B
_THUMBNAIL_OFFSET, _THUMBNAIL_SIZE = 0x0201, 0x0202
EXIF_DIRECTORY = 0x8769
_PIXEL_WIDTH, _PIXEL_HEIGHT, _INTEROPERABILITY = 0xA002, 0xA003, 0xA005
_RELATED_WIDTH, _RELATED_HEIGHT = 0x1001, 0x1002  # of the interoperability directory
_ORIENTATIONS = range(1, 9)
_MOST_PREFIXES = 4

_TIFF_NAMESPACE = rb'xmlns:([\w.-]+)\s*=\s*["\']http://ns\.adobe\.com/tiff/1\.0/["\']'
# Of which size of the image its regions, which are parts of it, were said.
_SIZE_OF_REGIONS = re.compile(
    rb'<[\w-]+:AppliedToDimensions\b[^>]{0,300}(?:/>|>.{0,300}?AppliedToDimensions>)', re.DOTALL
)
# An attribute (name="3") or an element (<name>3</name>, which may have attributes).
_XMP_VALUE = rb'(\s*=\s*["\']\s*|(?:\s[^<>]{0,100})?>\s*)(\d+)'


def orientation_of_exif(exif: bytes) -> int | None:
    """1 to 8; None where an EXIF block, which may be broken, says none of these."""
    try:
        layout, first = layout_of(exif)
        (count,) = struct.unpack_from(layout.count, exif, first)
        start, size = first + struct.calcsize(layout.count), struct.calcsize(layout.entry)
        for place in range(start, start + size * count, size):
            tag, kind, _, value = struct.unpack_from(layout.entry, exif, place)
            if tag == _ORIENTATION:
                orientation = number(layout, Entry(kind, 1, value))
                return orientation if orientation in _ORIENTATIONS else None
    except (ValueError, struct.error):
        pass
    return None


def exif_of_upright(exif: bytes, height: int, width: int, *, turned: bool = True) -> bytes:
    """The EXIF block of an upright image of another size, without the thumbnail of the former one.

    Args:
        exif: the block, without the 'Exif' in front of it that JPEG has.
        height: of the image that it is now for, in pixels.
        width: likewise.
        turned: whether the image was turned as its metadata ask; else what these say of it stays as it is.

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
    if turned and _ORIENTATION in entries:
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
    related = number(layout, entries.get(_INTEROPERABILITY))
    if related is not None:
        entries |= _entries_if_whole(exif, layout, related)
    for tags, size in (
        ((_IMAGE_WIDTH, _PIXEL_WIDTH, _RELATED_WIDTH), width),
        ((_IMAGE_LENGTH, _PIXEL_HEIGHT, _RELATED_HEIGHT), height),
    ):
        for tag in entries.keys() & set(tags):
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
    entries = _entries_if_whole(bytes(block), layout, start)
    offset, size = (number(layout, entries.get(tag)) for tag in (_THUMBNAIL_OFFSET, _THUMBNAIL_SIZE))
    if start and offset and size:
        stop = min(offset + size, len(block))
        block[offset:stop] = bytes(max(0, stop - offset))


def _entries_if_whole(exif: bytes, layout: Layout, start: int) -> dict[int, Entry]:
    """The entries of a directory that may point nowhere."""
    try:
        return read_directory(exif, layout, start)[0]
    except ValueError:
        return {}


def orientation_of_xmp(xmp: bytes) -> int | None:
    """1 to 8; None where an XMP packet says none of these."""
    found = re.search(rb'\b' + _orientation_name(xmp) + _XMP_VALUE, xmp)
    return next((each for each in _ORIENTATIONS if found and found[2] == b'%d' % each), None)


def xmp_of_upright(xmp: bytes, height: int, width: int, *, turned: bool = True) -> bytes:
    """The XMP packet of an upright image of another size, without the thumbnails of the former one.

    Args:
        xmp: the packet.
        height: of the image that it is now for, in pixels.
        width: likewise.
        turned: as of `exif_of_upright`.
    """
    for names, value in (
        *([(_orientation_name(xmp), 1)] if turned else []),
        (rb'tiff:ImageWidth|exif:PixelXDimension', width),
        (rb'tiff:ImageLength|exif:PixelYDimension', height),
    ):
        xmp = _with_number(xmp, names, value)

    def of_this_size(regions: re.Match) -> bytes:
        return _with_number(_with_number(regions[0], rb'stDim:w', width), rb'stDim:h', height)

    xmp = _SIZE_OF_REGIONS.sub(of_this_size, xmp)
    return _without_thumbnails(_without_thumbnails(xmp, b'xmp'), b'xap')


def _with_number(xmp: bytes, names: bytes, value: int) -> bytes:
    """A packet in which a property of one of these names, a pattern, has this value."""
    return re.sub(rb'\b(' + names + rb')' + _XMP_VALUE, rb'\g<1>\g<2>%d' % value, xmp)


def _orientation_name(xmp: bytes) -> bytes:
    """A pattern of what a packet calls the orientation: the prefix is its own choice."""
    found = itertools.islice(re.finditer(_TIFF_NAMESPACE, xmp), _MOST_PREFIXES)
    prefixes = sorted({b'tiff', *(each[1] for each in found)})
    return rb'(?:' + b'|'.join(map(re.escape, prefixes)) + rb'):Orientation'


def _without_thumbnails(xmp: bytes, prefix: bytes) -> bytes:
    # No regular expression: it would seek the end anew from each start, which is the square of a hostile length.
    kept, place, start_tag, end_tag = [], 0, b'<%s:Thumbnails' % prefix, b'</%s:Thumbnails>' % prefix
    while (start := xmp.find(start_tag, place)) >= 0 and (end := xmp.find(end_tag, start)) >= 0:
        kept.append(xmp[place:start])
        place = end + len(end_tag)
    return b''.join([*kept, xmp[place:]])
