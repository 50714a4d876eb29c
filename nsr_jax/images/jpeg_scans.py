"""Where the picture of a JPEG file ends, and whether all of one is there that has no end."""

import re
import struct
from collections.abc import Iterator

import numpy as np

from nsr_jax.images.libvips import pyvips

END = b'\xff\xd9'
# Within the coded picture, 0xFF is a number where zero follows, and restarts are no end.
_MARKER = re.compile(rb'\xff([^\x00\xff\xd0-\xd7])', re.DOTALL)
_END_OF_IMAGE, _START_OF_SCAN, _ALONE = 0xD9, 0xDA, (0x01, 0xD8)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_COEFFICIENTS = 64
_FILLINGS = (b'\x00', b'\x55', b'\xaa')
_FILLING_BYTES = 4096


def end_of_picture(data: bytes) -> int | None:
    """Where the first picture of a JPEG file ends, its end marker included; None: the file ends before."""
    for marker, place in _markers(data):
        if marker == _END_OF_IMAGE:
            return place
    return None


def without_end(data: bytes) -> bytes:
    """A JPEG file that lacks its end marker, without half a marker or the zeros that an interrupted copy leaves."""
    return data.rstrip(b'\0').rstrip(b'\xff')


def is_whole(data: bytes, samples: np.ndarray) -> bool:
    """Whether a JPEG file lacks its end marker alone.

    Args:
        data: as of `without_end`.
        samples: what libvips makes of it with an end behind. It raises where much is missing, and is silent where a
            part of the last rows, or a scan, is.

    Raises:
        pyvips.Error: the file is broken.
    """
    if not _are_all_there(*_frame_and_scans(data)):
        return False
    for filling in _FILLINGS:  # what comes behind a whole picture does not matter
        filled = data + filling * _FILLING_BYTES + END
        image = pyvips.Image.jpegload_buffer(filled, access='sequential', fail_on='none')
        if not np.array_equal(np.frombuffer(image.write_to_memory(), np.uint8), samples.reshape(-1)):
            return False
    return True


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker and where its segment's body begins."""
    place = 2
    while found := _MARKER.search(data, place):
        marker, place = found[1][0], found.end()
        yield marker, place
        if marker not in _ALONE and place + 2 <= len(data):
            place += struct.unpack_from('>H', data, place)[0]


def _frame_and_scans(data: bytes) -> tuple[list[int], list[tuple[bytes, int, int, int]]]:
    """The components of a picture; and of each scan its components, first and last coefficient, and missing bits."""
    frame, scans = [], []
    for marker, place in _markers(data):
        if marker in _FRAMES:
            frame = list(data[place + 8 : place + 8 + 3 * data[place + 7] : 3])
        elif marker == _START_OF_SCAN:
            number = data[place + 2]
            end = place + 3 + 2 * number
            first, last, bits = data[end : end + 3]
            scans.append((data[place + 3 : end : 2], first, last, bits & 15))
    return frame, scans


def _are_all_there(frame: list[int], scans: list[tuple[bytes, int, int, int]]) -> bool:
    """Whether the scans send each coefficient of each component to its last bit."""
    for component in frame:
        sent = set()
        for components, first, last, missing_bits in scans:
            if component in components and not missing_bits:
                sent |= set(range(first, last + 1))
        if len(sent) < _COEFFICIENTS:
            return False
    return bool(frame)
