"""The progress of training and the time that is left: a bar on a terminal, log lines elsewhere."""

import sys
import time
from collections.abc import Callable

import tqdm
from absl import logging

from nsr_jax.pace import SECONDS_BETWEEN_LINES, Pace


class ProgressBar:
    """Counts steps. The time left is not shown before a step is done whose time does not include the compilation.

    Args:
        total: steps of the whole run.
        step: from which it goes on.
        is_shown: whether there is a bar or lines.
        clock: returns seconds.
    """

    def __init__(self, total: int, step: int, *, is_shown: bool = True, clock: Callable[[], float] = time.monotonic):
        self._total, self._is_shown, self._clock = total, is_shown, clock
        has_bar = is_shown and sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            total=total, initial=step, unit='step', desc='training', dynamic_ncols=True, disable=not has_bar
        )
        self._pace = Pace(total, clock)
        self._last_line = -float('inf')

    def say(self, what: str) -> None:
        """Show what is being done instead of steps, such as compiling."""
        if self._bar.disable and self._is_shown:
            logging.info(what)
        self._bar.set_postfix_str(what)

    def begin(self, step: int) -> None:
        """Time steps from this one on: what was compiled for them is compiled."""
        if not self._bar.disable:
            self._bar.n = self._bar.initial = self._bar.last_print_n = step
            self._bar.unpause()
        self._pace.begin(step)

    def update(self, step: int, text: str) -> None:
        """Show a step and numbers; lines come every half a minute, the first and the last one always."""
        self._bar.set_postfix_str(text)
        self._bar.update(step - self._bar.n)
        now = self._clock()
        is_due = now - self._last_line >= SECONDS_BETWEEN_LINES or step >= self._total
        if self._bar.disable and self._is_shown and is_due:
            self._last_line = now
            logging.info('step %d of %d%s: %s', step, self._total, self._left(step), text)

    def write(self, text: str) -> None:
        """Show a line that stays."""
        if not self._bar.disable:
            self._bar.write(text, file=sys.stderr)
        elif self._is_shown:
            logging.info(text)

    def close(self) -> None:
        """Close the bar."""
        self._bar.close()

    def _left(self, step: int) -> str:
        seconds = self._pace.left(step)
        return '' if seconds is None else f', {tqdm.tqdm.format_interval(seconds)} left'
