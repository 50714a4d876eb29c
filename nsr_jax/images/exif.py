"""EXIF blocks, and the directories that they and TIFF files are made of.

Values are left as the bytes that they are, so that nothing is lost: neither a name that is not in ASCII nor a fraction.
What an EXIF block says of an image's size and orientation is changed where it stands, which keeps the notes of camera
makers whole: they point into the block by their own offsets.
"""

import dataclasses
import struct
from collections.abc import Iterator, Mapping
from typing import Literal, Union

SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMBERS = {1: 'B', SHORT: 'H', LONG: 'I', 13: 'I', LONG8: 'Q', 18: 'Q'}

ORIENTATION = 0x0112
_IMAGE_WIDTH, _IMAGE_LENGTH, _RESOLUTION_X, _RESOLUTION_Y = 0x0100, 0x0101, 0x011A, 0x011B
_THUMBNAIL_OFFSET, _THUMBNAIL_SIZE = 0x0201, 0x0202
EXIF_DIRECTORY = 0x8769
_PIXEL_WIDTH, _PIXEL_HEIGHT, _INTEROPERABILITY = 0xA002, 0xA003, 0xA005
_RELATED_WIDTH, _RELATED_HEIGHT = 0x1001, 0x1002  # of the interoperability directory
ORIENTATIONS = range(1, 9)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How numbers stand in a file.

    Attributes:
        order: of the bytes, '<' or '>', as `struct` calls them.
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
        """The beginning of a file whose first directory stands at `first`."""
        mark = b'II' if self.order == '<' else b'MM'
        version = struct.pack(f'{self.order}HHH', 43, 8, 0) if self.big else struct.pack(f'{self.order}H', 42)
        return mark + version + struct.pack(self.offset, first)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One value or several of one kind.

    Attributes:
        kind: of number, as TIFF counts them.
        count: how many.
        value: their bytes, in the order of the file.
        place: where the entry stands in the file; 0: nowhere.
    """

    kind: int
    count: int
    value: bytes | memoryview
    place: int = 0


Entries = Mapping[int, Union[Entry, 'Entries']]


def layout_of(data: bytes | bytearray) -> tuple[Layout, int]:
    """The layout of a TIFF file or EXIF block, and where its first directory stands.

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
    """The entries of the directory at `start` by tag, without those that are broken; and where they end.

    The offset of the next directory stands at their end. Values that together are longer than the data are not all
    true: those that come last count as broken, for many entries may name one place to become huge where they are laid
    out anew. Nothing is copied, however long the values are.

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
    """Of each entry of the directory at `start`: where it stands, its tag, kind and count, and the value or its offset.

    Raises:
        ValueError: the data end before the directory does; what stands before their end has come by then.
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
    """The first whole number of an entry; None where there is no entry, or it is not of whole numbers from zero."""
    if entry is None or entry.kind not in _NUMBERS:
        return None
    return struct.unpack_from(f'{layout.order}{_NUMBERS[entry.kind]}', entry.value)[0]


def numbers(layout: Layout, entry: Entry) -> tuple[int, ...]:
    """All whole numbers of an entry; nothing where it is not of whole numbers from zero."""
    if entry.kind not in _NUMBERS:
        return ()
    return struct.unpack(f'{layout.order}{entry.count}{_NUMBERS[entry.kind]}', entry.value)


def entry_of(layout: Layout, kind: int, *values: int) -> Entry:
    """An entry of `SHORT`, `LONG` or `LONG8` numbers."""
    return Entry(kind, len(values), struct.pack(f'{layout.order}{len(values)}{_NUMBERS[kind]}', *values))


def directory_bytes(entries: Entries, layout: Layout, start: int) -> bytes:
    """A directory, the values that are too long for its entries, and the directories that stand for values.

    Args:
        entries: by tag.
        layout: of the file.
        start: where in the file the directory will stand; even.
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
        table += struct.pack(layout.entry, tag, entry.kind, entry.count, value)  # which fills up with zeros
    return table + struct.pack(layout.offset, 0) + beyond


def orientation_of_exif(exif: bytes) -> int | None:
    """1 to 8; None where an EXIF block, which may be broken, says none of these."""
    try:
        layout, first = layout_of(exif)
        for _, tag, kind, _, value in _fields(exif, layout, first):
            if tag == ORIENTATION:
                orientation = number(layout, Entry(kind, 1, value))
                return orientation if orientation in ORIENTATIONS else None
    except ValueError:
        pass
    return None


def exif_of_upright(exif: bytes, height: int, width: int, *, turned: bool = True) -> bytes:
    """The EXIF block of an upright image of another size, without the thumbnail of the former one.

    Args:
        exif: the block, without the 'Exif' in front of it that JPEG has.
        height: of the image that it is now for, in pixels.
        width: likewise.
        turned: whether the image was turned as its metadata ask; otherwise their orientation stays as it is.

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
        lies = (number(layout, entries[ORIENTATION]) or 0) > 4  # on its side
        if lies and entries.keys() >= {_RESOLUTION_X, _RESOLUTION_Y}:
            across, down = (
                slice(entries[tag].place + 2, entries[tag].place + 12) for tag in (_RESOLUTION_X, _RESOLUTION_Y)
            )
            block[across], block[down] = exif[down], exif[across]
        _set(block, layout, entries[ORIENTATION], SHORT, 1)
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
    read_directory(block, *layout_of(block))  # raises where one directory lay over another, and is broken now
    return bytes(block)


def _set(block: bytearray, layout: Layout, entry: Entry, kind: int, one: int) -> None:
    """Make an entry one number, whatever it was."""
    value = entry_of(layout, kind, one).value
    struct.pack_into(f'{layout.order}HI4s', block, entry.place + 2, kind, 1, value)  # which fills up with zeros


def _drop_thumbnail(block: bytearray, layout: Layout, place: int) -> None:
    """Blank the thumbnail, to whose directory the offset at `place` points, and that offset."""
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
