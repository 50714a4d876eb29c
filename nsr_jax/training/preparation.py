"""From a config to all that a run needs before its first step; what is wrong with it is said here."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import optax
from absl import logging

import nsr_jax
from nsr_jax import agreement
from nsr_jax.data.mapped_store import open_store
from nsr_jax.data.sampling import draw_places, region_size, sample_patches
from nsr_jax.data.sources import records_folder
from nsr_jax.data.store import ImageStore, Needs
from nsr_jax.data.validation_split import open_training_images, read_validation_images
from nsr_jax.errors import UserError
from nsr_jax.inference.devices import replicate
from nsr_jax.losses import WeightedLosses, find_losses, weighted_sum
from nsr_jax.models.build import Network, build_network
from nsr_jax.models.cost import count_multi_adds, count_parameters
from nsr_jax.ops.settings import new_key
from nsr_jax.optimizers import Schedule, find_optimizer, find_schedule
from nsr_jax.paths import local_path
from nsr_jax.tasks import find_task
from nsr_jax.tasks.task import Corruption
from nsr_jax.training.feed import ResidentFeed, StreamedFeed
from nsr_jax.training.gradients import find_microbatch_size
from nsr_jax.training.sharding import make_mesh
from nsr_jax.training.state import TrainState, abstract_state, create_state
from nsr_jax.training.step import MakeBatch, make_train_steps
from nsr_jax.training.warm_start import check_warm_start
from nsr_jax.training.workdir import check_workdir


@dataclasses.dataclass(frozen=True, eq=False)
class Preparation:
    """A run before its first step.

    Attributes:
        network: what is trained.
        mesh: the devices.
        images: what it is trained on, in words that change with it.
        abstract: the state's shapes, dtypes and shardings.
        places: from a step to the image's name, row and column (of its first input pixel) of each sample of its batch.
        make_batch: as `make_train_steps` takes it.
        open_feed: from the step that comes next to the images of each call of `train_steps`.
        losses: what is minimised.
        learning_rate: of a step.
        create_state: makes the state of a new run.
        train_steps: the compiled function, as `make_train_steps` describes it.
    """

    network: Network
    mesh: jax.sharding.Mesh
    images: str
    abstract: TrainState
    places: Callable[[int], list[tuple[str, int, int]]]
    make_batch: MakeBatch
    open_feed: Callable[[int], ResidentFeed | StreamedFeed]
    losses: WeightedLosses
    learning_rate: Schedule
    create_state: Callable[[], TrainState]
    train_steps: jax.stages.Wrapped


def prepare(config: ml_collections.ConfigDict) -> Preparation:
    """Build the network, the mesh, the images and the train step; nothing is compiled yet.

    Raises:
        UserError: as `check_run`, or data that are missing or do not fit, or processes of a job whose configs, versions
            or images differ.
    """
    network = build_network(config.model, config.compute_dtype, config.remat)
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.batch_size)
    _log_cost(network)

    corruption, patch_size, margin = make_corruption(config), config.data.patch_size, config.data.margin
    size = region_size(patch_size, config.model.channels, corruption)
    with agreement.agreed():
        names, images, store = _open_images(config, size + 2 * margin)
    versions = {'nsr_jax': nsr_jax.__version__, 'jax': jax.__version__}
    agreement.check_alike({'version': versions, 'config': config.to_dict(), 'what is trained on': images})

    def places(step: int) -> list[tuple[str, int, int]]:
        indices = jnp.arange(config.batch_size, dtype=jnp.int32)
        drawn = draw_places(jnp.asarray(store.sizes), finish['key'], step, indices, size=size, margin=margin)
        return [(names[image], *corner) for image, corner in zip(*(part.tolist() for part in drawn), strict=True)]

    streamed = store.nbytes > config.data.resident_megabytes * 1e6
    finish = {'key': new_key(config.seed), 'patch_size': patch_size, 'corruption': corruption}
    if streamed:
        from nsr_jax.data.region_stream import sample_regions  # not at the top: it imports Grain, see feed.py

        def make_batch(regions, first_step, step, indices):
            return sample_regions(regions, step=step, indices=indices, first_step=first_step, **finish)

        def open_feed(first_step: int) -> StreamedFeed:
            return StreamedFeed(store, config, size, first_step, mesh)

    else:
        resident = ResidentFeed(replicate(store, mesh))

        def make_batch(store, first_step, step, indices):
            return sample_patches(store, step=step, indices=indices, scale=config.model.scale, margin=margin, **finish)

        def open_feed(first_step: int) -> ResidentFeed:
            return resident

    losses, (learning_rate, optimizer) = find_losses(config.loss), make_optimizer(config)
    has_ema = config.ema_decay > 0
    abstract = abstract_state(network, optimizer, mesh, has_ema)
    train_steps = make_train_steps(
        network,
        make_batch,
        losses=losses,
        optimizer=optimizer,
        batch_size=config.batch_size,
        stop_after_skipped=config.stop_after_skipped,
        mesh=mesh,
        microbatch_size=find_microbatch_size(config.microbatch_size, config.batch_size, mesh),
        abstract=abstract,
        ema_decay=config.ema_decay,
        streamed=streamed,
    )
    return Preparation(
        network=network,
        mesh=mesh,
        images=images,
        abstract=abstract,
        places=places,
        make_batch=make_batch,
        open_feed=open_feed,
        losses=losses,
        learning_rate=learning_rate,
        create_state=functools.partial(create_state, network, optimizer, mesh, config.seed, has_ema),
        train_steps=train_steps,
    )


def make_optimizer(config: ml_collections.ConfigDict) -> tuple[Schedule, optax.GradientTransformationExtraArgs]:
    """The learning rate of each step and the optimizer that a config describes.

    Raises:
        UserError: an unknown name, an option that the named one does not take, or a value that makes no sense.
    """
    schedule = find_schedule(
        config.learning_rate_schedule,
        config.learning_rate,
        warmup_steps=config.warmup_steps,
        num_steps=config.num_steps,
        drops=config.learning_rate_drops,
        factor=config.learning_rate_factor,
    )
    options = config.optimizer.to_dict()
    general = {name: options.pop(name) for name in ('name', 'clip_norm', 'accumulate_steps')}
    return schedule, find_optimizer(schedule=schedule, **general, options=options)


def _open_images(config: ml_collections.ConfigDict, smallest: int) -> tuple[Sequence[str], str, ImageStore]:
    """The training images' names, words that change with them, and the images.

    They are in memory, or in a file where a device is not to hold them all.
    """
    task = find_task(config.task)
    needs = Needs(
        scale=config.model.scale,
        channels=config.model.channels,
        smallest=smallest,
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
        check=needs.check,
    )
    store = open_store(source, find_store_folder(config), needs, budget=round(config.data.resident_megabytes * 1e6))
    is_resident = store.nbytes <= config.data.resident_megabytes * 1e6
    place = 'on each device' if is_resident else 'streamed, as config.data.resident_megabytes asks for'
    logging.info('%d images of %s, %.0f MB, %s', len(source), source.name, store.nbytes / 1e6, place)
    return source.names, f'{len(source)} images {source.fingerprint}', store


def find_store_folder(config: ml_collections.ConfigDict) -> pathlib.Path:
    """Where decoded images are kept that are not held in memory. Raises `UserError` as `local_path`."""
    if config.data.store_dir:
        return pathlib.Path(local_path(config.data.store_dir, 'config.data.store_dir'))
    return records_folder(config.data.tfds_dir) / 'image_stores'


def make_corruption(config: ml_collections.ConfigDict) -> Corruption | None:
    """What makes the network's input from a clean image; None for tasks whose sources have both.

    Raises:
        UserError: an unknown task, a scale that it does not have, or a range that makes no sense.
    """
    task = find_task(config.task)
    task.check_scale(config.model.scale)
    return task.corruption(config.degradation.to_dict()) if task.corruption else None


def check_run(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> None:
    """Check all that can be checked in no time: what the config names, the devices, the workdir, the warm start.

    Raises:
        UserError: what is wrong, and what would be accepted.
    """
    make_optimizer(config)
    side = config.model.scale * config.data.patch_size
    images = jax.ShapeDtypeStruct((1, side, side, config.model.channels), jnp.float32)
    jax.eval_shape(functools.partial(weighted_sum, find_losses(config.loss)), images, images)
    build_network(config.model, config.compute_dtype, config.remat)
    make_corruption(config)
    if config.model.get('gate') == 'hard':
        raise UserError("config.model.gate 'hard' has no gradient: train with softmax, sigmoid or uniform")
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.batch_size)
    find_microbatch_size(config.microbatch_size, config.batch_size, mesh)
    find_store_folder(config)
    check_workdir(pathlib.Path(workdir), config)
    check_warm_start(config, workdir)


def _log_cost(network: Network) -> None:
    multi_adds = count_multi_adds(network)
    logging.info(
        '%s parameters; %.2f G Multi-Adds for a 1280x720 output, of these %.4f G for mixing and %.4f G for gates',
        f'{count_parameters(network):,}',
        multi_adds.total / 1e9,
        multi_adds.mixing / 1e9,
        multi_adds.gates / 1e9,
    )
