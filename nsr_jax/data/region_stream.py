"""Sampling from images that do not lie on the device: the host cuts regions ahead, and the step finishes them.

The host draws the image and place of each sample by the same functions and keys as the step would. So batch n is the
same, bit for bit, however the images are kept, and the number of the step is all that a resumed run needs.
"""

import functools
import time
from collections.abc import Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsr_jax.data.sampling import Regions, check_inputs, draw_places, finish_patches
from nsr_jax.data.store import ImageStore
from nsr_jax.errors import UserError
from nsr_jax.tasks.task import Corruption


class RegionStream:
    """Cuts the regions of calls of several steps in threads, some calls ahead of the one that is taken.

    It keeps `calls_ahead + 2` calls in memory, and two more for a moment where the steps of two calls are joined.

    Args:
        store: NumPy arrays, mapped or not.
        key: of the whole run.
        indices: `(B,)`, the places in each batch of the samples that this process holds.
        scale: of the store's targets to its inputs.
        size: R, the side of the regions, see `region_size`.
        margin: input pixels at an image's border that are never sampled.
        first_step: the next step.
        last_step: the step before which the stream ends.
        steps_per_call: S, the largest number of steps that are taken at once.
        calls_ahead: how many calls are cut ahead, each in its own thread.

    Raises:
        UserError: JAX has no CPU device to draw on.
    """

    def __init__(
        self,
        store: ImageStore,
        *,
        key: jax.Array,
        indices: Sequence[int] | np.ndarray,
        scale: int,
        size: int,
        margin: int,
        first_step: int,
        last_step: int,
        steps_per_call: int,
        calls_ahead: int = 4,
    ):
        # Views without NumPy's class for mapped memory, whose slices take twice the time.
        self._targets = np.asarray(store.targets)
        self._inputs = None if store.inputs is None else np.asarray(store.inputs)
        self._scale, self._size, self._steps_per_call = scale, size, steps_per_call
        self._step, self._last_step, self._first_step = first_step, last_step, first_step
        self._draw = functools.partial(
            _draw_call,
            *jax.device_put((store.sizes, key, np.asarray(indices, np.int32)), _cpu_device()),
            size=size,
            margin=margin,
            steps=steps_per_call,
        )
        self._draw(np.int32(first_step))  # compiles here, once, and not in every thread
        self._waited = 0.0
        self._rest = None  # steps of the last call that have not been taken
        calls = -(-(last_step - first_step) // steps_per_call)
        options = grain.ReadOptions(num_threads=calls_ahead, prefetch_buffer_size=calls_ahead)
        self._calls = iter(grain.MapDataset.range(calls).map(self._cut_call).to_iter_dataset(options))
        self._calls.start_prefetch()

    def take(self, count: int) -> Regions:
        """The regions of the next steps.

        Args:
            count: how many steps, at most S.

        Returns:
            NumPy arrays with axes `(S, B)` before those of an image, not to be written to; only the first `count` steps
            mean anything.

        Raises:
            ValueError: so many steps are not left, or cannot be taken at once.
        """
        if not 0 < count <= min(self._steps_per_call, self._last_step - self._step):
            raise ValueError(f'{count} steps from step {self._step} on, of a stream that ends at {self._last_step}')
        self._step += count
        regions = self._rest or self._next_call()
        if len(regions.targets) < count:
            regions = jax.tree.map(lambda *parts: np.concatenate(parts), regions, self._next_call())
        there = len(regions.targets)
        self._rest = jax.tree.map(lambda array: array[count:], regions) if there > count else None
        if there == self._steps_per_call:  # always so if all calls are of S steps; nothing is copied
            return regions
        return jax.tree.map(lambda array: np.resize(array, (self._steps_per_call, *array.shape[1:])), regions)

    def pop_waited_seconds(self) -> float:
        """How long `take` has waited for regions since the last call of this."""
        waited, self._waited = self._waited, 0.0
        return waited

    def close(self) -> None:
        """Stop cutting ahead."""
        self._calls.close()

    def _next_call(self) -> Regions:
        started = time.perf_counter()
        regions = next(self._calls)
        self._waited += time.perf_counter() - started
        return regions

    def _cut_call(self, call: int) -> Regions:
        """Runs in a thread: compiled functions of JAX may run in any, and NumPy copies without Python's lock."""
        first_step = self._first_step + call * self._steps_per_call
        images, corners = jax.device_get(self._draw(np.int32(first_step)))

        def cut(array: np.ndarray, factor: int) -> np.ndarray:
            side = self._size * factor
            regions = np.empty((images.size, side, side, array.shape[-1]), np.uint8)
            corner_list = (corners * factor).reshape(-1, 2).tolist()
            for region, image, (row, column) in zip(regions, images.flat, corner_list, strict=True):
                region[...] = array[image, row : row + side, column : column + side]
            return regions.reshape(*images.shape, *regions.shape[1:])

        return Regions(cut(self._targets, self._scale), None if self._inputs is None else cut(self._inputs, 1))


def sample_regions(
    regions: Regions,
    key: jax.Array,
    step: jax.Array,
    indices: jax.Array,
    *,
    first_step: jax.Array,
    patch_size: int,
    corruption: Corruption | None = None,
) -> tuple[jax.Array, jax.Array]:
    """As `sample_patches`, from regions that were cut for a call; for use inside the jitted step.

    Args:
        regions: as `RegionStream.take` gives them, with all samples of the batch.
        first_step: of the call.
    """
    check_inputs(regions.inputs, corruption)
    of_step = jax.tree.map(lambda array: lax.dynamic_index_in_dim(array, step - first_step, keepdims=False), regions)
    return finish_patches(of_step, key, step, indices, patch_size=patch_size, corruption=corruption)


@functools.partial(jax.jit, static_argnames=('size', 'margin', 'steps'))
def _draw_call(sizes, key, indices, first_step, *, size, margin, steps):
    """Draw for all steps of a call: images `(S, B)` and corners `(S, B, 2)`."""

    def draw(step: jax.Array) -> tuple[jax.Array, jax.Array]:
        return draw_places(sizes, key, step, indices, size=size, margin=margin)

    return jax.vmap(draw)(first_step + jnp.arange(steps, dtype=jnp.int32))


def _cpu_device() -> Any:
    try:
        return jax.local_devices(backend='cpu')[0]
    except RuntimeError as error:
        raise UserError(
            f'streamed images are chosen on the CPU, which JAX_PLATFORMS leaves out: add cpu to it ({error})'
        ) from error
