"""EXIF blocks, and the directories that they and TIFF files consist of.

Values stay bytes, so that nothing is lost: neither a name that is not in ASCII nor a fraction. Size and orientation are
changed in place, which keeps the notes of camera makers valid: these point into the block by offsets of their own.
"""

import dataclasses
import struct
from collections.abc import Iterator, Mapping
from typing import Literal, Union

BYTE, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 1, 3, 4, 5, 7, 16
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMBERS = {BYTE: 'B', SHORT: 'H', LONG: 'I', 13: 'I', LONG8: 'Q', 18: 'Q'}

ORIENTATION = 0x0112
ORIENTATIONS = range(1, 9)
EXIF_DIRECTORY, INTEROPERABILITY_DIRECTORY = 0x8769, 0xA005
_WIDTHS, _HEIGHTS = (0x0100, 0xA002, 0x1001), (0x0101, 0xA003, 0x1002)  # one for each directory
_RESOLUTION_X, _RESOLUTION_Y, _THUMBNAIL_OFFSET, _THUMBNAIL_SIZE = 0x011A, 0x011B, 0x0201, 0x0202


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a file stores numbers.

    Attributes:
        order: of bytes: '<' or '>', as in `struct`.
        big: whether offsets have 64 bits (BigTIFF) rather than 32.
    """

    order: Literal['<', '>'] = '<'
    big: bool = False

    @property
    def offset(self) -> str:
        """Format of an offset."""
        return f'{self.order}{"Q" if self.big else "I"}'

    @property
    def count(self) -> str:
        """Format of the number of entries that a directory begins with."""
        return f'{self.order}{"Q" if self.big else "H"}'

    @property
    def entry(self) -> str:
        """Format of an entry: tag, kind, count, and the value or its offset."""
        return f'{self.order}HH{"Q8s" if self.big else "I4s"}'

    def header(self, first: int) -> bytes:
        """The beginning of a file whose first directory is at `first`."""
        mark = b'II' if self.order == '<' else b'MM'
        version = struct.pack(f'{self.order}HHH', 43, 8, 0) if self.big else struct.pack(f'{self.order}H', 42)
        return mark + version + struct.pack(self.offset, first)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One or several values of one kind.

    Attributes:
        kind: the number of their type in TIFF.
        count: how many there are.
        value: their bytes, in the file's order.
        place: offset of the entry in the file; 0: none.
    """

    kind: int
    count: int
    value: bytes | memoryview
    place: int = 0


Entries = Mapping[int, Union[Entry, 'Entries']]


def layout_of(data: bytes | bytearray) -> tuple[Layout, int]:
    """The layout of a TIFF file or EXIF block, and the offset of its first directory.

    Raises:
        ValueError: it is neither.
    """
    for layout in (Layout('<'), Layout('>'), Layout('<', big=True), Layout('>', big=True)):
        size = struct.calcsize(layout.offset)
        head = layout.header(0)[:-size]
        if data.startswith(head) and len(data) >= len(head) + size:
            return layout, struct.unpack_from(layout.offset, data, len(head))[0]
    raise ValueError('neither a TIFF file nor an EXIF block')


def read_directory(data: bytes | bytearray, layout: Layout, start: int) -> tuple[dict[int, Entry], int]:
    """The entries of the directory at `start` by tag, without broken ones, and the offset of their end.

    The offset of the next directory follows there. If all values together are longer than the data, the last ones
    count as broken: many entries may point to one place and become huge when they are written anew. Values are not
    copied.

    Raises:
        ValueError: the directory does not end within the data.
    """
    entries, room, view = {}, len(data), memoryview(data)
    end = start + struct.calcsize(layout.count)
    for place, tag, kind, count, value in _fields(data, layout, start):
        end = place + struct.calcsize(layout.entry)
        length = count * _SIZES.get(kind, 0)
        if length > room:
            continue
        if length > len(value):
            (offset,) = struct.unpack(layout.offset, value)
            value = view[offset : offset + length]
        if 0 < length <= len(value):
            room -= length
            entries[tag] = Entry(kind, count, value[:length], place)
    return entries, end


def _fields(data: bytes | bytearray, layout: Layout, start: int) -> Iterator[tuple[int, int, int, int, bytes]]:
    """Place, tag, kind, count, and value or its offset of each entry of the directory at `start`.

    Raises:
        ValueError: the data end before the directory does; the entries before the end have been yielded by then.
    """
    try:
        (count,) = struct.unpack_from(layout.count, data, start)
        size = struct.calcsize(layout.entry)
        first = start + struct.calcsize(layout.count)
        for place in range(first, first + count * size, size):
            yield place, *struct.unpack_from(layout.entry, data, place)
    except struct.error as error:
        raise ValueError(f'broken directory: {error}') from error


def number(layout: Layout, entry: Entry | None) -> int | None:
    """The first number of an entry; None if there is no entry, or it does not hold unsigned integers."""
    if entry is None or entry.kind not in _NUMBERS:
        return None
    return struct.unpack_from(f'{layout.order}{_NUMBERS[entry.kind]}', entry.value)[0]


