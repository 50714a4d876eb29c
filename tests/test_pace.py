"""Lines about long work where there is no terminal: while it goes on, and with the time that is left."""

import threading

import pytest
from absl import logging

from nsr_jax.pace import Pace, in_words, shown

SECONDS = 60  # without a line, and the test fails


@pytest.fixture
def lines(monkeypatch):
    """What the log says, and an event that each line sets."""
    told, event = [], threading.Event()

    def info(text, *values):
        told.append(text % values)
        event.set()

    monkeypatch.setattr(logging, 'info', info)
    monkeypatch.setattr('sys.stderr.isatty', lambda: False)
    return told, event


def test_lines_come_while_an_image_takes_long_and_say_the_time_that_is_left(lines):
    """Each result comes a minute after the last one by the test's clock, when two more lines have come."""
    told, event = lines
    now, said = 0.0, []

    def results():
        nonlocal now
        for number in range(3):
            for _ in range(2):
                event.clear()
                assert event.wait(SECONDS)
            said.append(told[-1])
            now += 60
            yield number

    assert list(shown(results(), 'x2 on Set5', 3, clock=lambda: now, seconds=0.01)) == [0, 1, 2]
    assert said == [
        'x2 on Set5: 0 of 3 images are done',
        'x2 on Set5: 1 of 3 images are done',  # the first one may have been compiled for
        'x2 on Set5: 2 of 3 images are done, about 60 seconds left',
    ]


def test_no_line_comes_before_its_time_nor_after_the_end(lines):
    told, _ = lines
    assert list(shown(iter('abc'), 'x2', 3)) == ['a', 'b', 'c']
    count = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(shown((1 // 0 for _ in 'a'), 'x2', 1, seconds=0.01))
    assert threading.active_count() == count
    assert list(shown(iter('abc'), 'x2', 3, is_shown=False, seconds=0)) == ['a', 'b', 'c']
    assert [line for line in told if '1 images' not in line] == []


def test_the_pace_is_that_since_it_began():
    now = 100.0
    pace = Pace(50, lambda: now)
    assert pace.left(10) is None
    pace.begin(10)
    now = 101.0
    assert pace.left(20) is None  # too early to tell
    now = 110.0
    assert pace.left(10) is None
    assert pace.left(20) == 30
    assert pace.left(50) is None


def test_times_are_in_the_largest_unit_of_which_there_are_two():
    times = {0.4: '0 seconds', 119: '119 seconds', 120: '2 minutes', 7199: '120 minutes', 7200: '2 hours'}
    assert {seconds: in_words(seconds) for seconds in times} == times
