"""What a run consists of before its first step, made from its config; mistakes in the config are reported here."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from absl import logging
from flax.traverse_util import flatten_dict

import nsr_jax
from nsr_jax import agreement
from nsr_jax.errors import UserError
from nsr_jax.losses import WeightedLosses, find_losses, weighted_sum
from nsr_jax.models.build import Network, build_network
from nsr_jax.models.cost import count_multi_adds, count_parameters, parameter_shapes
from nsr_jax.ops.settings import new_key
from nsr_jax.optimizers import Schedule, find_optimizer, find_schedule
from nsr_jax.training.gradients import find_microbatch_size
from nsr_jax.training.history import MISSING, find_differences, set_field
from nsr_jax.training.self_check import check_sparse_convolutions
from nsr_jax.training.sharding import make_mesh
from nsr_jax.training.state import TrainState, abstract_state, create_state, state_shapes
from nsr_jax.training.step import make_train_steps
from nsr_jax.training.trackers import check_trackers
from nsr_jax.training.training_images import (
    BatchMaker,
    TrainingImages,
    find_store_folder,
    make_corruption,
)
from nsr_jax.training.warm_start import check_warm_start
from nsr_jax.training.workdir import check_workdir

# Fields that no run can change besides those of the network and those that change the structure of the state: a warm
# start has had its effect.
_FIXED = ('task', 'warm_start')
_NOISE = 2**32 - 1  # in place of a step, which the keys of batches are folded with


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """What is compiled for a run, which depends on its config and on the kind of devices.

    Attributes:
        network: what is trained.
        mesh: the devices.
        losses: what is minimised.
        learning_rate: from a step to its learning rate.
        make_batch: inputs and targets of a step.
        abstract: the state's shapes, dtypes and shardings.
        create_state: makes the state of a new run.
        train_steps: the jitted function, as `make_train_steps` describes it.
        noise_key: of the whole run; None if the network draws no noise.
    """

    network: Network
    mesh: jax.sharding.Mesh
    losses: WeightedLosses
    learning_rate: Schedule
    make_batch: BatchMaker
    abstract: TrainState
    create_state: Callable[[], TrainState]
    train_steps: jax.stages.Wrapped
    noise_key: jax.Array | None


@dataclasses.dataclass(frozen=True, eq=False)
class Run(Program):
    """Everything that a run needs before its first step.

    Attributes:
        images: what it is trained on.
    """

    images: TrainingImages


def prepare_run(config: ml_collections.ConfigDict) -> Run:
    """Build the network, the mesh, the images and the train step; nothing is compiled yet but the check of a TPU.

    Raises:
        UserError: as `check_run`; a TPU computes the convolutions wrongly; data are missing or do not fit; or the
            processes of a job have different configs, versions or images.
    """
    if jax.default_backend() == 'tpu':
        with agreement.agreed():
            shapes = parameter_shapes(build_network(config.model))
            check_sparse_convolutions(shapes, config.data.patch_size, config.compute_dtype)
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.batch_size)
    with agreement.agreed():
        images = TrainingImages(config, mesh)
    versions = {'nsr_jax': nsr_jax.__version__, 'jax': jax.__version__}
    agreement.check_alike({'version': versions, 'config': config.to_dict(), 'what is trained on': images.identity})
    return Run(**vars(build_program(config, mesh, images.is_streamed)), images=images)


def build_program(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, is_streamed: bool) -> Program:
    """Build the network and the train step for devices, which need not be there.

    Args:
        config: a whole config.
        mesh: the devices.
        is_streamed: whether the images are streamed.

    Raises:
        UserError: as `check_names`, or the microbatch does not divide the samples of a device.
    """
    network = build_network(config.model, config.compute_dtype, config.remat)
    multi_adds = count_multi_adds(network)
    logging.info(
        '%s parameters; %.2f G Multi-Adds for a 1280x720 output, of these %.4f G for gates and mixing',
        f'{count_parameters(network):,}',
        multi_adds.total / 1e9,
        multi_adds.once / 1e9,
    )
    losses = find_losses(config.loss)
    learning_rate, optimizer = make_optimizer(config)
    has_ema = config.ema_decay > 0
    abstract = abstract_state(network, optimizer, mesh, has_ema)
    noise_key = jax.random.fold_in(new_key(config.seed), _NOISE) if network.draws_noise else None
    make_batch = BatchMaker(config)
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
        gate_warmup_steps=config.gate_warmup_steps,
        streamed=is_streamed,
        noise_key=noise_key,
    )
    return Program(
        network=network,
        mesh=mesh,
        losses=losses,
        learning_rate=learning_rate,
        make_batch=make_batch,
        abstract=abstract,
        create_state=functools.partial(create_state, network, optimizer, mesh, config.seed, has_ema),
        train_steps=train_steps,
        noise_key=noise_key,
    )


def make_optimizer(config: ml_collections.ConfigDict) -> tuple[Schedule, optax.GradientTransformationExtraArgs]:
    """The learning rate of each step and the optimizer that a config describes.

    Raises:
        UserError: an unknown name, an option that the optimizer does not take, or a value that makes no sense.
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
    optimizer = find_optimizer(
        options.pop('name'),
        schedule,
        gate_rate=options.pop('gate_rate'),
        clip_norm=options.pop('clip_norm'),
        accumulate_steps=options.pop('accumulate_steps'),
        options=options,
    )
    return schedule, optimizer


