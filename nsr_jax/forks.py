"""Detects forked processes, in which JAX would hang: a fork copies its locks but not the threads that release them."""

import os

from nsr_jax.errors import UserError

_first_user: int | None = None  # the process that used JAX here first


def check_not_forked() -> None:
    """Raise `UserError` if this process was forked from one that had called this function; call it before using JAX.

    A fork of a process that has used JAX only in other ways is not noticed.
    """
    global _first_user
    if _first_user is None:
        _first_user = os.getpid()
    if _first_user != os.getpid():
        raise UserError(
            'this process was forked after JAX had been used, and JAX would hang: '
            "start it by multiprocessing.get_context('spawn') or 'forkserver'"
        )
