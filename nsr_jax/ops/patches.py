"""What a convolution sees of an image: the image itself, moved to each tap of its kernel."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def taps(side: int) -> range:
    """Shifts of an odd kernel's side, from the first tap to the last."""
    return range(-(side // 2), side // 2 + 1)


def move(images: jax.Array, rows: Sequence[int], columns: Sequence[int]) -> jax.Array:
    """`(B, H, W, C)` up by each of `rows` and left by each of `columns`, zero outside: `(B, H, W, taps C)`."""
    height, width = images.shape[1:3]
    most_rows, most_columns = max(map(abs, rows)), max(map(abs, columns))
    padded = jnp.pad(images, ((0, 0), (most_rows,) * 2, (most_columns,) * 2, (0, 0)))
    moved = [
        padded[:, most_rows + row :, most_columns + column :][:, :height, :width] for row in rows for column in columns
    ]
    return jnp.concatenate(moved, axis=-1)


def patches(images: jax.Array, kernel_size: tuple[int, int]) -> jax.Array:
    """`(B, H, W, C)` to what each output pixel is made of: `(B, H W, kh kw C)`."""
    batch, height, width, _ = images.shape
    return move(images, *map(taps, kernel_size)).reshape(batch, height * width, -1)
