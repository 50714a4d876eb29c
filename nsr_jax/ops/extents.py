"""Images of several sizes in arrays of one shape, so that a function compiled for the shape serves them all.

Each image lies at the top left of its array, and what is beside it must not matter. Its extent is int32 (height,
width), `(B, 2)` for a batch.
"""

import jax
import jax.numpy as jnp


def is_inside(extents: jax.Array, height: int, width: int) -> jax.Array:
    """Which pixels belong to the images: bool `(B, height, width, 1)` for extents `(B, 2)`."""
    rows = jnp.arange(height, dtype=extents.dtype)[None] < extents[:, :1]
    columns = jnp.arange(width, dtype=extents.dtype)[None] < extents[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def clear_outside(x: jax.Array, inside: jax.Array | None) -> jax.Array:
    """Put zeros beside the images, with which a convolution would pad them.

    Args:
        x: `(B, H, W, C)`.
        inside: as from `is_inside`; None: the images fill their arrays.
    """
    return x if inside is None else jnp.where(inside, x, 0)


def repeat_edges(x: jax.Array, extents: jax.Array) -> jax.Array:
    """Repeat each image's last row and column beside it, for functions that continue the image at its edge.

    Args:
        x: `(B, H, W, C)`.
        extents: `(B, 2)`.
    """
    rows = jnp.minimum(jnp.arange(x.shape[1], dtype=extents.dtype)[None], extents[:, :1] - 1)
    columns = jnp.minimum(jnp.arange(x.shape[2], dtype=extents.dtype)[None], extents[:, 1:] - 1)
    return _take(x, rows, columns)


def flip(x: jax.Array, extents: jax.Array | None, down: bool, across: bool) -> jax.Array:
    """Flip each image within its extent; beside it the result is undefined.

    Args:
        x: `(B, H, W, C)`.
        extents: `(B, 2)`; None: the images fill their arrays.
        down: whether the first row becomes the last.
        across: whether the first column becomes the last.
    """
    if extents is None:
        return x[:, :: -1 if down else 1, :: -1 if across else 1]
    places = []
    for flipped, side, ends in ((down, x.shape[1], extents[:, :1]), (across, x.shape[2], extents[:, 1:])):
        indices = jnp.arange(side, dtype=extents.dtype)[None]
        places.append(jnp.maximum(ends - 1 - indices, 0) if flipped else jnp.repeat(indices, len(ends), axis=0))
    return _take(x, *places)


def _take(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Take the rows `(B, H)` and columns `(B, W)` of `(B, H, W, C)`."""
    x = jnp.take_along_axis(x, rows[:, :, None, None], axis=1)
    return jnp.take_along_axis(x, columns[:, None, :, None], axis=2)
