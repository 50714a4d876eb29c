"""The segments of JPEG files: those that are kept, and those that carry metadata."""

import struct
from collections.abc import Iterator

from absl import logging

from nsr_jax.restoring.metadata import Metadata

_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_JFIF, _EXIF_OR_XMP, _ICC, _IPTC, _COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xFE
_APPLICATIONS = range(0xE0, 0xF0)
_LARGEST_BODY = 65_533  # two bytes say how long a segment is, and count themselves
_EXIF_HEAD = b'Exif\0\0'
_XMP_HEAD = b'http://ns.adobe.com/xap/1.0/\0'
_ICC_HEAD = b'ICC_PROFILE\0'


def segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Place, marker and body of each segment between the start of a JPEG file and its pixels, as far as it goes."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # filling
            place += 1
            continue
        if marker in (_SCAN, _END):
            return
        (length,) = struct.unpack_from('>H', data, place + 2)
        yield place, marker, data[place + 4 : place + 2 + length]
        place += 2 + length


def kept_segments(data: bytes) -> bytes:
    """`Metadata.jpeg_segments` of a JPEG file."""
    return b''.join(_segment(marker, body) for _, marker, body in segments(data) if marker in (_IPTC, _COMMENT))


def metadata_segments(metadata: Metadata) -> bytes:
    """The segments that stand between a JPEG file's start and its pixels.

    What is too long for it is left out, with a warning.
    """
    across, down = (min(65_535, max(1, round(each))) for each in metadata.resolution or (1, 1))
    unit = 1 if metadata.resolution else 0
    parts = [_segment(_JFIF, struct.pack('>5sHBHHBB', b'JFIF\0', 0x0101, unit, across, down, 0, 0))]
    for name, head, body in (('EXIF', _EXIF_HEAD, metadata.exif), ('XMP', _XMP_HEAD, metadata.xmp)):
        if len(head + body) > _LARGEST_BODY:
            logging.warning('%d bytes of %s are too long for a JPEG file and are left out', len(body), name)
        elif body:
            parts.append(_segment(_EXIF_OR_XMP, head + body))
    step = _LARGEST_BODY - len(_ICC_HEAD) - 2
    pieces = [metadata.icc[start : start + step] for start in range(0, len(metadata.icc), step)]
    if len(pieces) > 255:  # a byte counts them
        logging.warning('%d bytes of a colour profile are too many for a JPEG file and are left out', len(metadata.icc))
        pieces = []
    parts += [_segment(_ICC, _ICC_HEAD + bytes((i + 1, len(pieces))) + piece) for i, piece in enumerate(pieces)]
    return b''.join([*parts, metadata.jpeg_segments])


def header_and_pixels(start: bytes) -> tuple[int, int] | None:
    """Where in the beginning of a JPEG file its start ends and its metadata ends; None: further on."""
    for place, marker, _ in segments(start):
        if marker not in _APPLICATIONS and marker != _COMMENT:
            return 2, place
    return None


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack('>BBH', 0xFF, marker, len(body) + 2) + body
