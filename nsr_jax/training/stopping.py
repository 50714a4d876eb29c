"""A request to stop that comes from outside: noticed between steps, agreed on by all processes."""

import signal
import threading
from types import FrameType

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh

from nsr_jax.inference.devices import replicated
from nsr_jax.training.sharding import over_batch

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """While it is entered, the first SIGTERM or SIGINT (Ctrl-C) asks to stop, and the next ends the process at once.

    Only the main thread can be asked: in another one signals keep their meaning.

    Args:
        mesh: all devices of the job.
    """

    def __init__(self, mesh: Mesh):
        self._asked = False
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
        asked = np.full(len(self._sharding.addressable_devices), self._asked)
        shape = (self._sharding.num_devices,)
        before, self._answer = (
            self._answer,
            self._any(jax.make_array_from_process_local_data(self._sharding, asked, shape)),
        )
        return before is not None and bool(before)
