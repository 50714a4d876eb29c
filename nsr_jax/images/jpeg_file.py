"""JPEG files: their segments, and whether a picture without an end marker is complete."""

import re
import struct
from collections.abc import Iterator

import numpy as np
from absl import logging

from nsr_jax.images.libvips import pyvips
from nsr_jax.images.metadata import Metadata

_END, _SCAN = 0xD9, 0xDA
_JFIF, _EXIF_OR_XMP, _ICC, _DUCKY, _JUMBF, _IPTC, _ADOBE, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEC, 0xEB, 0xED, 0xEE, 0xFE
_APPLICATIONS = range(0xE0, 0xF0)
_LARGEST_BODY = 65_533  # the length of a segment takes two bytes, which it counts
_EXIF_HEAD = b'Exif\0\0'
_XMP_HEAD = b'http://ns.adobe.com/xap/1.0/\0'
_ICC_HEAD = b'ICC_PROFILE\0'
_BLOCK_STARTS = (b'II\x2a\0', b'MM\0\x2a')
# Beginnings of segments that are not kept, and their names in warnings, if any. Thumbnails (JFXX) and the notes of
# encoders (Adobe, Ducky) do not apply to another picture, and nobody misses them.
_OTHERS = {
    (_EXIF_OR_XMP, b'http://ns.adobe.com/xmp/extension/\0'): 'extended XMP',
    (_ICC, b'MPF\0'): 'further pictures (MPF)',
    (_ICC, b'urn:iso:std:iso:ts:21496'): 'gain map (ISO 21496)',
    (_JUMBF, b'JP'): 'content credentials or other JUMBF',
    **dict.fromkeys([(_JFIF, b'JFIF'), (_JFIF, b'JFXX'), (_ADOBE, b'Adobe'), (_DUCKY, b'Ducky'), (_ICC, _ICC_HEAD)]),
}
_PHOTOSHOP_HEAD, _RESOURCE = b'Photoshop 3.0\0', b'8BIM'
# Resolution, thumbnails, print sizes and slices, which describe the original picture.
_OF_SIZE = {0x03ED, 0x0409, 0x040C, 0x0408, 0x041A, 0x0426, 0x0FA0}
END = b'\xff\xd9'
# In coded data, 0xFF before zero is a number, and restart markers end nothing.
_MARKER = re.compile(rb'\xff([^\x00\xff\xd0-\xd7])', re.DOTALL)
_ALONE = (0x01, 0xD8)  # markers without a body
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_COEFFICIENTS = 64
_FILLINGS = (b'\x00', b'\x55', b'\xaa')
_FILLING_BYTES = 4096


def segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Offset, marker and body of each segment before the pixels of a JPEG file, as far as they are whole."""
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
    kept = []
    for _, marker, body in segments(data):
        body = _resources_of_upright(body) if marker == _IPTC else body
        if marker in (_IPTC, _COMMENT) and (body or marker == _COMMENT):
            kept.append(_segment(marker, body))
    return b''.join(kept)


def exif_and_xmp(data: bytes) -> tuple[bytes, bytes]:
    """The first EXIF block of a JPEG file, with the segments that continue it, and the first XMP packet."""
    blocks, xmp = [], b''
    for _, marker, body in segments(data):
        if marker != _EXIF_OR_XMP:
            continue
        if body.startswith(_EXIF_HEAD):
            body = body[len(_EXIF_HEAD) :]
            if not blocks or not body.startswith(_BLOCK_STARTS):
                blocks.append(body)
        elif body.startswith(_XMP_HEAD):
            xmp = xmp or body[len(_XMP_HEAD) :]
    return b''.join(blocks), xmp


def names_of_kept(segments_kept: bytes) -> list[str]:
    """Names of the parts of `Metadata.jpeg_segments`."""
    markers = {marker for _, marker, _ in segments(b'\xff\xd8' + segments_kept)}
    return [name for marker, name in ((_COMMENT, 'comment'), (_IPTC, 'caption (IPTC)')) if marker in markers]


def left_out(data: bytes) -> list[str]:
    """Names of the parts of a JPEG file that are not kept."""
    names: dict[str | None, None] = {}
    blocks = packets = 0
    for _, marker, body in segments(data):
        if marker == _EXIF_OR_XMP and body.startswith(_EXIF_HEAD):
            blocks += body.startswith(_BLOCK_STARTS, len(_EXIF_HEAD))
        elif marker == _EXIF_OR_XMP and body.startswith(_XMP_HEAD):
            packets += 1
        elif marker in _APPLICATIONS and marker != _IPTC:
            title = body.partition(b'\0')[0][:40].decode('ascii', 'replace')
            known = (name for (other, start), name in _OTHERS.items() if marker == other and body.startswith(start))
            names[next(known, f'APP{marker - _JFIF} {title!r}')] = None
    further = [f'{count - 1} further {name}' for name, count in (('EXIF', blocks), ('XMP', packets)) if count > 1]
    if behind := len(data[end_of_picture(data) or len(data) :].strip(b'\0\xff\r\n ')):
        further.append(f'{behind} bytes after the picture (further pictures, a gain map or a film)')
    return [*filter(None, names), *further]


def metadata_segments(metadata: Metadata) -> bytes:
    """The segments before the pixels of a JPEG file; metadata that are too long are left out with a warning."""
    across, down = (min(65_535, max(1, round(each))) for each in metadata.resolution or (1, 1))
    unit = 1 if metadata.resolution else 0
    parts = [_segment(_JFIF, struct.pack('>5sHBHHBB', b'JFIF\0', 0x0101, unit, across, down, 0, 0))]
    for name, head, body in (('EXIF', _EXIF_HEAD, metadata.exif), ('XMP', _XMP_HEAD, metadata.xmp)):
        if len(head + body) > _LARGEST_BODY:
            logging.warning('%s: %d bytes of %s are too long for a JPEG file; left out', metadata.name, len(body), name)
        elif body:
            parts.append(_segment(_EXIF_OR_XMP, head + body))
    step = _LARGEST_BODY - len(_ICC_HEAD) - 2
    pieces = [metadata.icc[start : start + step] for start in range(0, len(metadata.icc), step)]
    if len(pieces) > 255:  # they are counted by one byte
        length = len(metadata.icc)
        logging.warning('%s: %d bytes of colour profile are too long for a JPEG file; left out', metadata.name, length)
        pieces = []
    parts += [_segment(_ICC, _ICC_HEAD + bytes((i + 1, len(pieces))) + piece) for i, piece in enumerate(pieces)]
    return b''.join([*parts, metadata.jpeg_segments])


def header_and_pixels(start: bytes) -> tuple[int, int] | None:
    """Where the metadata of a JPEG file begin and end; None: they do not end within these first bytes."""
    for place, marker, _ in segments(start):
        if marker not in _APPLICATIONS and marker != _COMMENT:
            return 2, place
    return None


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack('>BBH', 0xFF, marker, len(body) + 2) + body


def _resources_of_upright(body: bytes) -> bytes:
    """A segment's body without the resources that describe the picture's size; empty if nothing remains.

    A segment of another layout, or one that continues in the next, is returned unchanged.
    """
    if not body.startswith(_PHOTOSHOP_HEAD):
        return body
    kept, place, filling = [], len(_PHOTOSHOP_HEAD), len(body.rstrip(b'\0'))
    while place < filling:
        try:
            mark, kind, name = struct.unpack_from('>4sHB', body, place)
            start = place + 7 + name + (name + 1) % 2  # the name and its length take an even number of bytes
            (size,) = struct.unpack_from('>I', body, start)
        except struct.error:
            return body
        end = start + 4 + size
        if mark != _RESOURCE or end > len(body):
            return body
        end += size % 2
        if kind not in _OF_SIZE:
            kept.append(body[place:end])
        place = end
    return _PHOTOSHOP_HEAD + b''.join(kept) if kept else b''


def end_of_picture(data: bytes) -> int | None:
    """The offset after the end marker of a JPEG file's first picture; None: the marker is missing."""
    return next((place for marker, place in _markers(data) if marker == _END), None)


def without_end(data: bytes) -> bytes:
    """A JPEG file that lacks its end marker, without the half marker or the zeros that an interrupted copy leaves."""
    return data.rstrip(b'\0').rstrip(b'\xff')


def is_whole(data: bytes, samples: np.ndarray) -> bool:
    """Whether a JPEG file lacks only its end marker.

    Args:
        data: as from `without_end`.
        samples: decoded by libvips with an end marker appended. libvips raises if much is missing, but not for a
            missing scan or missing parts of the last rows.

    Raises:
        pyvips.Error: the file is broken.
    """
    if not _has_all_scans(data):
        return False
    for filling in _FILLINGS:  # bytes after a complete picture do not change it
        filled = data + filling * _FILLING_BYTES + END
        image = pyvips.Image.jpegload_buffer(filled, access='sequential', fail_on='none')
        if not np.array_equal(np.frombuffer(image.write_to_memory(), np.uint8), samples.reshape(-1)):
            return False
    return True


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker and the offset of its segment's body."""
    place = 2
    while found := _MARKER.search(data, place):
        marker, place = found[1][0], found.end()
        yield marker, place
        if marker not in _ALONE and place + 2 <= len(data):
            place += struct.unpack_from('>H', data, place)[0]


def _has_all_scans(data: bytes) -> bool:
    """Whether the scans hold every bit of each coefficient of each component."""
    missing: dict[int, set[int]] = {}  # coefficients by component
    for marker, place in _markers(data):
        if marker in _FRAMES:
            components = data[place + 8 : place + 8 + 3 * data[place + 7] : 3]
            missing = {component: set(range(_COEFFICIENTS)) for component in components}
        elif marker == _SCAN:
            end = place + 3 + 2 * data[place + 2]
            first, last, bits = data[end : end + 3]
            for component in data[place + 3 : end : 2]:
                if component in missing and not bits & 15:  # else lower bits follow in other scans
                    missing[component] -= set(range(first, last + 1))
    return bool(missing) and not any(missing.values())
