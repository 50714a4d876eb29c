"""The self-ensemble of each tile, so that its memory is as bounded as that of the tiles."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from nsr_jax.models.build import Network

_FLIPS = tuple(itertools.product((1, -1), (1, -1)))  # steps down and across


@dataclasses.dataclass(frozen=True)
class TileEnsemble:
    """A network that answers with the mean over the eight flips and transposes of what it is given.

    `evaluation.ensemble` does the same to whole images (Lim et al., 2017, section 3.4), whose answers it holds.

    Attributes:
        network: what is asked; its own attributes are this one's too.
    """

    network: Network

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def apply(self, variables: Any, images: jax.Array) -> jax.Array:
        """`network.apply` eight times, one after the other: (B, H, W, C) to (B, scale H, scale W, C)."""

        def sum_of_four(given: jax.Array) -> jax.Array:
            flipped = jnp.stack([given[:, ::down, ::across] for down, across in _FLIPS])
            answers = jax.lax.map(lambda each: self.network.apply(variables, each), flipped)
            return sum(answer[:, ::down, ::across] for answer, (down, across) in zip(answers, _FLIPS, strict=True))

        return (sum_of_four(images) + sum_of_four(images.swapaxes(1, 2)).swapaxes(1, 2)) / 8
