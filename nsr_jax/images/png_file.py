"""The chunks of PNG files: metadata, and samples for another encoder."""

import re
import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from nsr_jax.images.metadata import Metadata

SIGNATURE = b'\x89PNG\r\n\x1a\n'
_COLOUR = (b'gAMA', b'cHRM', b'sRGB', b'cICP', b'mDCV', b'mDCv', b'cLLI', b'cLLi')
_TEXT = (b'tEXt', b'zTXt', b'iTXt')
# Text that is kept in another way, or would be wrong: XMP, ImageMagick's old profiles except captions, its copies of
# EXIF, and the origin of a thumbnail.
_NO_TEXT = re.compile(
    rb'XML:com\.adobe\.xmp|Raw profile type (?!iptc\0)|Thumb::|(exif|tiff):\w*(Orientation|Dimension|Width|Length)\0',
    re.IGNORECASE,
)
_OLD_PROFILE, _CAPTION = b'Raw profile type ', b'Raw profile type iptc'
CAPTION = 'caption (IPTC)'
_NOT_KEPT = {b'caBX': 'content credentials', b'gmAP': 'gain map', b'gdAT': 'gain map'}
_XMP_KEYWORD = b'XML:com.adobe.xmp'
_EXIF_HEAD, _XMP_SEGMENT_HEAD = b'Exif\0\0', b'http://ns.adobe.com/xap/1.0/\0'
_LARGEST_METADATA = 2**24  # unpacked, in bytes
# These stand for sRGB, which is the default.
_GAMMA_OF_SRGB = {
    b'gAMA': struct.pack('>I', 45_455),
    b'cHRM': struct.pack('>8I', 31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000),
}
_INCHES_IN_METRE = 1 / 0.0254
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by the number of channels
_IHDR_END = len(SIGNATURE) + 25


def chunk(kind: bytes, body: bytes) -> bytes:
    """A whole chunk: length, kind, body and checksum."""
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(body, zlib.crc32(kind)))


def chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and body of each chunk of a PNG file until it breaks off; checksums are not checked."""
    place, view = len(SIGNATURE), memoryview(data)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from('>I4s', data, place)
        yield kind, view[place + 8 : place + 8 + length]
        if kind == b'IEND':
            return
        place += 12 + length


def _first(data: bytes, kind: bytes) -> bytes:
    """The body of the first chunk of a kind; empty if there is none."""
    return next((bytes(body) for other, body in chunks(data) if other == kind), b'')


def number_of_frames(data: bytes) -> int:
    """1, or more if the PNG file is animated."""
    control = _first(data, b'acTL')
    return struct.unpack_from('>I', control)[0] if len(control) == 8 else 1


def resolution(data: bytes) -> tuple[float, float] | None:
    """The resolution of a PNG file in pixels per inch, across and down; None: unknown."""
    body = _first(data, b'pHYs')
    across, down, unit = struct.unpack('>IIB', body) if len(body) == 9 else (0, 0, 0)
    return (across / _INCHES_IN_METRE, down / _INCHES_IN_METRE) if unit == 1 and across and down else None


def kept_chunks(data: bytes) -> bytes:
    """`Metadata.png_chunks` of a PNG file."""
    kept = ((kind, bytes(body)) for kind, body in chunks(data) if kind in _COLOUR + _TEXT)
    return b''.join(chunk(kind, body) for kind, body in kept if kind in _COLOUR or not _NO_TEXT.match(body))


def names_of_kept(chunks_kept: bytes, *, has_profile: bool) -> list[str]:
    """Names of the `Metadata.png_chunks` whose loss matters; a colour profile replaces gamma and primaries."""
    bodies = {kind: bytes(body) for kind, body in chunks(SIGNATURE + chunks_kept)}
    names = [kind.decode() for kind in (b'cICP', b'mDCV', b'mDCv', b'cLLI', b'cLLi') if kind in bodies]
    if not (has_profile or b'sRGB' in bodies):
        names += [kind.decode() for kind, body in _GAMMA_OF_SRGB.items() if bodies.get(kind, body) != body]
    texts = {_keyword(body) for kind, body in chunks(SIGNATURE + chunks_kept) if kind in _TEXT}
    names += [CAPTION] if _CAPTION in texts else []
    return [*names, 'text'] if texts - {_CAPTION} else names


def left_out(data: bytes) -> list[str]:
    """Names of the parts of a PNG file that are not kept."""
    return sorted({_NOT_KEPT[kind] for kind, _ in chunks(data) if kind in _NOT_KEPT})


def profile(data: bytes) -> bytes:
    """The colour profile of a PNG file, even if it does not fit the pixels."""
    if body := _first(data, b'iCCP'):
        return _inflated(body.partition(b'\0')[2][1:])
    return _old_profile(data, b'icc') or _old_profile(data, b'icm')


def exif_and_xmp(data: bytes) -> tuple[bytes, bytes]:
    """The EXIF block and the XMP packet of a PNG file.

    The chunks of the standards come before the texts in which older programs stored them.
    """
    segment = _old_profile(data, b'APP1')  # of a JPEG file
    old_exif, old_xmp = (segment if segment.startswith(head) else b'' for head in (_EXIF_HEAD, _XMP_SEGMENT_HEAD))
    exif = _first(data, b'eXIf') or _old_profile(data, b'exif') or old_exif
    xmp = _text(data, _XMP_KEYWORD) or _old_profile(data, b'xmp') or old_xmp
    return exif.removeprefix(_EXIF_HEAD), xmp.removeprefix(_XMP_SEGMENT_HEAD)


def _keyword(body: memoryview) -> bytes:
    return bytes(body[:80]).partition(b'\0')[0]


def _text(data: bytes, keyword: bytes) -> bytes:
    """The first text with this keyword, whatever its case; empty if there is none, or one that cannot be read."""
    for kind, body in chunks(data):
        if kind in _TEXT and _keyword(body).lower() == keyword.lower():
            text = bytes(body).partition(b'\0')[2]
            if kind == b'tEXt':
                return text
            if kind == b'zTXt':
                return _inflated(text[1:])
            behind_language = text[2:].partition(b'\0')[2].partition(b'\0')[2]
            return _inflated(behind_language) if text[:1] == b'\1' else behind_language
    return b''


def _old_profile(data: bytes, name: bytes) -> bytes:
    """The bytes that ImageMagick stored as a text of hexadecimal digits; empty if there are none, or broken ones."""
    parts = _text(data, _OLD_PROFILE + name).split(None, 2)  # name, length, digits
    try:
        return bytes.fromhex(parts[2].decode('ascii'))
    except (LookupError, ValueError):
        return b''


def _inflated(packed: bytes) -> bytes:
    """Unpacked data; empty if they are broken, or longer than any honest metadata."""
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(packed, _LARGEST_METADATA)
    except zlib.error:
        return b''
    return data if unpacking.eof else b''


def metadata_chunks(metadata: Metadata) -> bytes:
    """The chunks between a PNG file's header and its pixels."""
    parts = [metadata.png_chunks]
    if metadata.icc:
        parts.append(chunk(b'iCCP', b'ICC profile\0\0' + zlib.compress(metadata.icc)))
    if metadata.resolution:
        across, down = (round(each * _INCHES_IN_METRE) for each in metadata.resolution)
        parts.append(chunk(b'pHYs', struct.pack('>IIB', across, down, 1)))
    if metadata.exif:
        parts.append(chunk(b'eXIf', metadata.exif))
    if metadata.xmp:
        parts.append(chunk(b'iTXt', _XMP_KEYWORD + bytes(5) + metadata.xmp))  # uncompressed, without a language
    return b''.join(parts)


def header_and_pixels(start: bytes) -> tuple[int, int] | None:
    """Where the header of a PNG file ends and its pixels begin; None: not within these first bytes."""
    place = _IHDR_END
    while place + 8 <= len(start):
        length, kind = struct.unpack_from('>I4s', start, place)
        if kind == b'IDAT':
            return _IHDR_END, place
        place += 12 + length
    return None


def bare_png(strips: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype) -> Iterator[bytes]:
    """The pieces of a PNG file with uncompressed and unfiltered samples, to be read by another encoder.

    Args:
        strips: (rows, width, channels), from top to bottom.
        shape: height, width and channels of the image.
        dtype: uint8 or uint16.
    """
    height, width, channels = shape
    header = struct.pack('>IIBBBBB', width, height, 8 * dtype.itemsize, _COLOUR_TYPES[channels], 0, 0, 0)
    yield SIGNATURE + chunk(b'IHDR', header)
    packing = zlib.compressobj(0)
    for strip in strips:
        samples = np.ascontiguousarray(strip, dtype.newbyteorder('>')).reshape(len(strip), -1).view(np.uint8)
        rows = np.zeros((len(strip), 1 + samples.shape[1]), np.uint8)  # each begins with the number of its filter
        rows[:, 1:] = samples
        yield chunk(b'IDAT', packing.compress(rows.tobytes()))
    yield chunk(b'IDAT', packing.flush()) + chunk(b'IEND', b'')
