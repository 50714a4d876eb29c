"""A request to stop, by a signal or by a time budget: noticed between steps, agreed on by all processes."""

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
    """The seconds in hours, minutes and seconds such as '9m' or '1h30m'.

    Args:
        text: at least one of the three units, in this order.
        name: what the value is called in the error.

    Raises:
        UserError: it is something else, or no time at all.
    """
    match = _DURATION.fullmatch(text)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if not total:
        raise UserError(f'{name}={text} must be a time such as 90s, 9m, 2h or 1h30m, and more than none')
    return total


def seconds_since_start() -> float:
    """How long this process has been running, from before its first import."""
    return time.time() - psutil.Process().create_time()


class StopRequest:
    """While it is entered, the first SIGTERM or SIGINT (Ctrl-C) asks to stop, and the next ends the process at once.

    The end of the time budget asks to stop as well. Only the main thread can be asked by signals: in another one they
    keep their meaning.

    Args:
        mesh: all devices of the job.
        stop_after: seconds on the clock; None: no budget.
        clock: seconds since this process started.
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
        logging.warning('%s: saves, then stops; once more stops at once', signal.Signals(number).name)

    def agreed(self) -> bool:
        """Whether any process of the job had been asked when this was called last.

        All processes must call it alike, and get the same answer. It is that of the call before, so that the device
        need not be waited for.
        """
        if not self._asked and self._stop_after is not None and self._clock() >= self._stop_after:
            self._asked = True
            logging.warning('the time budget of %g s is used up: saves, then stops', self._stop_after)
        asked = np.full(len(self._sharding.addressable_devices), self._asked)
        shape = (self._sharding.num_devices,)
        before, self._answer = (
            self._answer,
            self._any(jax.make_array_from_process_local_data(self._sharding, asked, shape)),
        )
        return before is not None and bool(before)
