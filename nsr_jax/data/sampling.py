"""Patches for training, cut inside the jitted step: batch n is a pure function of the key and n."""

import jax
import jax.numpy as jnp
from jax import lax

from nsr_jax.data.degradations import Degradation
from nsr_jax.data.store import ImageStore


def sample_patches(
    store: ImageStore,
    key: jax.Array,
    step: jax.Array,
    indices: jax.Array,
    *,
    scale: int,
    patch_size: int,
    margin: int,
    degradation: Degradation | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Cut random patches, each flipped along both axes and transposed with probability 1/2 (paper, section 4).

    Every sample draws from its own key, so a batch is the same however it is spread over devices.

    Args:
        store: the images.
        key: of the whole run.
        step: of the optimizer, an integer.
        indices: `(B,)`, the samples' places in the global batch.
        scale: of targets to inputs; must fit the store.
        patch_size: P, the side of an input patch.
        margin: input pixels at an image's border that are never sampled.
        degradation: makes the input from the clean image, at scale 1; None where the store has the inputs.

    Returns:
        inputs `(B, P, P, C)` and targets `(B, scale * P, scale * P, C)`, float32, the targets on [0, 1].

    Raises:
        ValueError: neither inputs nor a degradation, or both.
    """
    if (store.inputs is None) == (degradation is None):
        raise ValueError('either the store has inputs or a degradation makes them')
    key = jax.random.fold_in(key, step)
    channels = store.targets.shape[-1]
    size = patch_size if degradation is None else degradation.region_size(patch_size, channels)

    def sample(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        image_key, place_key, flip_key, degradation_key = jax.random.split(jax.random.fold_in(key, index), 4)
        image = jax.random.randint(image_key, (), 0, store.sizes.shape[0])
        corner = jax.random.randint(place_key, (2,), margin, store.sizes[image] - margin - size + 1)
        flips = jax.random.bernoulli(flip_key, shape=(3,))
        target = _orient(_cut(store.targets, image, corner * scale, size * scale), flips)
        if degradation is not None:
            return degradation(degradation_key, target, patch_size)
        patches = _orient(_cut(store.inputs, image, corner, size), flips), target
        return tuple(patch.astype(jnp.float32) / 255 for patch in patches)

    return jax.vmap(sample)(indices)


def _cut(images: jax.Array, image: jax.Array, corner: jax.Array, size: int) -> jax.Array:
    start = (image, corner[0], corner[1], 0)
    return lax.dynamic_slice(images, start, (1, size, size, images.shape[-1]))[0]


def _orient(patch: jax.Array, flips: jax.Array) -> jax.Array:
    patch = jnp.where(flips[0], patch[::-1], patch)
    patch = jnp.where(flips[1], patch[:, ::-1], patch)
    return jnp.where(flips[2], patch.swapaxes(0, 1), patch)
