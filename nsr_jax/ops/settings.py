"""Contexts and keys that keep JAX's settings in the environment from changing numbers."""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np


@contextlib.contextmanager
def without_x64() -> Iterator[None]:
    """Numbers without a type of their own have 32 bits within this context, in this thread.

    Under JAX_ENABLE_X64, Optax would compute some of Adam's factors in float64, and weights would differ.
    """
    with jax.enable_x64(False):
        yield


@contextlib.contextmanager
def fixed_bits() -> Iterator[None]:
    """A key gives the same bits under JAX_THREEFRY_PARTITIONABLE=0 in code that runs or is traced in this context."""
    with jax.threefry_partitionable(True):
        yield


def new_key(seed: int) -> jax.Array:
    """As `jax.random.key(seed)`, whatever JAX_DEFAULT_PRNG_IMPL and JAX_RANDOM_SEED_OFFSET are; seed < 2^32."""
    return jax.random.wrap_key_data(jnp.asarray(np.array([0, seed], np.uint32)), impl='threefry2x32')
