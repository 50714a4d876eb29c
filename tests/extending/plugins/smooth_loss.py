"""A loss like Charbonnier's."""

import jax.numpy as jnp

from nsr_jax.losses import LOSSES


def smooth(prediction, target):
    """Mean of sqrt(error² + 0.01²) - 0.01."""
    return jnp.mean(jnp.sqrt(jnp.square(prediction - target) + 1e-4) - 1e-2)


LOSSES['smooth'] = smooth
