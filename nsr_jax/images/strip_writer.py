"""Encoding PNG and JPEG by libvips while the strips of an image are still being made, a few of them held at a time."""

import queue
import threading
from collections.abc import Callable, Iterable
from typing import BinaryIO

import numpy as np

from nsr_jax.images import jpeg_file, png_file
from nsr_jax.images.libvips import pyvips
from nsr_jax.images.metadata import Metadata

_PLACES = {'PNG': png_file.header_and_pixels, 'JPEG': jpeg_file.header_and_pixels}


def write_stream(
    file: BinaryIO,
    strips: Iterable[np.ndarray],
    height: int,
    width: int,
    channels: int,
    dtype: np.dtype,
    form: str,
    metadata: Metadata,
    quality: int,
) -> None:
    """Write an image, pulling its strips in this thread while another one encodes.

    So whoever makes the strips works in the thread that he was started in, and may be interrupted: libvips would pull
    them in its own threads, where Python sees neither signals nor exceptions.

    Args:
        file: written from where it stands.
        strips: (rows, width, channels), from top to bottom, exactly `height` rows of them.
        height: of the image.
        width: likewise.
        channels: likewise.
        dtype: uint8 or uint16.
        form: 'PNG' or 'JPEG'.
        metadata: of the image as it is written.
        quality: of JPEG, 1 to 100.

    Raises:
        OSError: the file cannot be written.
        pyvips.Error: libvips fails otherwise.
    """
    laid = png_file.metadata_chunks(metadata) if form == 'PNG' else jpeg_file.metadata_segments(metadata)
    output = _Output(file, laid, _PLACES[form])

    def encode(image: pyvips.Image, target: pyvips.TargetCustom) -> None:
        if form == 'PNG':
            image.pngsave_target(target, compression=6, filter='all', keep='none')
        else:
            image.jpegsave_target(target, Q=quality, keep='none')

    _Pipe(encode, output).run(png_file.bare_png(strips, height, width, channels, dtype))


class _Output:
    """A file whose metadata are ours: what the encoder writes of its own between header and pixels is replaced."""

    def __init__(self, file: BinaryIO, metadata: bytes, places: Callable[[bytes], tuple[int, int] | None]):
        self._file = file
        self._metadata = metadata
        self._places = places
        self._start: bytes | None = b''  # not yet written; None once the pixels have begun

    def write(self, data: bytes) -> None:
        if self._start is not None:
            self._start += data
            if (places := self._places(self._start)) is None:
                return
            data = self._start[: places[0]] + self._metadata + self._start[places[1] :]
            self._start = None
        self._file.write(data)


class _Pipe:
    """Hands the pieces of a bare PNG file to an encoder in another thread."""

    def __init__(self, encode: Callable[[pyvips.Image, pyvips.TargetCustom], None], output: _Output):
        self._encode = encode
        self._output = output
        self._waiting: queue.Queue[bytes | None] = queue.Queue(maxsize=1)
        self._piece: memoryview | None = memoryview(b'')  # what is left of the one in hand; None after the last
        self._failures: list[Exception] = []

    def run(self, pieces: Iterable[bytes]) -> None:
        thread = threading.Thread(target=self._work, daemon=True)
        thread.start()
        try:
            for piece in pieces:
                self._waiting.put(piece)
                if self._failures:
                    break
        finally:  # what ends too early, the encoder takes for a truncated file, and stops
            self._waiting.put(None)
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _work(self) -> None:
        source, target = pyvips.SourceCustom(), pyvips.TargetCustom()
        source.on_read(self._read)
        target.on_write(self._write)
        try:
            image = pyvips.Image.pngload_source(source, access='sequential', fail_on='error', unlimited=True)
            self._encode(image, target)
        except pyvips.Error as error:
            self._failures.append(error)
        finally:
            while self._piece is not None:  # so that nobody waits for a place in the queue
                self._next_piece()

    def _next_piece(self) -> None:
        piece = self._waiting.get()
        self._piece = None if piece is None else memoryview(piece)

    def _read(self, size: int) -> memoryview:
        while self._piece is not None and not self._piece:
            self._next_piece()
        if self._piece is None:
            return memoryview(b'')
        data, self._piece = self._piece[:size], self._piece[size:]
        return data

    def _write(self, data: bytes) -> int:
        try:
            self._output.write(bytes(data))
        except OSError as error:  # C would not hand it on
            self._failures.append(error)
            return -1
        return len(data)
