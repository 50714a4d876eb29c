"""BMP files: which of the samples that Pillow reads are valid, and the colour profile, which Pillow ignores."""

import struct

import numpy as np
import PIL.Image

_HEADER, _ALPHA_MASK, _COLOUR_SPACE, _PROFILE = 14, 66, 70, 126  # their offsets
_LONGEST_HEADER, _EMBEDDED = 124, b'DEBM'  # MBED, as a little-endian number


def samples_of(image: PIL.Image.Image, data: bytes) -> np.ndarray:
    """The samples of an opened image, (H, W) or (H, W, 3 or 4); raises Pillow's errors for broken files.

    A fourth channel that has no mask or is zero everywhere is not transparency: writers of 32 bits a pixel leave it
    empty.
    """
    mode = {'1': 'L', 'P': 'RGB'}.get(image.mode)
    samples = np.asarray(image.convert(mode) if mode else image)
    if samples.ndim == 3 and samples.shape[2] == 4 and not (any(data[_ALPHA_MASK:][:4]) and samples[..., 3].any()):
        return samples[..., :3]
    return samples


def profile(data: bytes) -> bytes:
    """The colour profile of a file; empty if there is none."""
    if len(data) < _HEADER + _LONGEST_HEADER or struct.unpack_from('<I', data, _HEADER)[0] != _LONGEST_HEADER:
        return b''
    if data[_COLOUR_SPACE:][:4] != _EMBEDDED:
        return b''
    start, size = struct.unpack_from('<II', data, _PROFILE)
    return data[_HEADER + start :][:size]
