"""Progress of restoring and the time that is left: a bar on a terminal, log lines elsewhere."""

import itertools
import time
from collections.abc import Callable, Sequence

import tqdm
from absl import logging

_SECONDS_BETWEEN_LINES = 30
_SECONDS_TO_MEASURE = 2  # before the remaining time is estimated
_LOOK = '{desc}{percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left'


class Progress:
    """Counts bytes of the inputs, because larger images take longer.

    The first line is logged only if the rest takes half a minute or more. The time until the first tile is done does
    not count, because the network is compiled in it.

    Args:
        sizes: of all images, in bytes.
        is_shown: whether there is a bar or lines.
        clock: returns seconds.
    """

    def __init__(self, sizes: Sequence[int], *, is_shown: bool = True, clock: Callable[[], float] = time.monotonic):
        self._ends = [0, *itertools.accumulate(sizes)]
        self._is_shown = is_shown
        self._clock = clock
        self._number = 0
        self._done = 0.0
        self._start: tuple[float, float] | None = None  # when the first tile was done, and how much was then
        self._last_line: float | None = None
        self._bar = tqdm.tqdm(total=self._ends[-1], bar_format=_LOOK, disable=None if is_shown else True)

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def start_next(self) -> None:
        """Begin the next image."""
        self._number += 1
        self._image = f'image {self._number} of {len(self._ends) - 1}'
        self._bar.set_description(self._image)

    def tell(self, share: float) -> None:
        """Report the share of this image that is done, from 0 to 1."""
        begin, end = self._ends[self._number - 1 : self._number + 1]
        self._move_to(begin + share * (end - begin))
        if self._bar.disable and self._is_shown:
            self._log()

    def end(self) -> None:
        """End this image, restored or failed."""
        self._move_to(self._ends[self._number])

    def _move_to(self, done: float) -> None:
        self._bar.update(done - self._done)
        self._done = done

    def _log(self) -> None:
        now, total = self._clock(), self._ends[-1]
        if self._start is None:
            self._start = now, self._done
        seconds, measured = now - self._start[0], self._done - self._start[1]
        if seconds < _SECONDS_TO_MEASURE or measured <= 0 or self._done >= total:
            return
        rest = seconds / measured * (total - self._done)
        wait = rest if self._last_line is None else now - self._last_line
        if wait >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            share = 100 * self._done / total
            logging.info('%s: %.0f%% of all is done, about %s left', self._image, share, _in_words(rest))


def _in_words(seconds: float) -> str:
    for unit, length in (('hours', 3600), ('minutes', 60)):
        if seconds >= 2 * length:
            return f'{seconds / length:.0f} {unit}'
    return f'{seconds:.0f} seconds'
