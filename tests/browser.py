"""A real Chromium, driven through its debugging pipe."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time

import pytest

FLAGS = (
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync', '--remote-debugging-pipe',
)  # fmt: skip
SECONDS = 300  # without an answer, and the browser counts as hung
# Chromium reads commands from file descriptor 3 and writes answers to 4.
LAUNCH = (
    'import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])'
)
# Each finds, as HTML, what keeps out users of screen readers or of the keyboard.
BARRIERS = (
    # Missing or several: the language, the heading or the main part of the page.
    """['html[lang=en]', 'h1', 'main'].filter(each => document.querySelectorAll(each).length !== 1)""",
    # Without a name, and not hidden from everybody.
    """[...document.querySelectorAll('a, button, input, select, canvas, img, [tabindex], [role]')].filter(each =>
      !(each.closest('[hidden]') || each.ariaLabel || each.alt || each.textContent.trim() || each.labels?.length ||
        document.getElementById(each.getAttribute('aria-labelledby'))?.textContent)).map(each => each.outerHTML)""",
    # Too wide for the window: the arrow keys scroll it once it has the focus.
    """[...document.querySelectorAll('body *')].filter(each => each.scrollWidth > each.clientWidth + 1 &&
      getComputedStyle(each).overflowX === 'auto' && each.tabIndex !== 0).map(each => each.outerHTML)""",
)
KEYS = {'Tab': 9, 'ArrowRight': 39, 'ArrowDown': 40, 'ArrowLeft': 37}


class Browser:
    """A page of a Chromium that is driven by the DevTools protocol, with the page's requests and complaints."""

    def __init__(self, commands, answers):
        self._commands, self._answers, self._buffer, self._count = commands, answers, b'', 0
        self._session = None
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self._session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(f'{domain}.enable')

    def open(self, url):
        """Load a page; from then on `requests`, `complaints` and `is_loaded` are those of this page."""
        self.requests, self.complaints, self.is_loaded = [], [], False
        self.call('Page.navigate', url=url)  # the wait below has the same deadline
        while not self.is_loaded:
            self._receive()
        self.run('1')  # the page's own load listeners have then run

    def call(self, method, **parameters):
        self._count += 1
        self._deadline = time.monotonic() + SECONDS
        message = {'id': self._count, 'method': method, 'params': parameters}
        message |= {'sessionId': self._session} if self._session else {}
        os.write(self._commands, json.dumps(message).encode() + b'\0')
        while (answer := self._receive()).get('id') != self._count:
            pass
        assert 'error' not in answer, f'{method}: {answer["error"]}'
        return answer['result']

    def _receive(self):
        while b'\0' not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0, self._deadline - time.monotonic()))
            assert ready, f'no answer from Chromium within {SECONDS} seconds'
            data = os.read(self._answers, 1 << 20)
            assert data, 'Chromium has ended'
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b'\0')
        message = json.loads(line)
        match message.get('method'):
            case 'Network.requestWillBeSent':
                self.requests.append(message['params']['request']['url'])
            case 'Runtime.exceptionThrown' | 'Log.entryAdded' | 'Runtime.consoleAPICalled':
                self.complaints.append(message['params'])
            case 'Page.loadEventFired':
                self.is_loaded = True
        return message

    def run(self, expression):
        """The value of a JavaScript expression after the next frame is drawn."""
        code = f'new Promise(done => requestAnimationFrame(() => setTimeout(() => done({expression}))))'
        answer = self.call('Runtime.evaluate', expression=code, awaitPromise=True, returnByValue=True)
        assert 'exceptionDetails' not in answer, answer
        return answer['result'].get('value')

    def mouse(self, kind, x, y):
        self.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', buttons=1, clickCount=1)

    def place(self, selector):
        """Scroll an element into view and return its (x, y, width, height)."""
        element = f'document.querySelector({json.dumps(selector)})'
        self.run(f'{element}.scrollIntoView({{block: "center", behavior: "instant"}})')
        return self.run(f'(box => [box.x, box.y, box.width, box.height])({element}.getBoundingClientRect())')

    def click(self, selector, right=0.5, down=0.5):
        x, y, width, height = self.place(selector)
        for kind in ('mousePressed', 'mouseReleased'):
            self.mouse(kind, x + right * width, y + down * height)

    def press(self, key):
        for kind in ('keyDown', 'keyUp'):
            self.call('Input.dispatchKeyEvent', type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def find_barriers(self):
        """What of the page users of screen readers or of the keyboard do not get at; none is wanted."""
        return [each for barrier in BARRIERS for each in self.run(barrier)]

    def show(self, width, colours):
        """Set the width of the window, and light or dark colours, as a phone or the user's settings would."""
        is_phone = width < 600
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=900, deviceScaleFactor=1, mobile=is_phone)
        features = [{'name': 'prefers-color-scheme', 'value': colours}]
        self.call('Emulation.setEmulatedMedia', features=features)

    def screenshot(self, path):
        data = self.call('Page.captureScreenshot', captureBeyondViewport=True)['data']
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def start_browser(profile):
    found = shutil.which('chromium')
    if not found:
        reason = 'there is no chromium on the PATH'
        if os.environ.get('NSR_REQUIRE_CHROMIUM'):
            pytest.fail(f'{reason}, and NSR_REQUIRE_CHROMIUM is set')
        pytest.skip(reason)
    ends = []
    for end in (*os.pipe(), *os.pipe()):  # well above 3 and 4, so that neither overwrites the other
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(end)
    command_reader, command_writer, answer_reader, answer_writer = ends
    command = [sys.executable, '-c', LAUNCH, str(command_reader), str(answer_writer), found, *FLAGS]
    with (profile / 'chromium.log').open('w') as log:
        process = subprocess.Popen(
            [*command, f'--user-data-dir={profile / "profile"}', 'about:blank'],
            pass_fds=(command_reader, answer_writer), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    os.close(command_reader)
    os.close(answer_writer)
    try:
        yield Browser(command_writer, answer_reader)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(command_writer)
        os.close(answer_reader)
