"""The CPU cores of this process, and how JAX's devices share them."""

import os

import jax


def count_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def are_devices() -> bool:
    """Whether JAX has a device for each core, as in our commands; by default it has one device for all cores."""
    return jax.default_backend() == 'cpu' and jax.local_device_count() >= count_cores()
