"""The self-ensemble: the mean over the eight flips and transposes of an image (Lim et al., 2017, section 3.4).

The mean is taken tile by tile, which bounds the memory; an image that the network sees whole counts as one tile.
"""

import functools
import itertools
import operator
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from nsr_jax.ops.extents import flip

_FLIPS = tuple(itertools.product((False, True), (False, True)))  # down and across


def average(restore: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function that computes `restore` in eight orientations, one after the other, and returns the mean.

    Args:
        restore: takes a network, its parameters and arrays, and returns `(B, scale H, scale W, C)`. The arrays are
            images or masks `(B, H, W, …)`; the last one may be their extents, `(B, 2)`.
    """

    @functools.partial(jax.jit, static_argnames='network')
    def averaged(network: nn.Module, params, *arrays: jax.Array) -> jax.Array:
        images = [each for each in arrays if each.ndim == 4]
        extents = list(arrays[len(images) :])

        def sum_of_four(images: list[jax.Array], *extents: jax.Array) -> jax.Array:
            given, ends = (extents[0], extents[0] * network.scale) if extents else (None, None)
            flipped = [jnp.stack([flip(image, given, *each) for each in _FLIPS]) for image in images]
            answers = jax.lax.map(lambda each: restore(network, params, *each, *extents), flipped)
            upright = [flip(answer, ends, *each) for answer, each in zip(answers, _FLIPS, strict=True)]
            return functools.reduce(operator.add, upright)

        transposed = sum_of_four([image.swapaxes(1, 2) for image in images], *(each[:, ::-1] for each in extents))
        return (sum_of_four(images, *extents) + transposed.swapaxes(1, 2)) / 8

    return averaged
