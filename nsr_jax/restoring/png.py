"""The chunks of PNG files: those that are kept, and those that carry metadata or bare samples."""

import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from absl import logging

from nsr_jax.restoring.metadata import Metadata

SIGNATURE = b'\x89PNG\r\n\x1a\n'
_KEPT = (b'gAMA', b'cHRM', b'sRGB', b'cICP', b'mDCV', b'cLLI', b'tEXt', b'zTXt', b'iTXt')
# Text that says elsewhere what is kept otherwise, or would be no longer true: XMP, and ImageMagick's older profiles.
_NO_TEXT = (b'XML:com.adobe.xmp', b'Raw profile type ')
_XMP_HEAD = b'XML:com.adobe.xmp\0\0\0\0\0'  # not compressed, of no language
_INCHES_IN_METRE = 1 / 0.0254
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by the number of channels
_IHDR_END = len(SIGNATURE) + 25


def chunk(kind: bytes, body: bytes) -> bytes:
    """A whole chunk: length, kind, body and checksum."""
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(body, zlib.crc32(kind)))


def chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and body of each chunk of a PNG file, as far as it goes; checksums are not looked at."""
    place, view = len(SIGNATURE), memoryview(data)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from('>I4s', data, place)
        yield kind, view[place + 8 : place + 8 + length]
        place += 12 + length


def number_of_frames(data: bytes) -> int:
    """1, or more where the PNG file is animated."""
    controls = (body for kind, body in chunks(data) if kind == b'acTL' and len(body) == 8)
    return max((struct.unpack_from('>I', body)[0] for body in controls), default=1)


def resolution(data: bytes) -> tuple[float, float] | None:
    """In pixels per inch, across and down, of a PNG file; None: it does not say."""
    for kind, body in chunks(data):
        if kind == b'pHYs' and len(body) == 9:
            across, down, unit = struct.unpack('>IIB', body)
            return (across / _INCHES_IN_METRE, down / _INCHES_IN_METRE) if unit == 1 and across and down else None
    return None


def kept_chunks(data: bytes) -> bytes:
    """`Metadata.png_chunks` of a PNG file."""
    kept = ((kind, bytes(body)) for kind, body in chunks(data) if kind in _KEPT)
    return b''.join(chunk(kind, body) for kind, body in kept if not body.startswith(_NO_TEXT))


def metadata_chunks(metadata: Metadata, channels: int) -> bytes:
    """The chunks that stand between a PNG file's header and its pixels.

    A profile for colours beside gray pixels is left out, with a warning, as PNG forbids it; and the reverse.
    """
    parts = [metadata.png_chunks]
    space = metadata.icc[16:20]
    if space and space != (b'GRAY' if channels < 3 else b'RGB '):
        logging.warning('a colour profile for %s does not fit %d channels of a PNG file; left out', space, channels)
    elif space:
        parts.append(chunk(b'iCCP', b'ICC profile\0\0' + zlib.compress(metadata.icc)))
    if metadata.resolution:
        across, down = (round(each * _INCHES_IN_METRE) for each in metadata.resolution)
        parts.append(chunk(b'pHYs', struct.pack('>IIB', across, down, 1)))
    if metadata.exif:
        parts.append(chunk(b'eXIf', metadata.exif))
    if metadata.xmp:
        parts.append(chunk(b'iTXt', _XMP_HEAD + metadata.xmp))
    return b''.join(parts)


def header_and_pixels(start: bytes) -> tuple[int, int] | None:
    """Where in the beginning of a PNG file its header ends and where its pixels begin; None: further on."""
    place = _IHDR_END
    while place + 8 <= len(start):
        length, kind = struct.unpack_from('>I4s', start, place)
        if kind == b'IDAT':
            return _IHDR_END, place
        place += 12 + length
    return None


def bare_png(strips: Iterable[np.ndarray], height: int, width: int, channels: int, dtype: np.dtype) -> Iterator[bytes]:
    """The pieces of a PNG file that holds samples as they are, neither compressed nor filtered, for another encoder.

    Args:
        strips: (rows, width, channels), from top to bottom.
        height: of the image.
        width: likewise.
        channels: likewise.
        dtype: uint8 or uint16.
    """
    header = struct.pack('>IIBBBBB', width, height, 8 * dtype.itemsize, _COLOUR_TYPES[channels], 0, 0, 0)
    yield SIGNATURE + chunk(b'IHDR', header)
    packing = zlib.compressobj(0)
    for strip in strips:
        samples = np.ascontiguousarray(strip, dtype.newbyteorder('>')).reshape(len(strip), -1).view(np.uint8)
        rows = np.zeros((len(strip), 1 + samples.shape[1]), np.uint8)  # before each row, the number of its filter
        rows[:, 1:] = samples
        yield chunk(b'IDAT', packing.compress(rows))
    yield chunk(b'IDAT', packing.flush()) + chunk(b'IEND', b'')
