"""Where the images of a call of train steps come from: the whole store, or what the host has cut for these steps."""

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding

from nsr_jax.data.region_stream import RegionStream
from nsr_jax.data.sampling import Regions
from nsr_jax.data.store import ImageStore
from nsr_jax.ops.settings import new_key
from nsr_jax.training.sharding import over_batch, over_calls


class ResidentFeed:
    """The same store for every call, on every device.

    Args:
        store: on every device of a mesh.
    """

    def __init__(self, store: ImageStore):
        self._store = store

    def take(self, count: int) -> ImageStore:
        """The store, whatever the number of steps."""
        return self._store

    def pop_waited_seconds(self) -> float:
        """As `StreamedFeed`: nothing is waited for."""
        return 0.0

    def close(self) -> None:
        """Nothing is left to do."""


class StreamedFeed:
    """The regions of each call, cut in threads some calls ahead, each device's part of them by its own process.

    Args:
        store: the host's arrays.
        config: a whole config.
        size: side of the regions, in input pixels.
        first_step: that comes next.
        mesh: over which batches are split.
    """

    def __init__(self, store: ImageStore, config: ml_collections.ConfigDict, size: int, first_step: int, mesh: Mesh):
        indices = np.arange(config.batch_size)
        parts = over_batch(mesh).addressable_devices_indices_map((config.batch_size,)).values()
        self._sharding: NamedSharding = over_calls(mesh)
        self._axes = config.steps_per_call, config.batch_size
        self._stream = RegionStream(
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
        """What the next steps need, on the devices; as `RegionStream.take`."""

        def put(local: np.ndarray) -> jax.Array:
            return jax.make_array_from_process_local_data(self._sharding, local, (*self._axes, *local.shape[2:]))

        return jax.tree.map(put, self._stream.take(count))

    def pop_waited_seconds(self) -> float:
        """For how long `take` has waited for the threads since this was asked last."""
        return self._stream.pop_waited_seconds()

    def close(self) -> None:
        """Stop cutting ahead."""
        self._stream.close()
