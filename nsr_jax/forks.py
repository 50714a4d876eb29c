"""Forked processes in which JAX would wait for ever: a fork copies its locks, and not the threads that open them."""

import os

from nsr_jax.errors import UserError

_first_user: int | None = None  # the process that used JAX here first


def check_not_forked() -> None:
    """Call this before JAX is used.

    Seen is what this function was called for; a process that used JAX in other ways alone, and then forked, is not.

    Raises:
        UserError: this process was forked from one that had called this.
    """
    global _first_user
    if _first_user is None:
        _first_user = os.getpid()
    if _first_user != os.getpid():
        raise UserError(
            'this process was forked after JAX had been used, and JAX would hang: '
            "start it by multiprocessing.get_context('spawn') or 'forkserver'"
        )
