"""How far long work is and how long the rest takes: what bars on a terminal and lines in a log have in common."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import tqdm
from absl import logging

SECONDS_BETWEEN_LINES = 30
_SECONDS_TO_MEASURE = 2  # before the remaining time is estimated

Result = TypeVar('Result')


class Pace:
    """The pace of counted work, and the time until all of it is done.

    Args:
        total: how much work there is, in steps, images, bytes or the like.
        clock: returns seconds.
    """

    def __init__(self, total: float, clock: Callable[[], float] = time.monotonic):
        self._total, self._clock = total, clock
        self._began: tuple[float, float] | None = None

    @property
    def has_begun(self) -> bool:
        """Whether `begin` was called."""
        return self._began is not None

    def begin(self, done: float) -> None:
        """Measure from now on, when this much is done: what was compiled for it is compiled."""
        self._began = self._clock(), done

    def left(self, done: float) -> float | None:
        """Seconds that the rest takes, when this much is done; None before it is known and at the end."""
        if self._began is None or done >= self._total:
            return None
        seconds, measured = self._clock() - self._began[0], done - self._began[1]
        if seconds < _SECONDS_TO_MEASURE or measured <= 0:
            return None
        return seconds / measured * (self._total - done)


def in_words(seconds: float) -> str:
    """A time in the largest unit of which there are two: '18 seconds', '10 minutes', '7 hours'."""
    for unit, length in (('hours', 3600), ('minutes', 60)):
        if seconds >= 2 * length:
            return f'{seconds / length:.0f} {unit}'
    return f'{seconds:.0f} seconds'


def shown(
    results: Iterable[Result],
    what: str,
    total: int,
    *,
    is_shown: bool = True,
    clock: Callable[[], float] = time.monotonic,
    seconds: float = SECONDS_BETWEEN_LINES,
) -> Iterator[Result]:
    """Pass on the results for images as they come, with a bar on a terminal and a line every half minute elsewhere.

    Lines also come while one image takes longer than that.

    Args:
        results: one for each image.
        what: is being done, the beginning of each line.
        total: number of images.
        is_shown: whether there is a bar or lines.
        clock: returns seconds.
        seconds: between lines.
    """
    pace, done, ended = Pace(total, clock), 0, threading.Event()

    def tell() -> None:
        while not ended.wait(seconds):
            left = pace.left(done)
            rest = '' if left is None else f', about {in_words(left)} left'
            logging.info('%s: %d of %d images are done%s', what, done, total, rest)

    # None: on a terminal only, not in log files.
    look = {'unit': 'image', 'leave': False, 'disable': None if is_shown else True}
    with tqdm.tqdm(total=total, desc=what, **look) as bar:
        teller = threading.Thread(target=tell, daemon=True)
        if is_shown and bar.disable:
            teller.start()
        try:
            for result in results:
                done += 1
                bar.update()
                if not pace.has_begun:
                    pace.begin(done)
                yield result
        finally:
            ended.set()
            if teller.ident is not None:
                teller.join()  # no line comes after the end
