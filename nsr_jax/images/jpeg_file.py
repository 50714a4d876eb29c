"""The segments of JPEG files: those that are kept, and those that carry metadata."""

import struct
from collections.abc import Iterator

from absl import logging

from nsr_jax.images.jpeg_scans import end_of_picture
from nsr_jax.images.metadata import Metadata
from nsr_jax.images.photoshop import resources_of_upright

_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_JFIF, _EXIF_OR_XMP, _ICC, _DUCKY, _JUMBF, _IPTC, _ADOBE, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEC, 0xEB, 0xED, 0xEE, 0xFE
_APPLICATIONS = range(0xE0, 0xF0)
_LARGEST_BODY = 65_533  # two bytes say how long a segment is, and count themselves
_EXIF_HEAD = b'Exif\0\0'
_XMP_HEAD = b'http://ns.adobe.com/xap/1.0/\0'
_ICC_HEAD = b'ICC_PROFILE\0'
_BLOCK_STARTS = (b'II\x2a\0', b'MM\0\x2a')
# What begins a segment that is not kept, and what it is called. Thumbnails (JFXX) and what encoders say of themselves
# (Adobe, Ducky) are no longer true of another picture, and nobody misses them.
_OTHERS = {
    (_EXIF_OR_XMP, b'http://ns.adobe.com/xmp/extension/\0'): 'extended XMP',
    (_ICC, b'MPF\0'): 'further pictures (MPF)',
    (_ICC, b'urn:iso:std:iso:ts:21496'): 'gain map (ISO 21496)',
    (_JUMBF, b'JP'): 'content credentials or other JUMBF',
}
_SILENT = ((_JFIF, b'JFIF'), (_JFIF, b'JFXX'), (_ADOBE, b'Adobe'), (_DUCKY, b'Ducky'), (_ICC, _ICC_HEAD))


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
    kept = []
    for _, marker, body in segments(data):
        body = resources_of_upright(body) if marker == _IPTC else body
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
    """What `Metadata.jpeg_segments` are called, each once."""
    markers = {marker for _, marker, _ in segments(b'\xff\xd8' + segments_kept)}
    return [name for marker, name in ((_COMMENT, 'comment'), (_IPTC, 'caption (IPTC)')) if marker in markers]


def left_out(data: bytes) -> list[str]:
    """Names of what a JPEG file holds that is not kept, each once."""
    names: dict[str, None] = {}
    blocks = packets = 0
    for _, marker, body in segments(data):
        if marker == _EXIF_OR_XMP and body.startswith(_EXIF_HEAD):
            blocks += body.startswith(_BLOCK_STARTS, len(_EXIF_HEAD))
        elif marker == _EXIF_OR_XMP and body.startswith(_XMP_HEAD):
            packets += 1
        elif (
            marker in _APPLICATIONS
            and marker != _IPTC
            and not any(marker == known and body.startswith(start) for known, start in _SILENT)
        ):
            names[_name_of(marker, body)] = None
    if behind := len(data[end_of_picture(data) or len(data) :].strip(b'\0\xff\r\n ')):
        names[f'{behind} bytes behind the picture (further pictures, a gain map or a film)'] = None
    if blocks > 1:
        names[f'{blocks - 1} further EXIF'] = None
    if packets > 1:
        names[f'{packets - 1} further XMP'] = None
    return list(names)


def _name_of(marker: int, body: bytes) -> str:
    for (known, start), name in _OTHERS.items():
        if marker == known and body.startswith(start):
            return name
    title = body.partition(b'\0')[0][:40]
    return f'APP{marker - _JFIF} {title.decode("ascii", "replace")!r}'


def metadata_segments(metadata: Metadata) -> bytes:
    """The segments that stand between a JPEG file's start and its pixels.

    What is too long for it is left out, with a warning.
    """
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
    if len(pieces) > 255:  # a byte counts them
        length = len(metadata.icc)
        logging.warning('%s: %d bytes of colour profile are too long for a JPEG file; left out', metadata.name, length)
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
