"""The directories that TIFF files and EXIF blocks are made of, their values left as the bytes that they are.

Not decoding what is only kept loses nothing: neither a name that is not in ASCII nor a fraction.
"""

import dataclasses
import struct
from collections.abc import Mapping
from typing import Union

SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMBERS = {1: 'B', SHORT: 'H', LONG: 'I', 13: 'I', LONG8: 'Q', 18: 'Q'}


@dataclasses.dataclass(frozen=True)
class Layout:
    """How numbers stand in a file.

    Attributes:
        order: of the bytes, '<' or '>', as `struct` calls them.
        big: whether offsets have 64 bits (BigTIFF) rather than 32.
    """

    order: str = '<'
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
        """What a file begins with whose first directory stands at `first`."""
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
    value: bytes
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
    true: those that come last count as broken, for many entries may name one place to become huge in memory.

    Raises:
        ValueError: the directory does not end within the data.
    """
    try:
        places = _places(data, layout, start)
        entries, room = {}, len(data)
        for place in places:
            tag, kind, count, value = struct.unpack_from(layout.entry, data, place)
            length = count * _SIZES.get(kind, 0)
            if length > room:
                continue
            if length > len(value):
                (offset,) = struct.unpack(layout.offset, value)
                value = data[offset : offset + length]
            if 0 < length <= len(value):
                room -= length
                entries[tag] = Entry(kind, count, bytes(value[:length]), place)
    except struct.error as error:
        raise ValueError(f'broken directory: {error}') from error
    return entries, places.stop


def _places(data: bytes | bytearray, layout: Layout, start: int) -> range:
    """Where the entries of the directory at `start` stand; it stops where they end."""
    (count,) = struct.unpack_from(layout.count, data, start)
    size = struct.calcsize(layout.entry)
    first = start + struct.calcsize(layout.count)
    return range(first, first + count * size, size)


def first_numbers(data: bytes, layout: Layout, start: int) -> tuple[dict[int, int | None], int]:
    """Of each entry of the directory at `start` that holds one number, this; and where the next directory stands.

    Nothing is copied, however long the values are. Zero stands for no next directory.

    Raises:
        ValueError: the directory does not end within the data.
    """
    try:
        places = _places(data, layout, start)
        numbers = {}
        for place in places:
            tag, kind, length, value = struct.unpack_from(layout.entry, data, place)
            numbers[tag] = number(layout, Entry(kind, 1, value)) if length == 1 else None
        (following,) = struct.unpack_from(layout.offset, data, places.stop)
    except struct.error as error:
        raise ValueError(f'broken directory: {error}') from error
    return numbers, following


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
            beyond += entry.value + bytes(len(entry.value) % 2)
        table += struct.pack(layout.entry, tag, entry.kind, entry.count, value)  # which fills up with zeros
    return table + struct.pack(layout.offset, 0) + beyond
