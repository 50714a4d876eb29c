"""Training from a config: what is checked first, what happens in which order, and what is written when."""

import contextlib
import functools
import math
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import tqdm
from absl import logging

from nsr_jax.data.degradations import Degradation, Jpeg, Noise
from nsr_jax.data.sampling import sample_patches
from nsr_jax.data.sources import open_source
from nsr_jax.data.store import build_store
from nsr_jax.errors import UserError
from nsr_jax.models.build import Network, build_network
from nsr_jax.models.cost import count_multi_adds, count_parameters
from nsr_jax.ops.colour import rgb_to_gray_uint8, rgb_to_y_uint8
from nsr_jax.training.checkpoints import Checkpoints
from nsr_jax.training.sharding import make_mesh, replicated
from nsr_jax.training.state import TrainState, abstract_state, create_state, learning_rate_at
from nsr_jax.training.step import make_train_steps
from nsr_jax.training.workdir import MetricsWriter, check_workdir, write_config

# Parameters to {'DATASET/psnr': dB, 'DATASET/ssim': …}; the first entry decides which checkpoint is the best one.
Evaluate = Callable[[dict], dict[str, float]]

# How colour images become gray for a network of one channel: as the task's benchmarks were made.
_TO_GRAY = {'sr': rgb_to_y_uint8, 'denoise': rgb_to_gray_uint8, 'jpeg': rgb_to_y_uint8}

_COUNTS = (
    'batch_size', 'num_steps', 'steps_per_call', 'log_every_steps', 'evaluate_every_steps', 'checkpoint_every_steps',
    'checkpoints_to_keep', 'data.patch_size',
)  # fmt: skip


def train(config: ml_collections.ConfigDict, workdir: str | pathlib.Path, evaluate: Evaluate | None = None) -> None:
    """Train to `config.num_steps`, going on from the workdir's last checkpoint where there is one.

    Args:
        config: a whole config of the `configs` folder.
        workdir: gets config.json, metrics.jsonl, tensorboard/ and checkpoints/.
        evaluate: scores parameters; called every `config.evaluate_every_steps` and at the end.

    Raises:
        UserError: a config that does not make sense, data that is missing, a workdir of another run; all of it before
            the first step.
        FloatingPointError: the loss is no longer finite; the last checkpoint is from before.
    """
    workdir = pathlib.Path(workdir).resolve()
    check_run(config, workdir)
    network = build_network(config.model, config.compute_dtype)
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
    store = jax.device_put(store, replicated(mesh))
    write_config(workdir, config)

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

    with (
        contextlib.closing(Checkpoints(workdir, config.checkpoints_to_keep)) as checkpoints,
        contextlib.closing(MetricsWriter(workdir, checkpoints.latest_step or 0)) as writer,
    ):
        state = _first_state(config, network, mesh, abstract, checkpoints)
        _run(
            config,
            state,
            lambda state, count: train_steps(state, store, count),
            learning_rate,
            evaluate,
            checkpoints,
            writer,
        )


def _first_state(
    config: ml_collections.ConfigDict,
    network: Network,
    mesh: jax.sharding.Mesh,
    abstract: TrainState,
    checkpoints: Checkpoints,
) -> TrainState:
    """The last checkpoint's state, or a new one."""
    step = checkpoints.latest_step
    if step is None:
        return create_state(network, mesh, config.seed)
    logging.info('going on from step %d', step)
    params, optimizer = checkpoints.restore(step, abstract.params, abstract.optimizer)
    return TrainState(jax.device_put(jnp.int32(step), abstract.step.sharding), params, optimizer)


def _run(
    config: ml_collections.ConfigDict,
    state: TrainState,
    take_steps: Callable[[TrainState, int], tuple[TrainState, dict[str, jax.Array]]],
    learning_rate: Callable[[jax.Array], jax.Array],
    evaluate: Evaluate | None,
    checkpoints: Checkpoints,
    writer: MetricsWriter,
) -> None:
    step = int(state.step)
    periods = (config.log_every_steps, config.evaluate_every_steps, config.checkpoint_every_steps, config.num_steps)
    sums, since, started = [], step, time.perf_counter()
    bar = tqdm.tqdm(total=config.num_steps, initial=step, unit='step', desc='training', dynamic_ncols=True)
    while step < config.num_steps:
        # 1. Steps up to the next period's end. Nothing waits for the device here.
        count = min(config.steps_per_call, *(period - step % period for period in periods))
        state, call_sums = take_steps(state, count)
        sums.append(call_sums)
        step += count
        is_last = step == config.num_steps
        evaluates = evaluate is not None and (is_last or step % config.evaluate_every_steps == 0)
        saves = evaluates or is_last or step % config.checkpoint_every_steps == 0
        if not (saves or step % config.log_every_steps == 0):
            continue
        # 2. The log: also before each checkpoint, so that no checkpoint is behind or ahead of its metrics.
        steps = step - since
        means = {name: float(sum(call[name] for call in jax.device_get(sums))) / steps for name in call_sums}
        seconds = time.perf_counter() - started  # after the device has answered
        if not math.isfinite(means['loss']):
            raise FloatingPointError(f'the loss of steps {since} to {step} is {means["loss"]}: they were not saved')
        rate = float(learning_rate(jnp.int32(step - 1)))
        images_per_second = steps * config.batch_size / seconds
        writer.write(step, **means, learning_rate=rate, images_per_second=images_per_second)
        bar.set_postfix_str(f'loss {means["loss"]:.4f}, {means["psnr"]:.2f} dB, {images_per_second:.0f} images/s')
        bar.update(step - bar.n)
        # 3. The evaluation.
        psnr = None
        if evaluates:
            scores = evaluate(state.params)
            writer.write(step, **scores)
            psnr = next(iter(scores.values()))
            bar.write(f'step {step}: ' + ', '.join(f'{name} {score:.4g}' for name, score in scores.items()))
        # 4. The checkpoint, with the evaluation's score.
        if saves:
            checkpoints.save(step, config, state.params, state.optimizer, psnr)
        sums, since, started = [], step, time.perf_counter()
    bar.close()


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
    build_network(config.model, config.compute_dtype)
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
