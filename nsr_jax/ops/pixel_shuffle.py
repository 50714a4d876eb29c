"""Depth to space, in PyTorch's channel order."""

import jax


def pixel_shuffle(x: jax.Array, scale: int) -> jax.Array:
    """`(B, H, W, C * scale * scale)`, with channels ordered `(C, scale, scale)`, to `(B, H * scale, W * scale, C)`."""
    batch, height, width, channels = x.shape
    if channels % (scale * scale):
        raise ValueError(f'{channels} channels cannot be shuffled by scale {scale}: not a multiple of {scale * scale}')
    x = x.reshape(batch, height, width, channels // (scale * scale), scale, scale)
    x = x.transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, height * scale, width * scale, channels // (scale * scale))