def numbers(layout: Layout, entry: Entry) -> tuple[int, ...]:
    """All numbers of an entry; none if it does not hold unsigned integers."""
    if entry.kind not in _NUMBERS:
        return ()
    return struct.unpack(f'{layout.order}{entry.count}{_NUMBERS[entry.kind]}', entry.value)


def entry_of(layout: Layout, kind: int, *values: int) -> Entry:
    """An entry of `SHORT`, `LONG` or `LONG8` numbers."""
    return Entry(kind, len(values), struct.pack(f'{layout.order}{len(values)}{_NUMBERS[kind]}', *values))


def directory_bytes(entries: Entries, layout: Layout, start: int) -> bytes:
    """A directory, followed by the values that are too long for its entries and by its subdirectories.

    Args:
        entries: by tag.
        layout: of the file.
        start: even offset of the directory in the file.
    """
    room = struct.calcsize(layout.offset)
    table = struct.pack(layout.count, len(entries))
    after = start + len(table) + len(entries) * struct.calcsize(layout.entry) + room
    beyond = b''
    for tag, entry in sorted(entries.items()):
        if not isinstance(entry, Entry):
            inner = directory_bytes(entry, layout, after + len(beyond))
            entry = entry_of(layout, LONG8 if layout.big else LONG, after + len(beyond))
            beyond += inner
        value = entry.value
        if len(value) > room:
            value = struct.pack(layout.offset, after + len(beyond))
            beyond = b''.join((beyond, entry.value, bytes(len(entry.value) % 2)))
        table += struct.pack(layout.entry, tag, entry.kind, entry.count, value)  # pads with zeros
    return table + struct.pack(layout.offset, 0) + beyond


def orientation_of_exif(exif: bytes) -> int | None:
    """The orientation that an EXIF block gives, which may be none of `ORIENTATIONS`; None: it gives none."""
    try:
        layout, first = layout_of(exif)
        for _, tag, kind, _, value in _fields(exif, layout, first):
            if tag == ORIENTATION:
                return number(layout, Entry(kind, 1, value))
    except ValueError:  # a broken block, which may still give it before it breaks off
        pass
    return None


def exif_of_upright(exif: bytes, height: int, width: int, *, turned: bool = True) -> bytes:
    """The EXIF block for an upright image of another size, without the thumbnail.

    Args:
        exif: the block, without JPEG's 'Exif' in front of it.
        height: of the new image, in pixels.
        width: of the new image, in pixels.
        turned: whether the image was turned as its metadata ask; otherwise the orientation is kept.

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
    if turned and ORIENTATION in entries:
        is_on_its_side = (number(layout, entries[ORIENTATION]) or 0) > 4
        if is_on_its_side and entries.keys() >= {_RESOLUTION_X, _RESOLUTION_Y}:
            places = (entries[tag].place for tag in (_RESOLUTION_X, _RESOLUTION_Y))
            across, down = (slice(place + 2, place + 12) for place in places)  # all but their tags
            block[across], block[down] = exif[down], exif[across]
        _set(block, layout, entries[ORIENTATION], SHORT, 1)
    inner = number(layout, entries.get(EXIF_DIRECTORY))
    if inner is not None:
        entries |= read_directory(exif, layout, inner)[0]
    related = number(layout, entries.get(INTEROPERABILITY_DIRECTORY))
    if related is not None:
        entries |= _entries_if_whole(exif, layout, related)
    sizes = dict.fromkeys(_WIDTHS, width) | dict.fromkeys(_HEIGHTS, height)
    for tag in entries.keys() & sizes.keys():
        _set(block, layout, entries[tag], LONG, sizes[tag])
    read_directory(block, *layout_of(block))  # raises if directories overlapped, and one is broken now
    return bytes(block)


def _set(block: bytearray, layout: Layout, entry: Entry, kind: int, one: int) -> None:
    """Replace the value of an entry by one number."""
    value = entry_of(layout, kind, one).value
    struct.pack_into(f'{layout.order}HI4s', block, entry.place + 2, kind, 1, value)  # pads with zeros


def _drop_thumbnail(block: bytearray, layout: Layout, place: int) -> None:
    """Zero the thumbnail and the offset of its directory, which is at `place`."""
    (start,) = struct.unpack_from(layout.offset, block, place)
    struct.pack_into(layout.offset, block, place, 0)
    entries = _entries_if_whole(bytes(block), layout, start)
    offset, size = (number(layout, entries.get(tag)) for tag in (_THUMBNAIL_OFFSET, _THUMBNAIL_SIZE))
    if start and offset and size:
        stop = min(offset + size, len(block))
        block[offset:stop] = bytes(max(0, stop - offset))


def _entries_if_whole(exif: bytes, layout: Layout, start: int) -> dict[int, Entry]:
    """The entries of a directory; none if it is broken."""
    try:
        return read_directory(exif, layout, start)[0]
    except ValueError:
        return {}
