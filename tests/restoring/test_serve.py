"""The server: what it answers, what it refuses, how it ends, and its page in a real Chromium."""

import base64
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import sys
import threading
import time
import types

import numpy as np
import PIL.Image
import pytest

from nsr_jax.errors import UserError
from nsr_jax.inference.restorer import Restorer
from nsr_jax.models.build import build_network
from nsr_jax.restoring.serve import Limits, Server, is_loopback
from tests.browser import start_browser

LIMITS = Limits(megabytes=1, pixels=10_000, waiting=1)
SECONDS = 60  # an answer that takes longer hangs


class Doubler:
    """Stands for a restorer: repeats each pixel, row by row, and waits after the first row while `may_go` is unset."""

    scale = 2

    def __init__(self):
        self.may_go, self.begun, self.seen = threading.Event(), threading.Event(), 0
        self.may_go.set()

    def strips(self, pixels, alpha, *, on_progress):
        pixels = pixels if alpha is None else np.dstack([pixels, alpha])

        def rows():
            for index, row in enumerate(pixels):
                self.begun.set()
                deadline = time.monotonic() + SECONDS
                while not self.may_go.wait(0.05):
                    assert time.monotonic() < deadline
                    on_progress(index / len(pixels))
                self.seen += 1
                yield row[None].repeat(2, axis=0).repeat(2, axis=1)

        return rows()


@contextlib.contextmanager
def serving(restorer, **options):
    server = Server(restorer, **{'title': 'A title', 'host': '127.0.0.1', 'port': 0, 'limits': LIMITS} | options)
    thread = threading.Thread(target=server.serve_forever, args=[0.02])
    defects = []
    server.handle_error = lambda *request: defects.append(sys.exc_info()[1])
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert defects == []


@pytest.fixture
def doubler():
    return Doubler()


@pytest.fixture
def server(doubler):
    with serving(doubler) as server:
        yield server


def ask(server, method='POST', path='/restore?name=a.png', body=None, **headers):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection('127.0.0.1', server.server_address[1], timeout=SECONDS)
    connection.request(method, path, body, {name.replace('_', '-'): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def error_of(answer, status):
    assert answer[0] == status
    assert answer[1]['Content-Type'] == 'application/json'
    assert answer[2].count(b'\n') == 1 and answer[2].endswith(b'\n')
    return json.loads(answer[2])['error']


def image_file(shape=(7, 9, 3), form='PNG', **options):
    pixels = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, form, **options)
    return pixels, buffer.getvalue()


def test_an_image_comes_back_with_its_metadata(server):
    pixels, body = image_file((7, 9, 4), dpi=(300, 300))
    status, headers, answer = ask(server, path='/restore?name=%2Fhome%2Fcaf%C3%A9.png', body=body)
    assert (status, headers['Content-Type']) == (200, 'image/png')
    assert headers['Content-Disposition'] == "attachment; filename*=UTF-8''caf%C3%A9.png"
    restored = PIL.Image.open(io.BytesIO(answer))
    np.testing.assert_array_equal(np.asarray(restored), pixels.repeat(2, axis=0).repeat(2, axis=1))
    assert restored.info['dpi'] == pytest.approx((300, 300), abs=0.01)


def test_a_network_restores_as_in_python(random_model):
    config, params = random_model('sr', 2, 3)
    restorer = Restorer([(build_network(config.model), params)], 'sr')
    pixels, body = image_file()
    with serving(restorer, output_format='TIFF') as server:
        status, headers, answer = ask(server, body=body)
    assert (status, headers['Content-Type']) == (200, 'image/tiff')
    assert headers['Content-Disposition'].endswith("''a.tif")
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(answer))), restorer(pixels))


def test_the_page_and_its_headers(server):
    status, headers, page = ask(server, 'GET', '/')
    assert status == 200
    assert b'<h1>A title</h1>' in page and b'up to 1 MB and 10,000 pixels' in page
    assert "default-src 'none'" in headers['Content-Security-Policy']
    assert headers['X-Content-Type-Options'] == 'nosniff'


