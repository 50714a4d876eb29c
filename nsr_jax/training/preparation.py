"""From a config to all that a run needs before its first step; what is wrong with it is said here."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
import ml_collections
from absl import logging

from nsr_jax.data.degradations import Degradation, Jpeg, Noise
from nsr_jax.data.sampling import sample_patches
from nsr_jax.data.sources import open_source
from nsr_jax.data.store import ImageStore, build_store
from nsr_jax.errors import UserError
from nsr_jax.models.build import Network, build_network
from nsr_jax.models.cost import count_multi_adds, count_parameters
from nsr_jax.ops.colour import rgb_to_gray_uint8, rgb_to_y_uint8
from nsr_jax.training.sharding import make_mesh, replicated
from nsr_jax.training.state import TrainState, abstract_state, learning_rate_at
from nsr_jax.training.step import make_train_steps
from nsr_jax.training.workdir import check_workdir

# How colour images become gray for a network of one channel: as the task's benchmarks were made.
_TO_GRAY = {'sr': rgb_to_y_uint8, 'denoise': rgb_to_gray_uint8, 'jpeg': rgb_to_y_uint8}

_COUNTS = (
    'batch_size', 'num_steps', 'steps_per_call', 'log_every_steps', 'evaluate_every_steps', 'checkpoint_every_steps',
    'checkpoints_to_keep', 'data.patch_size',
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Preparation:
    """A run before its first step.

    Attributes:
        network: what is trained.
        mesh: the devices.
        abstract: the state's shapes, dtypes and shardings.
        store: the training images, on every device.
        learning_rate: of a step.
        train_steps: the compiled function, as `make_train_steps` describes it.
    """

    network: Network
    mesh: jax.sharding.Mesh
    abstract: TrainState
    store: ImageStore
    learning_rate: Callable[[jax.Array], jax.Array]
    train_steps: jax.stages.Wrapped


def prepare(config: ml_collections.ConfigDict) -> Preparation:
    """Build the network, the mesh, the resident images and the train step; nothing is compiled yet.

    Raises:
        UserError: as `check_run`, or data that are missing or do not fit.
    """
    network = build_network(config.model, config.compute_dtype, config.remat)
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.batch_size)
    _log_cost(network)

    source = open_source(
        config.data.source,
        config.data.split,
        config.model.scale,
        data_dir=config.data.data_dir,
        tfds_dir=config.data.tfds_dir,
    )
    channels, degradation = config.model.channels, make_degradation(config)
    patch_size = config.data.patch_size
    region = patch_size if degradation is None else degradation.region_size(patch_size, channels)
    store = build_store(
        source,
        scale=config.model.scale,
        channels=channels,
        smallest=region + 2 * config.data.margin,
        to_gray=_TO_GRAY[config.task] if channels == 1 else None,
    )
    logging.info('%d images of %s, %.0f MB on each device', len(source), source.name, store.nbytes / 1e6)
    # CPU devices share the host's memory: nothing writes to the store from here on.
    store = jax.device_put(store, replicated(mesh), may_alias=True)

    abstract = abstract_state(network, mesh)
    sample = functools.partial(
        sample_patches,
        key=jax.random.key(config.seed),
        scale=config.model.scale,
        patch_size=patch_size,
        margin=config.data.margin,
        degradation=degradation,
    )
    learning_rate = functools.partial(
        learning_rate_at,
        initial=config.learning_rate,
        num_steps=config.num_steps,
        drops=config.learning_rate_drops,
        factor=config.learning_rate_factor,
    )
    train_steps = make_train_steps(
        network,
        lambda store, step, indices: sample(store, step=step, indices=indices),
        learning_rate,
        batch_size=config.batch_size,
        mesh=mesh,
        abstract=abstract,
    )
    return Preparation(network, mesh, abstract, store, learning_rate, train_steps)


def make_degradation(config: ml_collections.ConfigDict) -> Degradation | None:
    """What makes the network's input from a clean image; None for super-resolution, whose sources have both.

    Raises:
        UserError: an unknown task, a scale that it does not have, or a range that makes no sense.
    """
    scales = {'sr': (2, 3, 4), 'denoise': (1,), 'jpeg': (1,)}
    if config.task not in scales:
        raise UserError(f'config.task must be one of {", ".join(scales)}, not {config.task!r}')
    if config.model.scale not in scales[config.task]:
        accepted = ', '.join(map(str, scales[config.task]))
        raise UserError(f'config.model.scale must be {accepted} for task {config.task}, not {config.model.scale}')
    if config.task == 'sr':
        return None
    name, kind = {'denoise': ('sigma', Noise), 'jpeg': ('quality', Jpeg)}[config.task]
    limits = config.degradation[name]
    if len(limits) != 2:
        raise UserError(f'config.degradation.{name} must be two numbers, lowest and highest, not {limits}')
    return kind(*limits)


def check_run(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> None:
    """Check all that can be checked in no time: the config, the network, the devices and the workdir.

    Raises:
        UserError: what is wrong, and what would be accepted.
    """
    for name in _COUNTS:
        value = config
        for part in name.split('.'):
            value = value[part]
        if not isinstance(value, int) or value < 1:
            raise UserError(f'config.{name} must be a whole number from 1, not {value!r}')
    if not isinstance(config.data.margin, int) or config.data.margin < 0:
        raise UserError(f'config.data.margin must be a whole number from 0, not {config.data.margin!r}')
    if not config.learning_rate > 0:
        raise UserError(f'config.learning_rate must be above 0, not {config.learning_rate!r}')
    make_degradation(config)
    if config.model.get('gate') == 'hard':
        raise UserError("config.model.gate 'hard' has no gradient: train with softmax, sigmoid or uniform")
    build_network(config.model, config.compute_dtype, config.remat)
    make_mesh(config.mesh.data, config.mesh.fsdp, config.batch_size)
    check_workdir(pathlib.Path(workdir), config)


def _log_cost(network: Network) -> None:
    multi_adds = count_multi_adds(network)
    logging.info(
        '%s parameters; %.2f G Multi-Adds for a 1280x720 output, of these %.4f G for mixing and %.4f G for gates',
        f'{count_parameters(network):,}',
        multi_adds.total / 1e9,
        multi_adds.mixing / 1e9,
        multi_adds.gates / 1e9,
    )
