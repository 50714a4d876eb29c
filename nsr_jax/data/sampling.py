"""Patches for training, cut inside the jitted step: batch n is a pure function of the key and n.

A sample is drawn (its image and place), cut, and finished (flipped, degraded, scaled to [0, 1]). If the images do not
fit on the device, the host draws and cuts by the same functions, and the step only finishes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsr_jax.data.store import ImageStore
from nsr_jax.ops.settings import fixed_bits
from nsr_jax.tasks.task import Corruption


class Regions(NamedTuple):
    """Regions that are cut from images for samples, not flipped yet.

    Attributes:
        targets: uint8 `(..., scale * R, scale * R, C)`, of the clean images.
        inputs: uint8 `(..., R, R, C)`, the same places of the inputs; None if a corruption makes them.
    """

    targets: jax.Array | np.ndarray
    inputs: jax.Array | np.ndarray | None


def sample_patches(
    store: ImageStore,
    key: jax.Array,
    step: jax.Array | int,
    indices: jax.Array,
    *,
    scale: int,
    patch_size: int,
    margin: int,
    corruption: Corruption | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Cut random patches, each flipped along both axes and transposed with probability 1/2 (paper, section 4).

    Every sample has its own key, so a batch is the same however it is spread over devices.

    Args:
        store: the images.
        key: of the whole run.
        step: of the optimizer, an integer.
        indices: `(B,)`, the samples' places in the global batch.
        scale: of targets to inputs; must fit the store.
        patch_size: P, the side of an input patch.
        margin: input pixels at an image's border that are never sampled.
        corruption: makes the input from the clean image, at scale 1; None if the store has the inputs.

    Returns:
        inputs `(B, P, P, C)` and targets `(B, scale * P, scale * P, C)`, float32, the targets on [0, 1].

    Raises:
        ValueError: neither inputs nor a corruption, or both.
    """
    check_inputs(store.inputs, corruption)
    size = region_size(patch_size, store.targets.shape[-1], corruption)
    images, corners = draw_places(store.sizes, key, step, indices, size=size, margin=margin)
    targets = _cut(store.targets, images, corners * scale, size * scale)
    inputs = None if store.inputs is None else _cut(store.inputs, images, corners, size)
    return finish_patches(Regions(targets, inputs), key, step, indices, patch_size=patch_size, corruption=corruption)


def check_inputs(inputs: jax.Array | np.ndarray | None, corruption: Corruption | None) -> None:
    """Raise ValueError unless there are either inputs or a corruption to make them."""
    if (inputs is None) == (corruption is None):
        raise ValueError('either the store has inputs or a corruption makes them')


def region_size(patch_size: int, channels: int, corruption: Corruption | None) -> int:
    """R, the side in input pixels of the region that a patch needs."""
    return patch_size if corruption is None else corruption.region_size(patch_size, channels)


def draw_places(
    sizes: jax.Array | np.ndarray, key: jax.Array, step: jax.Array | int, indices: jax.Array, *, size: int, margin: int
) -> tuple[jax.Array, jax.Array]:
    """Choose an image for each sample, and a place in it; other arguments are as in `sample_patches`.

    Args:
        sizes: `(N, 2)`, of the images in input pixels.
        size: R, see `region_size`.

    Returns:
        the images' numbers `(B,)`, and row and column of the regions' first input pixels `(B, 2)`, int32.
    """

    def draw(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        image_key, place_key, _, _ = keys
        image = jax.random.randint(image_key, (), 0, sizes.shape[0], jnp.int32)
        return image, jax.random.randint(place_key, (2,), margin, sizes[image] - margin - size + 1, jnp.int32)

    with fixed_bits():
        return jax.vmap(draw)(_keys_by_use(key, step, indices))


def finish_patches(
    regions: Regions,
    key: jax.Array,
    step: jax.Array | int,
    indices: jax.Array,
    *,
    patch_size: int,
    corruption: Corruption | None,
) -> tuple[jax.Array, jax.Array]:
    """Flip, degrade and scale to [0, 1] the regions of one step's samples, with axis B before those of the images.

    The other arguments and the results are those of `sample_patches`.
    """

    def finish(keys: jax.Array, regions: Regions) -> tuple[jax.Array, jax.Array]:
        _, _, flip_key, corruption_key = keys
        flips = jax.random.bernoulli(flip_key, jnp.float32(0.5), (3,))
        target = _orient(regions.targets, flips)
        if corruption is not None:
            return corruption(corruption_key, target, patch_size)
        assert regions.inputs is not None  # by `check_inputs`
        return _orient(regions.inputs, flips).astype(jnp.float32) / 255, target.astype(jnp.float32) / 255

    with fixed_bits():
        return jax.vmap(finish)(_keys_by_use(key, step, indices), regions)


def sample_keys(key: jax.Array, step: jax.Array | int, indices: jax.Array) -> jax.Array:
    """`(B,)`, a key for each sample of a step, however the batch is spread over devices.

    The arguments are those of `sample_patches`.
    """
    with fixed_bits():
        return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, step), indices)


def _keys_by_use(key: jax.Array, step: jax.Array | int, indices: jax.Array) -> jax.Array:
    """`(B, 4)`: for the image, the place, the flips and the corruption of each sample."""
    with fixed_bits():
        return jax.vmap(lambda each: jax.random.split(each, 4))(sample_keys(key, step, indices))


def _cut(array: jax.Array | np.ndarray, images: jax.Array, corners: jax.Array, side: int) -> jax.Array:
    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return lax.dynamic_slice(array, (image, corner[0], corner[1], np.int32(0)), (1, side, side, array.shape[-1]))[0]

    return jax.vmap(cut)(images, corners)


def _orient(patch: jax.Array | np.ndarray, flips: jax.Array) -> jax.Array:
    patch = jnp.where(flips[0], patch[::-1], patch)
    patch = jnp.where(flips[1], patch[:, ::-1], patch)
    return jnp.where(flips[2], patch.swapaxes(0, 1), patch)
