"""Progress of restoring and the time that is left: a bar on a terminal, log lines elsewhere."""

import itertools
import time
from collections.abc import Callable, Sequence

import tqdm
from absl import logging

from nsr_jax.pace import SECONDS_BETWEEN_LINES, Pace, in_words

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
        self._pace = Pace(self._ends[-1], clock)
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
        if not self._pace.has_begun:
            self._pace.begin(self._done)
        left, now = self._pace.left(self._done), self._clock()
        if left is None:
            return
        wait = left if self._last_line is None else now - self._last_line
        if wait >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            share = 100 * self._done / self._ends[-1]
            logging.info('%s: %.0f%% of all is done, about %s left', self._image, share, in_words(left))
