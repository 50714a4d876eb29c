"""Photoshop's resources, in which JPEG files keep captions (IPTC)."""

import struct
from collections.abc import Iterator

_HEAD, _MARK = b'Photoshop 3.0\0', b'8BIM'
# Resolution, thumbnails, print sizes and slices of the former picture, of which the rest says nothing.
_OF_SIZE = {0x03ED, 0x0409, 0x040C, 0x0408, 0x041A, 0x0426, 0x0FA0}


def resources_of_upright(body: bytes) -> bytes:
    """The body of a segment without what says something of the picture's size; empty where nothing is left.

    A segment that is laid out otherwise stays as it is.
    """
    if not body.startswith(_HEAD):
        return body
    kept = []
    for kind, resource in _resources(body):
        if kind is None:  # not laid out so
            return body
        if kind not in _OF_SIZE:
            kept.append(resource)
    return _HEAD + b''.join(kept) if kept else b''


def _resources(body: bytes) -> Iterator[tuple[int | None, bytes]]:
    """Kind and bytes of each resource; a kind of None at the end of what is none."""
    place = len(_HEAD)
    while place < len(body):
        if body[place : place + 4] != _MARK or place + 7 > len(body):
            yield (None, b'') if any(body[place:]) else (0, b'')
            return
        (kind,) = struct.unpack_from('>H', body, place + 4)
        length = body[place + 6] + 1  # of the name and the byte that says how long it is
        start = place + 6 + length + length % 2
        if start + 4 > len(body):
            yield None, b''
            return
        (size,) = struct.unpack_from('>I', body, start)
        end = start + 4 + size + size % 2
        if start + 4 + size > len(body):  # it goes on in another segment
            yield None, b''
            return
        yield kind, body[place:end]
        place = end
