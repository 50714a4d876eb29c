"""What is added to each pixel of a convolution's output."""

import jax
import jax.numpy as jnp
import numpy as np


def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """Add a float32 bias `(..., Cout)` to `y` `(B, H, W, Cout)`; in float32, as its gradient sums over all pixels."""
    bias = jnp.expand_dims(bias, range(y.ndim - bias.ndim))
    return (y.astype(np.promote_types(y.dtype, np.float32)) + bias).astype(y.dtype)
