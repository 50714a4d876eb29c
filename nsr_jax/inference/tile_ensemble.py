"""The self-ensemble of each tile, so that its memory is as bounded as that of the tiles."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from nsr_jax.models.build import Network
from nsr_jax.ops.extents import flip

_FLIPS = tuple(itertools.product((False, True), (False, True)))  # down and across


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

    def apply(self, variables: Any, images: jax.Array, extents: jax.Array | None = None) -> jax.Array:
        """`network.apply` eight times, one after the other: (B, H, W, C) to (B, scale H, scale W, C)."""

        def sum_of_four(given: jax.Array, extents: jax.Array | None) -> jax.Array:
            options, ends = ({}, None) if extents is None else ({'extents': extents}, extents * self.network.scale)
            flipped = jnp.stack([flip(given, extents, *each) for each in _FLIPS])
            answers = jax.lax.map(lambda each: self.network.apply(variables, each, **options), flipped)
            return sum(flip(answer, ends, *each) for answer, each in zip(answers, _FLIPS, strict=True))

        turned = None if extents is None else extents[:, ::-1]
        return (sum_of_four(images, extents) + sum_of_four(images.swapaxes(1, 2), turned).swapaxes(1, 2)) / 8