def check_run(config: ml_collections.ConfigDict, workdir: str | pathlib.Path, change: Sequence[str] = ()) -> None:
    """Check what takes little time: `check_names`, devices, trackers, the workdir, the changes and the warm start.

    Args:
        workdir: is made if it is missing.
        change: fields that may differ from those of the run in the workdir.

    Raises:
        UserError: something is wrong; the line says what would be accepted.
    """
    check_names(config)
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.batch_size)
    find_microbatch_size(config.microbatch_size, config.batch_size, mesh)
    find_store_folder(config)
    check_trackers(config.trackers)
    check_workdir(pathlib.Path(workdir))
    check_changes(pathlib.Path(workdir), config, change)
    check_warm_start(config, workdir)


def check_changes(workdir: pathlib.Path, config: ml_collections.ConfigDict, change: Sequence[str]) -> None:
    """Check that a config differs from that of the workdir's run in no field but those of `change`.

    Raises:
        UserError: it differs in another one, or in one that no run can change; `change` names no field of a config; or
            there is no run to change. The line says what differs, and how to go on.
    """
    fields = flatten_dict(config.to_dict(), sep='.')
    for name in change:
        if name not in fields:
            raise UserError(f'--change={name}: a config has no field {name!r}, such as num_steps or optimizer.b1')
    differences = find_differences(workdir, config)
    if differences is None and change:
        raise UserError(f'--change={",".join(change)}: workdir {workdir} holds no run that could be changed')
    fixed = _find_fixed(config, differences or {})
    if not differences or (differences.keys() <= set(change) and not fixed):
        return
    told = '; '.join(f'{name} {there} there, {here} now' for name, (there, here) in differences.items())
    if fixed:
        way = f'{", ".join(fixed)} cannot change within a run: give another --workdir'
    else:
        way = f'--change={",".join(differences)} goes on with the new value{"s" * (len(differences) > 1)}'
    raise UserError(f'workdir {workdir} holds a run of another config: {told}; {way}')


def _find_fixed(config: ml_collections.ConfigDict, differences: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """The fields that no run can change, because its weights are of another task or network, or its state has others.

    Args:
        config: the new one.
        differences: by name, the old value and the new one.
    """

    layout = functools.cache(lambda: _layout(config))  # which takes a moment, and is not always needed

    def is_fixed(name: str) -> bool:
        if name in _FIXED or name.startswith('model.') or differences[name][1] == MISSING:
            return True
        before = config.copy_and_resolve_references()
        set_field(before, name, differences[name][0])
        try:
            return _layout(before) != layout()
        except UserError:  # the old value does not fit the other new ones, as an option of another optimizer
            return True

    return [name for name in differences if is_fixed(name)]


def _layout(config: ml_collections.ConfigDict) -> tuple[Any, ...]:
    """The structure and shapes of the state of a run."""
    network = build_network(config.model, config.compute_dtype, config.remat)
    shapes = state_shapes(network, make_optimizer(config)[1], config.ema_decay > 0)
    return jax.tree.structure(shapes), jax.tree.leaves(shapes)


def check_names(config: ml_collections.ConfigDict) -> None:
    """Check the optimizer, losses, network and task that a config names, which do not depend on the machine.

    Raises:
        UserError: something is wrong; the line says what would be accepted.
    """
    make_optimizer(config)
    if config.ema_decay and config.optimizer.name == 'schedule_free':
        raise UserError('config.ema_decay: the optimizer schedule_free keeps an average of the weights itself')
    if config.gate_warmup_steps >= config.num_steps:
        raise UserError(
            f'config.gate_warmup_steps must be below the {config.num_steps} of config.num_steps, not '
            f'{config.gate_warmup_steps}: gates are used with the logits of its end'
        )
    side = config.model.scale * config.data.patch_size
    patches = jax.ShapeDtypeStruct((1, side, side, config.model.channels), jnp.float32)
    jax.eval_shape(functools.partial(weighted_sum, find_losses(config.loss)), patches, patches)
    build_network(config.model, config.compute_dtype, config.remat)
    make_corruption(config)
