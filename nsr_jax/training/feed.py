"""The images for each call of the train steps: the whole store, or regions that the host has cut for these steps."""

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from nsr_jax.data.region_stream import RegionStream
from nsr_jax.data.sampling import Regions
from nsr_jax.data.store import ImageStore
from nsr_jax.ops.settings import new_key
from nsr_jax.training.sharding import over_batch, over_calls


class ResidentFeed:
    """Gives the same store, which lies on every device, to every call."""

    def __init__(self, store: ImageStore):
        self._store = store

    def take(self, count: int) -> ImageStore:
        """The store, for any number of steps."""
        return self._store

    def pop_waited_seconds(self) -> float:
        """Zero: nobody waits for the store."""
        return 0.0

    def close(self) -> None:
        """Do nothing."""


class StreamedFeed(RegionStream):
    """Gives each call its regions on the devices; each process cuts those of its own devices.

    Args:
        size: side of the regions, in input pixels.
    """

    def __init__(self, store: ImageStore, config: ml_collections.ConfigDict, size: int, first_step: int, mesh: Mesh):
        indices = np.arange(config.batch_size)
        parts = over_batch(mesh).addressable_devices_indices_map((config.batch_size,)).values()
        self._sharding = over_calls(mesh)
        self._axes = config.steps_per_call, config.batch_size
        super().__init__(
            store,
            key=new_key(config.seed),
            indices=np.unique(np.concatenate([indices[part] for part in parts if part is not None])),
            scale=config.model.scale,
            size=size,
            margin=config.data.margin,
            first_step=first_step,
            last_step=config.num_steps,
            steps_per_call=config.steps_per_call,
        )

    def take(self, count: int) -> Regions:
        """As `RegionStream.take`, on the devices."""

        def put(local: np.ndarray) -> jax.Array:
            return jax.make_array_from_process_local_data(self._sharding, local, (*self._axes, *local.shape[2:]))

        return jax.tree.map(put, super().take(count))
