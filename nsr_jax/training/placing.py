"""How a store that is held on each device lies there."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh

from nsr_jax.data.store import ImageStore
from nsr_jax.inference.devices import replicate, replicated

# A TPU cuts patches from rows of one colour. By itself it would hold the images in whatever order of their axes needs
# the least padding, and copy all of them into this order in each call of the train steps.
_PLATFORM, _LAYOUT = 'tpu', Layout(major_to_minor=(0, 3, 1, 2))
_PIECE = 2**26  # bytes


def store_formats(mesh: Mesh) -> Any:
    """Where and how a store lies, as `jax.jit` takes it for an argument: one sharding, or one for each array."""
    whole: Any = replicated(mesh)
    form: Any = _image_format(mesh)
    return ImageStore(form, form, whole) if form else whole


def place_store(store: ImageStore, mesh: Mesh) -> ImageStore:
    """Copy the host's store, which is the same in every process, to every device, as `store_formats` says.

    CPU devices share the host's memory: nothing may write to the store afterwards.
    """
    form = _image_format(mesh)
    if form is None:
        return replicate(store, mesh)
    inputs = None if store.inputs is None else _put_in_pieces(np.asarray(store.inputs), form)
    return ImageStore(_put_in_pieces(np.asarray(store.targets), form), inputs, replicate(store.sizes, mesh))


def _image_format(mesh: Mesh) -> Format | None:
    """Of the images; None: the one that a device chooses by itself."""
    return Format(_LAYOUT, replicated(mesh)) if mesh.devices.flat[0].platform == _PLATFORM else None


def _put_in_pieces(images: np.ndarray, form: Format) -> jax.Array:
    """Copy images in pieces, because a copy in one piece would take the device's memory twice: it is ordered there."""
    make = jax.jit(lambda: jnp.zeros(images.shape, images.dtype), out_shardings=form)
    put = jax.jit(
        lambda placed, piece, first: lax.dynamic_update_slice_in_dim(placed, piece, first, axis=0),
        in_shardings=(form, form.sharding, form.sharding),
        out_shardings=form,
        donate_argnums=0,
    )
    placed, count = make(), max(_PIECE // images[0].nbytes, 1)
    for first in range(0, len(images), count):
        placed = put(placed, images[first : first + count], np.int32(first))
    return placed
