"""A request to stop, made by a signal or a time budget, noticed between steps and agreed on by all processes."""

import re
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from absl import logging
from jax.sharding import Mesh

from nsr_jax.errors import UserError
from nsr_jax.inference.devices import replicated
from nsr_jax.training.sharding import over_batch

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_DURATION = re.compile(r'(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?', re.ASCII)


def parse_duration(text: str, name: str) -> int:
    """The seconds in a duration such as '9m' or '1h30m'.

    Args:
        text: hours, minutes and seconds, in this order, of which two may be missing.
        name: what the error calls the value.

    Raises:
        UserError: the text is something else, or zero.
    """
    match = _DURATION.fullmatch(text)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if not total:
        raise UserError(f'{name}={text} must be a time above zero, such as 90s, 9m, 2h or 1h30m')
    return total


def seconds_since_start() -> float:
    """How long this process has been running, from before its first import."""
    return time.time() - psutil.Process().create_time()


class StopRequest:
    """A context in which the first SIGTERM or SIGINT (Ctrl-C) asks to stop, and a second one ends the process at once.

    The end of the time budget asks to stop as well. Signals reach the main thread alone; in another thread this
    context leaves them as they are.

    Args:
        stop_after: seconds on the clock; None: no budget.
        clock: gives the seconds since this process started.
    """

    def __init__(self, mesh: Mesh, stop_after: float | None = None, clock: Callable[[], float] = seconds_since_start):
        self._asked = False
        self._stop_after = stop_after
        self._clock = clock
        self._previous = {}
        self._sharding = over_batch(mesh)
        self._any = jax.jit(jnp.any, out_shardings=replicated(mesh))
        self._answer = None

    def __enter__(self) -> 'StopRequest':
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        logging.warning('%s: saves, then stops; a second signal stops at once', signal.Signals(number).name)

    def agreed(self) -> bool:
        """Whether any process of the job had been asked to stop by the time of the previous call.

        All processes must call it at the same step, and get the same answer. It is the previous call's, so that no
        process has to wait for its device.
        """
        if not self._asked and self._stop_after is not None and self._clock() >= self._stop_after:
            self._asked = True
            logging.warning('the time budget of %g s is used up: saves, then stops', self._stop_after)
        before = self._answer
        asked = np.full(len(self._sharding.addressable_devices), self._asked)
        shape = (self._sharding.num_devices,)
        self._answer = self._any(jax.make_array_from_process_local_data(self._sharding, asked, shape))
        return before is not None and bool(before)
