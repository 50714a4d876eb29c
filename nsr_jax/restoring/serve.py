"""A server that restores images for the browsers and programs of one machine.

    GET  /                        a page onto which images are dropped
    POST /restore?name=photo.jpg  the bytes of an image file; the answer is the restored file, or {"error": "…"}

Any web page that a user has open may send requests to this machine. Requests whose Host is not a name of this server
(DNS rebinding) or whose Origin is another page are therefore refused. Nothing is written but temporary files without a
name. Images are restored one after another, by one thread.
"""

import concurrent.futures
import contextlib
import dataclasses
import http.server
import ipaddress
import json
import pathlib
import re
import select
import shutil
import signal
import socket
import socketserver
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterator
from http import HTTPStatus
from typing import Any, BinaryIO

from absl import logging

from nsr_jax.errors import UserError, printable
from nsr_jax.images.formats import FORMATS, suffix_of, takes_quality
from nsr_jax.images.reading import read_photo
from nsr_jax.images.writing import write_photo
from nsr_jax.inference.restorer import Restorer
from nsr_jax.page import render
from nsr_jax.restoring.restore_files import errors_named, kind_of_output, named_strips

_HOST = re.compile(r'(?:\[([\da-f:.]+)\]|([\w.-]+))(?::\d+)?')  # an address of IPv6 or a name, and a port
_LOCAL_NAMES = ('localhost', '127.0.0.1', '::1')
_TYPES = {form: f'image/{form.lower()}' for form in FORMATS}
_HEADERS = {
    'Cache-Control': 'no-store',
    'Content-Security-Policy': (
        "default-src 'none'; connect-src 'self'; img-src blob: data:; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
}
_PIECE = 2**16
_SECONDS_BETWEEN_BYTES = 30  # then a connection counts as dead
_SECONDS_TO_UPLOAD = 300
_LONGEST_NAME = 200


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the server accepts.

    Attributes:
        megabytes: of an uploaded file, 10^6 bytes each.
        pixels: of an image.
        waiting: images that wait while another one is restored.
    """

    megabytes: int
    pixels: int
    waiting: int


class _RefusedError(Exception):
    """A request that is answered by an error."""

    def __init__(self, status: HTTPStatus, reason: str):
        super().__init__(reason)
        self.status = status


class _AbandonedError(Exception):
    """Nobody waits for the image any more: its client is gone, or the server ends."""


class Server(http.server.ThreadingHTTPServer):
    """Listens from the start; `run` answers until it is told to end.

    Attributes:
        url: of the page.
    """

    daemon_threads = True

    def __init__(
        self,
        restorer: Restorer,
        *,
        title: str,
        host: str,
        port: int,
        limits: Limits,
        names: Collection[str] = (),
        output_format: str | None = None,
        quality: int | None = None,
    ):
        """Listen at an address.

        Args:
            restorer: the networks.
            title: of the page.
            host: an address or name of this machine.
            port: from 1 to 65535; 0: any that is free.
            limits: of requests.
            names: of this machine beside `host` and those of the loopback address, by which clients may ask for it.
            output_format: one of `formats.FORMATS`, for all images; None: each one's own.
            quality: 1 to 100, for JPEG and WebP; None: the format's default, and lossless WebP.

        Raises:
            UserError: it cannot listen there.
        """
        self.restorer = restorer
        self.title = title
        self.limits = limits
        self.output_format = output_format
        self.quality = quality
        self.names = {*_LOCAL_NAMES, *(name.lower() for name in (host, *names))}
        self._places = threading.Semaphore(limits.waiting + 1)
        self._worker = concurrent.futures.ThreadPoolExecutor(1)
        self._ends = threading.Event()
        self.address_family = socket.AF_INET6 if ':' in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (OSError, TypeError) as error:  # the latter of what cannot be a name
            reason = getattr(error, 'strerror', None) or error
            raise UserError(f'--host={host} --port={port}: cannot listen there: {reason}') from error
        self.url = f'http://{f"[{host}]" if ":" in host else host}:{self.server_address[1]}/'

    def server_bind(self) -> None:
        """Bind the address, without the look-up of the machine's full name that may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def run(self) -> None:
        """Answer until SIGINT or SIGTERM; the image that is restored then is given up."""

        def end(*_: Any) -> None:
            threading.Thread(target=self.shutdown).start()  # which waits for the loop that this signal interrupts

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        self.serve_forever()
        self.server_close()

    def server_close(self) -> None:
        """Give up the image that is restored and those that wait, and close the socket."""
        self._ends.set()
        self._worker.shutdown(cancel_futures=True)
        super().server_close()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue, from before the upload, which bounds the memory; refuses if there is none."""
        if not self._places.acquire(blocking=False):
            raise _RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, f'{self.limits.waiting} images are waiting already: try again later'
            )
        try:
            yield
        finally:
            self._places.release()

    def restore(self, data: bytes, name: str, is_gone: Callable[[], bool]) -> tuple[BinaryIO, str]:
        """Wait for the images before, then restore one; gives the file, to be closed, and its format.

        Raises:
            UserError: the image cannot be restored.
            _AbandonedError: it need not be restored any more.
        """
        try:
            return self._worker.submit(self._restore, data, name, is_gone).result()
        except (concurrent.futures.CancelledError, RuntimeError) as error:
            if not self._ends.is_set():
                raise
            raise _AbandonedError('the server ends') from error

    def _restore(self, data: bytes, name: str, is_gone: Callable[[], bool]) -> tuple[BinaryIO, str]:
        def look(share: float) -> None:
            del share
            if self._ends.is_set():
                raise _AbandonedError('the server ends')
            if is_gone():
                raise _AbandonedError('the client is gone')

        look(0)
        photo = read_photo(data, name=name, largest_pixels=self.limits.pixels)
        form = self.output_format or photo.format
        with errors_named(name):
            strips = self.restorer.strips(photo.pixels, photo.alpha, on_progress=look)
        about = kind_of_output(photo, self.restorer.scale) | {'format': form, 'metadata': photo.metadata}
        quality = self.quality if takes_quality(form) else None
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(tempfile.TemporaryFile())
            write_photo(file, named_strips(name, strips), name=name, quality=quality, **about)
            stack.pop_all()  # the caller closes it
        return file, form


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    timeout = _SECONDS_BETWEEN_BYTES
    server_version = 'nsr_jax'
    sys_version = ''

    def do_GET(self) -> None:
        """Send the page."""
        with self._answering():
            self._check_origin()
            if self._target().path != '/':
                raise _RefusedError(HTTPStatus.NOT_FOUND, 'there is only the page / and POST /restore')
            page = render('nsr_jax.restoring', 'serve.html', title=self.server.title, limits=self.server.limits)
            self._send(HTTPStatus.OK, 'text/html; charset=utf-8', page.encode())

    def do_POST(self) -> None:
        """Restore an image."""
        with self._answering():
            self._check_origin()
            if self._target().path != '/restore':
                raise _RefusedError(HTTPStatus.NOT_FOUND, 'images are sent to /restore')
            size, name = self._size(), self._name()
            with self.server.place():
                started = time.monotonic()
                file, form = self.server.restore(self._upload(size), name, self._is_gone)
            with file:
                logging.info('%s: restored in %.1f s', name, time.monotonic() - started)
                self._send_file(file, form, name)

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """Answer errors."""
        try:
            yield
        except _RefusedError as error:
            self._refuse(error.status, str(error))
        except UserError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except _AbandonedError as error:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except OSError as error:  # of the connection
            logging.info('a client is gone: %s', error)
        except Exception:  # nothing is above this but a thread that would end without an answer
            logging.exception('a defect')
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, 'a defect of the server, which its log describes')

    def _check_origin(self) -> None:
        host = self.headers.get('Host', '').lower()
        named = _HOST.fullmatch(host)
        if named is None or (named[1] or named[2]) not in self.server.names:
            raise _RefusedError(HTTPStatus.FORBIDDEN, f'this server is not called {host!r}')
        origin = self.headers.get('Origin')
        if origin is not None and origin.partition('://')[2].lower() != host:
            raise _RefusedError(HTTPStatus.FORBIDDEN, f'requests from the page {origin!r} are not accepted')

    def _target(self) -> urllib.parse.SplitResult:
        try:
            return urllib.parse.urlsplit(self.path)
        except ValueError as error:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, f'{self.path} is no address: {error}') from error

    def _name(self) -> str:
        asked = urllib.parse.parse_qs(self._target().query).get('name', ['image'])[0]
        return printable(pathlib.PurePosixPath(asked).name[-_LONGEST_NAME:]) or 'image'

    def _size(self) -> int:
        given, most = self.headers.get('Content-Length', ''), self.server.limits.megabytes
        if not (given.isascii() and given.isdigit()):
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, 'the request must have a Content-Length')
        if int(given) > most * 10**6:
            size = f'{int(given) / 10**6:.1f} MB are more than the {most} MB that are accepted'
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, size)
        return int(given)

    def _upload(self, size: int) -> bytes:
        pieces, deadline = bytearray(), time.monotonic() + _SECONDS_TO_UPLOAD
        while len(pieces) < size:
            piece = self.rfile.read1(min(_PIECE, size - len(pieces)))
            if not piece or time.monotonic() > deadline:
                raise _RefusedError(HTTPStatus.REQUEST_TIMEOUT, 'the upload was not finished')
            pieces += piece
        return bytes(pieces)

    def _is_gone(self) -> bool:
        ready, _, _ = select.select([self.connection], [], [], 0)
        return bool(ready) and not self.connection.recv(1, socket.MSG_PEEK)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        line = printable(reason)
        logging.info('%d: %s', status, line)
        with contextlib.suppress(OSError):  # of a client that is gone
            self._send(status, 'application/json', json.dumps({'error': line}).encode() + b'\n')
            self._read_rest()

    def _read_rest(self) -> None:
        """Read what the client still sends, for a while: closing before would take the answer from it."""
        deadline = time.monotonic() + 2
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(1)
        while self.rfile.read1(_PIECE) and time.monotonic() < deadline:
            pass

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self._send_head(status, kind, len(body), {})
        self.wfile.write(body)

    def _send_file(self, file: BinaryIO, form: str, name: str) -> None:
        target = urllib.parse.quote(pathlib.PurePath(name).stem + suffix_of(form), safe='')
        disposition = {'Content-Disposition': f"attachment; filename*=UTF-8''{target}"}
        size = file.seek(0, 2)
        file.seek(0)
        self._send_head(HTTPStatus.OK, _TYPES[form], size, disposition)
        shutil.copyfileobj(file, self.wfile)

    def _send_head(self, status: HTTPStatus, kind: str, size: int, more: dict[str, str]) -> None:
        self.send_response(status)
        for header, value in {**_HEADERS, 'Content-Type': kind, 'Content-Length': str(size), **more}.items():
            self.send_header(header, value)
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request, or one of another method, as all errors are answered."""
        del explain
        self._refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def log_message(self, format: str, *values: Any) -> None:
        """Log nothing of requests that go well; errors are logged with their reason."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address or name."""
    if host.lower() == 'localhost':
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
