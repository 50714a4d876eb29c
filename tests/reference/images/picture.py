"""The picture in all the files of this folder, by formulas; as a script, writes it for make.sh (PNM and PAM)."""

import pathlib
import sys

import numpy as np

HEIGHT, WIDTH = 13, 19
_Y, _X = np.mgrid[:HEIGHT, :WIDTH]

RGB8 = np.stack([12 * _X + 3, 250 - 15 * _Y, 7 * _X + 9 * _Y], axis=-1).astype(np.uint8)
# The low bytes are others than the high ones: who loses them is seen.
RGB16 = RGB8 * np.uint16(256) + np.stack([5 * _Y + 1, 11 * _X, 3 * _X + _Y], axis=-1).astype(np.uint16)
GRAY8, GRAY16 = RGB8[..., 2:], RGB16[..., 2:]
ALPHA8 = np.clip(16 * _X - 20, 0, 255).astype(np.uint8)
ALPHA16 = np.where(ALPHA8 % 255 == 0, ALPHA8 * np.uint16(257), ALPHA8 * np.uint16(256) + 7 * _Y).astype(np.uint16)
CUT = np.where(_X > _Y, 255, 0).astype(np.uint8)  # all or nothing, as palettes have it
BILEVEL = ((_X * _Y) % 3 == 0)[..., None]  # True is white


def _pam(samples: np.ndarray, kind: str) -> bytes:
    height, width, channels = samples.shape
    head = f'P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {channels}\nMAXVAL {np.iinfo(samples.dtype).max}\n'
    return f'{head}TUPLTYPE {kind}\nENDHDR\n'.encode() + _big_endian(samples)


def _pnm(samples: np.ndarray) -> bytes:
    height, width, channels = samples.shape
    head = f'P{5 if channels == 1 else 6}\n{width} {height}\n{np.iinfo(samples.dtype).max}\n'
    return head.encode() + _big_endian(samples)


def _big_endian(samples: np.ndarray) -> bytes:
    return samples.astype(samples.dtype.newbyteorder('>')).tobytes()


def _files() -> dict[str, bytes]:
    bits = np.packbits(~BILEVEL[..., 0], axis=1)  # PBM's ones are black
    return {
        'gray8.pnm': _pnm(GRAY8),
        'gray16.pnm': _pnm(GRAY16),
        'rgb8.pnm': _pnm(RGB8),
        'rgb16.pnm': _pnm(RGB16),
        'bilevel.pnm': f'P4\n{WIDTH} {HEIGHT}\n'.encode() + bits.tobytes(),
        'rgba8.pam': _pam(np.dstack([RGB8, ALPHA8]), 'RGB_ALPHA'),
        'rgba16.pam': _pam(np.dstack([RGB16, ALPHA16]), 'RGB_ALPHA'),
        'rgba_cut.pam': _pam(np.dstack([RGB8, CUT]), 'RGB_ALPHA'),
        'gray_alpha8.pam': _pam(np.dstack([GRAY8, ALPHA8]), 'GRAYSCALE_ALPHA'),
        'gray_alpha16.pam': _pam(np.dstack([GRAY16, ALPHA16]), 'GRAYSCALE_ALPHA'),
    }


if __name__ == '__main__':
    for name, data in _files().items():
        (pathlib.Path(sys.argv[1]) / name).write_bytes(data)
