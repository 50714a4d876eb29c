"""Thresholds between the convolutions of a block; `THRESHOLDS` makes them by the names in `config.model.threshold`."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

_INITIAL = 0.1


class SoftThreshold(nn.Module):
    """Soft-thresholding with a trained threshold for each channel, `sign(x) * max(|x| - t, 0)`.

    t is the absolute value of the parameter.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `(B, H, W, C)` to the same shape and dtype."""
        threshold = self.param('threshold', nn.initializers.constant(_INITIAL), (x.shape[-1],), jnp.float32)
        threshold = jnp.abs(threshold).astype(x.dtype)[None, None, None]
        return x - jnp.clip(x, -threshold, threshold)


THRESHOLDS: dict[str, Callable[[], Callable[[jax.Array], jax.Array]]] = {
    'relu': lambda: nn.relu,
    'soft': lambda: SoftThreshold(name='threshold'),
}
