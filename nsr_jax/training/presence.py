"""A check that the folders of a running job are still the ones that it started with."""

import os
import pathlib
from collections.abc import Iterable

from nsr_jax import agreement


class Presence:
    """Notices that a run's folders were removed, moved or replaced. Only the first process of a job looks.

    It keeps them open, so that the file system gives their inode numbers to no other folder.

    Args:
        paths: of existing folders; the first one contains the others.
    """

    def __init__(self, paths: Iterable[pathlib.Path]):
        self._held = {path: os.open(path, os.O_RDONLY) for path in paths} if agreement.is_first() else {}

    def describe_loss(self) -> str | None:
        """What has happened, in words that begin with a path; None while all folders are there."""
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
        """Close the folders."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held = {}


def _place_of(descriptor: int) -> str | None:
    """The present path of an open folder; None if it has none, or the system does not tell."""
    try:
        place = os.readlink(f'/proc/self/fd/{descriptor}')
        return place if os.path.samestat(os.fstat(descriptor), os.stat(place)) else None
    except OSError:
        return None
