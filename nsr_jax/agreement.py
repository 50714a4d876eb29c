"""Exchanging small values and failures between the processes of one job; a single process works alone.

All processes of the job must call these functions alike, in the same order.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils

from nsr_jax.errors import StoppedError, UserError

_OWN_FOLDERS = {'config.data.data_dir', 'config.data.tfds_dir', 'config.data.store_dir'}


def is_first() -> bool:
    """Whether this process writes the files and shows the bars."""
    return jax.process_index() == 0


def gather(value: Any) -> list[Any]:
    """The value that each process passes, in the order of their indices.

    Args:
        value: anything that JSON can hold; tuples may arrive as lists. Floats arrive exactly, NaN and infinity too.
    """
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(text)))
    # One compiled function serves all texts that are about as long.
    padded = np.zeros(1 << int(lengths.max() - 1).bit_length(), np.uint8)
    padded[: len(text)] = text
    texts = multihost_utils.process_allgather(padded)
    return [json.loads(each[:length].tobytes()) for each, length in zip(texts, lengths, strict=True)]


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """Make a block that fails in one process fail in all, so that none waits for a process that has given up.

    The block itself must not wait for other processes.

    Raises:
        UserError: in all processes, with the message of the first process that raised one.
        RuntimeError: another process has a defect; that one raises its own exception.
    """
    failure = None
    try:
        yield
    except (Exception, StoppedError) as error:
        failure = error
    told = gather(failure and (isinstance(failure, UserError), str(failure)))
    if failure and not isinstance(failure, UserError):
        raise failure
    for number, each in enumerate(told):
        if each is not None:
            if failure is not None and number == jax.process_index():
                raise failure
            is_mistake, text = each
            raise UserError(text) if is_mistake else RuntimeError(f'process {number} failed: {text}')


def by_first(function: Callable[[], Any]) -> Any:
    """Call a function in the first process only; its result or its exception reaches all processes.

    Args:
        function: returns a value for `gather`.

    Raises:
        UserError: as in `agreed`.
        RuntimeError: likewise.
    """
    with agreed():
        result = function() if is_first() else None
    return gather(result)[0]


def check_alike(values: dict[str, Any]) -> None:
    """Check that all processes of the job have the same values; otherwise they would diverge, or wait forever.

    Args:
        values: by name, values for `gather`; entries of nested dictionaries are compared one by one, as `name.entry`.
            The data folders of a config may differ from machine to machine.

    Raises:
        UserError: in all processes; the line names the first difference and both values.
    """
    told = gather(flatten_dict(values, sep='.'))
    for number, others in enumerate(told[1:], start=1):
        for name in dict.fromkeys([*told[0], *others]):
            here, there = (repr(each[name]) if name in each else 'nothing' for each in (told[0], others))
            if here != there and name not in _OWN_FOLDERS:
                raise UserError(
                    f'the processes of the job must be started alike: {name} is {here} in process 0, '
                    f'{there} in process {number}'
                )


def lost_another(error: BaseException) -> bool:
    """Whether an error shows that another process is gone: a collective failed, which Gloo reports on a CPU."""
    if jax.process_count() == 1 or isinstance(error, UserError):
        return False
    if isinstance(error, ValueError):
        return 'Gloo' in str(error)
    return isinstance(error, jax.errors.JaxRuntimeError | TimeoutError)  # Orbax's barriers raise the latter
