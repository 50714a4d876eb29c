"""The images that a run draws its batches from, held on each device or cut ahead by the host."""

import concurrent.futures
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging
from jax.sharding import Mesh

from nsr_jax.data.mapped_store import open_store
from nsr_jax.data.region_stream import sample_regions
from nsr_jax.data.sampling import Regions, draw_places, region_size, sample_patches
from nsr_jax.data.sources import Source, records_folder
from nsr_jax.data.store import ImageStore, Needs
from nsr_jax.data.validation_split import open_training_images, read_validation_images
from nsr_jax.errors import first_of
from nsr_jax.ops.settings import new_key
from nsr_jax.paths import local_path
from nsr_jax.tasks import find_task
from nsr_jax.tasks.task import Corruption
from nsr_jax.training.feed import ResidentFeed, StreamedFeed
from nsr_jax.training.placing import place_store


def make_corruption(config: ml_collections.ConfigDict) -> Corruption | None:
    """The task's corruption, which makes the network's input from a clean image; None if the source holds the inputs.

    Raises:
        UserError: an unknown task, a scale that it does not have, or a range that makes no sense.
    """
    task = find_task(config.task)
    task.check_scale(config.model.scale)
    return task.corruption(config.degradation.to_dict()) if task.corruption else None


def find_store_folder(config: ml_collections.ConfigDict) -> pathlib.Path:
    """The folder for decoded images that do not fit in memory. Raises `UserError` as `local_path`."""
    if config.data.store_dir:
        return pathlib.Path(local_path(config.data.store_dir, 'config.data.store_dir'))
    return records_folder(config.data.tfds_dir) / 'image_stores'


def find_region_size(config: ml_collections.ConfigDict) -> int:
    """The side in input pixels of the region that a patch needs."""
    return region_size(config.data.patch_size, config.model.channels, make_corruption(config))


def open_images(config: ml_collections.ConfigDict) -> tuple[Source, Needs]:
    """The images of a run's source without those that are held out for validation, and what training needs of each.

    Raises:
        UserError: data are missing or do not fit.
    """
    task = find_task(config.task)
    needs = Needs(
        scale=config.model.scale,
        channels=config.model.channels,
        smallest=find_region_size(config) + 2 * config.data.margin,
        has_inputs=task.inputs != 'made',
        to_gray=task.to_gray if config.model.channels == 1 else None,
    )
    source = open_training_images(
        config.data.source,
        config.data.split,
        config.model.scale,
        read_validation_images(config.validation),
        inputs=task.inputs,
        data_dir=config.data.data_dir,
        tfds_dir=config.data.tfds_dir,
        check=needs.check_channels,
    )
    return leave_out_small(source, needs), needs


def leave_out_small(source: Source, needs: Needs) -> Source:
    """The images that hold a patch and its margins, or all if none does; the log counts the others."""
    with concurrent.futures.ThreadPoolExecutor() as threads:
        shapes = threads.map(source.hr_shape, range(len(source)))
        small = {name for name, shape in zip(source.names, shapes, strict=True) if not needs.is_large_enough(shape)}
    if not small or len(small) == len(source):
        return source
    logging.warning(
        '%d of %d images of %s are left out: their shorter sides are below the %d pixels of a patch and its margins '
        '(config.data.patch_size, config.data.margin): %s',
        *(len(small), len(source), source.name, needs.smallest * needs.scale, first_of(sorted(small))),
    )
    return source.select(lambda name: name not in small)


class BatchMaker:
    """Makes the batches of a run from its images: a pure function of the step, for use inside the jitted step."""

    def __init__(self, config: ml_collections.ConfigDict):
        self._config = config
        self._corruption = make_corruption(config)
        self._key = new_key(config.seed)

    def __call__(
        self, images: ImageStore | Regions, first_step: jax.Array, step: jax.Array, indices: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Inputs and targets of a step, as `sample_patches` returns them.

        Args:
            images: as a feed of `TrainingImages.open_feed` gives them.
            first_step: of the call of the compiled function.
        """
        data, key, corruption = self._config.data, self._key, self._corruption
        if isinstance(images, Regions):
            return sample_regions(
                images, key, step, indices, first_step=first_step, patch_size=data.patch_size, corruption=corruption
            )
        return sample_patches(
            images,
            key,
            step,
            indices,
            scale=self._config.model.scale,
            patch_size=data.patch_size,
            margin=data.margin,
            corruption=corruption,
        )


class TrainingImages:
    """The decoded images of a run's source, without those that are held out for validation.

    Attributes:
        identity: a text that changes when the images do.
        is_streamed: whether they exceed `config.data.resident_megabytes`, and so are not held on each device.

    Raises:
        UserError: data are missing or do not fit.
    """

    def __init__(self, config: ml_collections.ConfigDict, mesh: Mesh):
        self._config, self._mesh = config, mesh
        self._region_size = find_region_size(config)
        source, needs = open_images(config)
        budget = round(config.data.resident_megabytes * 1e6)
        self._names = source.names
        self._store = open_store(source, find_store_folder(config), needs, budget=budget)
        self.identity = f'{len(source)} images {source.fingerprint}'
        self.is_streamed = self._store.nbytes > budget
        place = 'streamed, as config.data.resident_megabytes asks for' if self.is_streamed else 'on each device'
        logging.info('%d images of %s, %.0f MB, %s', len(source), source.name, self._store.nbytes / 1e6, place)

    def places(self, step: int) -> list[tuple[str, int, int]]:
        """For each sample of a step's batch, the image's name, and row and column of its first input pixel."""
        images, corners = draw_places(
            jnp.asarray(self._store.sizes),
            new_key(self._config.seed),
            step,
            jnp.arange(self._config.batch_size, dtype=jnp.int32),
            size=self._region_size,
            margin=self._config.data.margin,
        )
        return [
            (self._names[image], row, column)
            for image, (row, column) in zip(images.tolist(), corners.tolist(), strict=True)
        ]

    def open_feed(self, first_step: int) -> ResidentFeed | StreamedFeed:
        """The feed that gives the images of each call of the compiled function, from this step on."""
        if self.is_streamed:
            return StreamedFeed(self._store, self._config, self._region_size, first_step, self._mesh)
        return ResidentFeed(place_store(self._store, self._mesh))