def test_what_is_refused(server, doubler):
    _, body = image_file()
    _, large = image_file((101, 100, 3))
    _, deep = image_file((4, 4), 'TIFF')
    assert 'a.png: not a PNG' in error_of(ask(server, body=b'hello'), 422)
    assert 'a.png: an empty file' in error_of(ask(server, body=b''), 422)
    assert 'truncated' in error_of(ask(server, body=body[:100]), 422)
    assert '100x101 pixels are more than the 10,000' in error_of(ask(server, body=large), 422)
    assert '1.5 MB are more than the 1 MB' in error_of(ask(server, body=bytes(1_500_000)), 413)
    assert 'Content-Length' in error_of(ask(server, body=iter([body]), Transfer_Encoding='chunked'), 411)
    assert '/restore' in error_of(ask(server, path='/other', body=body), 404)
    assert 'POST' in error_of(ask(server, 'GET', '/restore'), 404)
    assert 'http://[/ is no address' in error_of(ask(server, 'GET', 'http://[/', Host='localhost'), 400)
    assert 'DELETE' in error_of(ask(server, 'DELETE', '/'), 501)
    assert doubler.seen == 0
    assert ask(server, body=deep)[0] == 200


def test_a_name_cannot_write_headers_or_lines(server):
    name = 'a%0D%0AEvil%3A%20yes%22.png'
    assert r'a\r\nEvil: yes".png: an empty file' in error_of(ask(server, path=f'/restore?name={name}', body=b''), 422)
    _, body = image_file()
    _, headers, _ = ask(server, path=f'/restore?name={name}', body=body)
    assert headers['Evil'] is None


@pytest.mark.parametrize('method', ['GET', 'POST'])
def test_only_its_own_names_and_pages_may_ask(doubler, method):
    _, body = image_file()
    path = '/' if method == 'GET' else '/restore'
    with serving(doubler, names=['Studio.local']) as server:
        port = server.server_address[1]
        for host in (f'localhost:{port}', f'127.0.0.1:{port}', f'[::1]:{port}', 'localhost', 'studio.LOCAL:80'):
            assert ask(server, method, path, body, Host=host, Origin=f'http://{host}')[0] == 200
        for host in ('evil.example', f'localhost.evil.example:{port}', '', '[', f'evil.example@localhost:{port}x'):
            assert 'not called' in error_of(ask(server, method, path, body, Host=host), 403)
        for origin in ('http://evil.example', 'null', f'http://localhost:{port + 1}', 'http://127.0.0.1'):
            answer = ask(server, method, path, body, Host=f'localhost:{port}', Origin=origin)
            assert 'not accepted' in error_of(answer, 403)


def test_an_address_that_is_taken_is_refused(server, doubler):
    port = server.server_address[1]
    with pytest.raises(UserError, match=rf'--host=127\.0\.0\.1 --port={port}: cannot listen there: Address'):
        Server(doubler, title='A title', host='127.0.0.1', port=port, limits=LIMITS)


def test_a_host_that_is_no_name_is_refused(doubler):
    with pytest.raises(UserError, match=r'--host=ä\.\.b --port=0: cannot listen there: encoding of hostname failed'):
        Server(doubler, title='A title', host='ä..b', port=0, limits=LIMITS)


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_full_queue_refuses_and_goes_on(server, doubler):
    _, body = image_file()
    doubler.may_go.clear()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(server, body=body)[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: server._places._value == 0)
    assert '1 images are waiting' in error_of(ask(server, body=body), 503)
    doubler.may_go.set()
    for thread in threads:
        thread.join()
    assert answers == [200, 200]
    assert ask(server, body=body)[0] == 200


def test_an_image_that_nobody_waits_for_is_given_up(server, doubler, caplog):
    caplog.set_level('INFO', logger='absl')
    _, body = image_file()
    doubler.may_go.clear()
    with socket.create_connection(server.server_address) as client:
        head = f'POST /restore HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n'
        client.sendall(head.encode() + body)
        assert doubler.begun.wait(SECONDS)
    until(lambda: '503: the client is gone' in caplog.text)
    assert doubler.seen == 0
    doubler.may_go.set()
    assert ask(server, body=body)[0] == 200


def test_an_upload_that_stops_is_refused(server):
    with socket.create_connection(server.server_address) as client:
        client.sendall(b'POST /restore HTTP/1.0\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc')
        client.shutdown(socket.SHUT_WR)
        assert b'408' in client.recv(1000).splitlines()[0]


def test_a_defect_is_an_answer(server, monkeypatch):
    monkeypatch.setattr(server, 'restorer', types.SimpleNamespace(scale=2, strips=lambda *args, **options: 1 / 0))
    assert 'a defect' in error_of(ask(server, body=image_file()[1]), 500)


