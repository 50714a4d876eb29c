"""A gate whose weights are squares that sum to one."""

import jax.numpy as jnp

from nsr_jax.nn.gates import GATES


def squares(logits):
    """Weights (B, k, d) of logits (B, k, d)."""
    positive = jnp.square(logits) + 1e-3
    return positive / jnp.sum(positive, axis=1, keepdims=True)


GATES['squares'] = squares
