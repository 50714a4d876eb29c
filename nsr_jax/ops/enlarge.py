"""Bicubic enlargement by a whole factor, inside a network."""

import jax
import jax.numpy as jnp
import numpy as np

from nsr_jax.ops.imresize import KERNEL_WIDTH, cubic


def enlarge(x: jax.Array, scale: int) -> jax.Array:
    """Enlarge like MATLAB's `imresize(x, scale, 'bicubic')` with clamped border, but without rounding.

    Args:
        x: `(B, H, W, C)`, floating point.
        scale: a whole number from 1.

    Returns:
        `(B, scale * H, scale * W, C)` of x's dtype.
    """
    return _enlarge_axis(_enlarge_axis(x, scale, axis=1), scale, axis=2)


def phase_weights(scale: int) -> np.ndarray:
    """The weights of an input pixel's neighbours along an axis, itself in the middle: float64 `(scale, 5)`.

    There is a row for each of the `scale` output pixels that are made of the input pixel.
    """
    reach = KERNEL_WIDTH // 2
    centres = (np.arange(scale) + 0.5) / scale - 0.5  # of the output pixels, from the input pixel's centre
    return cubic(centres[:, None] - np.arange(-reach, reach + 1))


def _enlarge_axis(x: jax.Array, scale: int, axis: int) -> jax.Array:
    """Make `scale` output pixels of each input pixel, each a weighted sum of its neighbours."""
    weights = phase_weights(scale)
    taps, size = weights.shape[1], x.shape[axis]
    reach = taps // 2
    padded = jnp.pad(x, [(reach, reach) if each == axis else (0, 0) for each in range(x.ndim)], mode='edge')
    neighbours = [jax.lax.slice_in_dim(padded, start, start + size, axis=axis) for start in range(taps)]
    phases = [
        sum(jnp.asarray(weight, x.dtype) * neighbour for weight, neighbour in zip(row, neighbours, strict=True))
        for row in weights
    ]
    return jnp.stack(phases, axis=axis + 1).reshape(*x.shape[:axis], size * scale, *x.shape[axis + 1 :])
