"""Training from a config: what is checked first, what happens in which order, and what is written when."""

import contextlib
import math
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import tqdm
from absl import logging

from nsr_jax.training.checkpoints import Checkpoints
from nsr_jax.training.preparation import Preparation, check_run, prepare
from nsr_jax.training.state import TrainState, create_state
from nsr_jax.training.workdir import MetricsWriter, write_config

# Parameters to {'DATASET/psnr': dB, 'DATASET/ssim': …}; the first entry decides which checkpoint is the best one.
Evaluate = Callable[[dict], dict[str, float]]


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
    run = prepare(config)
    write_config(workdir, config)
    with (
        contextlib.closing(Checkpoints(workdir, config.checkpoints_to_keep)) as checkpoints,
        contextlib.closing(MetricsWriter(workdir, checkpoints.latest_step or 0)) as writer,
    ):
        _take_steps(config, run, _first_state(config, run, checkpoints), evaluate, checkpoints, writer)


def _first_state(config: ml_collections.ConfigDict, run: Preparation, checkpoints: Checkpoints) -> TrainState:
    """The last checkpoint's state, or a new one."""
    step = checkpoints.latest_step
    if step is None:
        return create_state(run.network, run.mesh, config.seed)
    logging.info('going on from step %d', step)
    params, optimizer = checkpoints.restore(step, run.abstract.params, run.abstract.optimizer)
    return TrainState(jax.device_put(jnp.int32(step), run.abstract.step.sharding), params, optimizer)


def _take_steps(
    config: ml_collections.ConfigDict,
    run: Preparation,
    state: TrainState,
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
        state, call_sums = run.train_steps(state, run.store, count)
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
        rate = float(run.learning_rate(jnp.int32(step - 1)))
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
