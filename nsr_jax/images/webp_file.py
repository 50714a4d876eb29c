"""The chunks of WebP files: metadata, and the names of those that are not kept."""

import struct
from collections.abc import Iterator

_KNOWN = (b'VP8 ', b'VP8L', b'VP8X', b'ALPH', b'ANIM', b'ANMF', b'ICCP', b'EXIF', b'XMP ')


def exif_and_xmp(data: bytes) -> tuple[bytes, bytes]:
    """The EXIF block and the XMP packet of a WebP file, even if its header does not announce them."""
    first: dict[bytes, memoryview] = {}
    for kind, body in _chunks(data):
        first.setdefault(kind, body)
    return bytes(first.get(b'EXIF', b'')), bytes(first.get(b'XMP ', b''))


def left_out(data: bytes) -> list[str]:
    """Names of the chunks that are not kept."""
    return sorted({f'chunk {kind.decode("latin-1")!r}' for kind, _ in _chunks(data) if kind not in _KNOWN})


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    place, view = 12, memoryview(data)
    while place + 8 <= len(data):
        kind, length = struct.unpack_from('<4sI', data, place)
        yield kind, view[place + 8 : place + 8 + length]
        place += 8 + length + length % 2
