"""PyTorch's default initialisation, with which the published networks were trained."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp


def uniform_by_fan_in(fan_in: int) -> Callable[..., jax.Array]:
    """Uniform on ±1/sqrt(fan_in), whatever the shape of the parameter."""
    bound = 1 / math.sqrt(fan_in)

    def initialize(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initialize
