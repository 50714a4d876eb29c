"""Whether the folders of a running job are still the ones that it started with."""

import os
import pathlib
from collections.abc import Iterable

from nsr_jax import agreement


class Presence:
    """Notices that a run's folders were removed, moved, or put in the place of others.

    They are held open, so that no other folder can get their numbers. Of several processes the first one looks.

    Args:
        paths: that are there; the first is the folder that the others are in.
    """

    def __init__(self, paths: Iterable[pathlib.Path]):
        self._held = {path: os.open(path, os.O_RDONLY) for path in paths} if agreement.is_first() else {}

    def describe_loss(self) -> str | None:
        """What is wrong, in words that begin with a path; None while all is well."""
        for path, descriptor in self._held.items():
            try:
                is_there = os.path.samestat(os.fstat(descriptor), os.stat(path))
            except OSError:
                is_there = False
            if not is_there:
                place = _place_of(descriptor)
                return f'{path} was {f"moved to {place}" if place else "removed or replaced"} while the run went on'
        return None

    def close(self) -> None:
        """Let go of the folders."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held = {}


def _place_of(descriptor: int) -> str | None:
    """Where something that is open lies now; None where the system does not say, or nowhere."""
    try:
        place = os.readlink(f'/proc/self/fd/{descriptor}')
        return place if os.path.samestat(os.fstat(descriptor), os.stat(place)) else None
    except OSError:
        return None