@pytest.fixture
def handlers():
    """Puts the handlers of signals back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_it_works(doubler, number, handlers):
    doubler.may_go.clear()
    server = Server(doubler, title='A title', host='127.0.0.1', port=0, limits=LIMITS)
    answers = []

    def client():
        answers.append(ask(server, body=image_file()[1]))

    def stop():
        assert doubler.begun.wait(SECONDS)
        os.kill(os.getpid(), number)

    threads = [threading.Thread(target=client), threading.Thread(target=stop)]
    for thread in threads:
        thread.start()
    server.run()
    for thread in threads:
        thread.join()
    assert error_of(answers[0], 503) == 'the server ends'
    with pytest.raises(ConnectionRefusedError):
        ask(server, 'GET', '/')


@pytest.mark.parametrize(
    ('host', 'expected'),
    [('127.0.0.1', True), ('localhost', True), ('::1', True), ('0.0.0.0', False), ('192.168.1.2', False), ('x', False)],
)
def test_loopback(host, expected):
    assert is_loopback(host) == expected


DROP = """
(() => {
  const bytes = Uint8Array.from(atob('%s'), each => each.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], '<b>a</b>.png', {type: 'image/png'}));
  files.items.add(new File(['no image'], 'b.png', {type: 'image/png'}));
  document.getElementById('drop').dispatchEvent(
    new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true}));
})()
"""
DONE = """
(async () => {
  const all = selector => [...document.querySelectorAll(selector)];
  for (let i = 0; i < 600 && !(all('.stage:not([hidden])')[0] && all('.failed')[0]); i++)
    await new Promise(done => setTimeout(done, 100));
})()
"""


def test_images_are_dropped_onto_the_page(tmp_path, server):
    _, body = image_file((10, 20, 3))
    with start_browser(tmp_path) as page:
        page.show(360, 'light')
        page.open(server.url)
        assert page.run('document.title') == 'A title'
        page.call('Runtime.evaluate', expression=DROP % base64.b64encode(body).decode())
        page.call('Runtime.evaluate', expression=DONE, awaitPromise=True)
        assert page.run('document.querySelector(".failed").textContent').startswith('not a PNG')
        done = 'document.querySelector(".stage:not([hidden])").parentElement'
        assert page.run(f'{done}.querySelector(".name").textContent') == '<b>a</b>.png'
        sizes = f'[...{done}.querySelectorAll("img")].map(image => [image.naturalWidth, image.naturalHeight])'
        assert page.run(sizes) == [[20, 10], [40, 20]]
        assert page.run(f'{done}.querySelector("a").download') == 'b>.png'
        assert page.run(f'{done}.querySelector("input").getAttribute("aria-label")').startswith('how much of')
        x, y, width, height = page.place('.stage:not([hidden])')
        page.mouse('mousePressed', x + 0.75 * width, y + height / 2)
        page.mouse('mouseReleased', x + 0.75 * width, y + height / 2)
        assert page.run(f'{done}.querySelector("input").value') == '75'
        assert page.run('document.documentElement.scrollWidth') == 360
        assert [each for each in page.complaints if '422' not in str(each)] == []
        assert page.find_barriers() == []
        page.show(1200, 'dark')
        page.screenshot(tmp_path / 'page.png')


def test_the_page_is_used_by_keys_and_read_aloud(tmp_path, server, doubler):
    _, body = image_file((10, 20, 3))
    doubler.may_go.clear()
    with start_browser(tmp_path) as page:
        page.open(server.url)
        page.call('Runtime.evaluate', expression=DROP % base64.b64encode(body).decode())
        assert doubler.begun.wait(SECONDS)
        # A screen reader says which image has come how far, and not every second how many have passed.
        live = '[...document.querySelectorAll("[role=status], [aria-live]")].map(each => each.textContent)'
        assert page.run(live)[-1] == '<b>a</b>.png waits or is being restored'
        assert page.run('document.querySelector("[aria-hidden].clock").textContent').endswith(' s')
        doubler.may_go.set()
        page.call('Runtime.evaluate', expression=DONE, awaitPromise=True)
        said = page.run(live)
        assert said[0].startswith('b.png not a PNG') and said[1].startswith('<b>a</b>.png restored in ')
        assert page.find_barriers() == []
        reached = []
        for _ in range(3):
            page.press('Tab')
            reached.append(page.run('document.activeElement.ariaLabel ?? document.activeElement.type'))
        assert reached == ['file', 'Save b>.png', 'how much of <b>a</b>.png is shown before']
        page.press('ArrowRight')
        assert page.run('document.activeElement.value') == '51'
