"""Training from a config: the checks before it, the order of a step's work, and when what is written."""

import contextlib
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from nsr_jax import agreement
from nsr_jax.errors import StoppedError, UserError
from nsr_jax.inference.devices import replicate
from nsr_jax.ops.settings import without_x64
from nsr_jax.trained import BrokenCheckpointError, choose_checkpoint
from nsr_jax.training.checkpoints import BROKEN_FOLDER, Checkpoints, remove_unfinished
from nsr_jax.training.feed import ResidentFeed, StreamedFeed
from nsr_jax.training.history import find_differences, record_changes, write_config
from nsr_jax.training.progress_bar import ProgressBar
from nsr_jax.training.run import Run, check_run, prepare_run
from nsr_jax.training.saving import Saver
from nsr_jax.training.sharding import gather
from nsr_jax.training.state import TrainState, averages_of
from nsr_jax.training.stopping import StopRequest
from nsr_jax.training.warm_start import begin_with
from nsr_jax.training.workdir import MetricsWriter, check_shared, lock_workdir

_LONGER = '--change=num_steps with a larger --config.num_steps makes it longer'

# Maps parameters to their merit, which chooses the best checkpoint (None: it takes no part), and to scores by name.
Evaluate = Callable[[dict], tuple[float | None, dict[str, float]]]
# Maps parameters to pictures by name, uint8 (H, W, 3).
DrawSamples = Callable[[dict], dict[str, np.ndarray]]
# Takes a step and its merit.
AfterValidation = Callable[[int, float], None]


@without_x64()
def train(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    evaluate: Evaluate | None = None,
    measured_on: Mapping[str, str] | None = None,
    draw_samples: DrawSamples | None = None,
    stop_after: float | None = None,
    change: Sequence[str] = (),
    after_validation: AfterValidation | None = None,
) -> None:
    """Train to `config.num_steps`, continuing from the workdir's last checkpoint if there is one.

    A run that is done takes no step; the log says so, and where its best checkpoint is.

    Args:
        config: a whole config of the `configs` folder.
        workdir: gets config.json, metrics.jsonl, tensorboard/ and checkpoints/.
        evaluate: scores parameters, every `config.evaluate_every_steps` and at the end. If the run averages its
            parameters, the average is scored as well, and its score chooses the best checkpoint.
        measured_on: what the scores depend on besides the parameters: by name, a text that changes when it does. After
            a change, old scores no longer compete for the best checkpoint.
        draw_samples: makes the pictures that TensorBoard and trackers show of each validation.
        stop_after: seconds from the start of the process until training saves and stops; None: never.
        change: fields of the config that may differ from those of the run in the workdir. The run goes on with the new
            values from its last checkpoint on; the workdir and all later checkpoints say so.
        after_validation: called after each validation with a merit, when its checkpoint is saved; what it raises ends
            the training.

    Raises:
        UserError: before the first step: the config makes no sense, data are missing, the workdir belongs to another
            run, fields differ that are not named in `change` or that no run can change, no step is left for a change,
            another process trains in it, or the job's processes were started differently. Later: a checkpoint cannot
            be written, the workdir was removed or replaced, or the loss or gradient was not finite in too many steps
            in a row. Complete checkpoints stay.
        StoppedError: SIGTERM, SIGINT or the end of `stop_after`; the state is saved.
    """
    workdir = pathlib.Path(workdir).resolve()
    check_run(config, workdir, change)
    with contextlib.ExitStack() as stack:
        with agreement.agreed():
            if stack.enter_context(lock_workdir(workdir)):
                remove_unfinished(workdir)
        check_shared(workdir)
        run = prepare_run(config)
        measured_on = dict(measured_on or {})
        agreement.check_alike({'what scores are measured on': measured_on})
        with agreement.agreed():
            write_config(workdir, config)
        saver = stack.enter_context(Saver(workdir, config, run.images.identity, measured_on))
        state = first_state(config, run, saver.checkpoints)
        if (step := int(state.step)) > 0:
            saver.say_changes(step)
        if step >= config.num_steps and find_differences(workdir, config):
            raise UserError(
                f'this run has taken {step} steps of {config.num_steps}, so no change has an effect: {_LONGER}'
            )
        if step < config.num_steps:
            saver.changes = agreement.by_first(lambda: record_changes(workdir, config, change, step))
            writer = stack.enter_context(contextlib.closing(MetricsWriter(workdir, step, config)))
            feed = stack.enter_context(contextlib.closing(run.images.open_feed(step)))
            _take_steps(
                config,
                run,
                state,
                feed=feed,
                evaluate=evaluate,
                draw_samples=draw_samples,
                saver=saver,
                writer=writer,
                stop_after=stop_after,
                after_validation=after_validation,
            )
    with agreement.agreed():
        path, which = choose_checkpoint(workdir)
    logging.info('this run is done: step %s; its %s is %s; %s', config.num_steps, which, path, _LONGER)


def first_state(
    config: ml_collections.ConfigDict, run: Run, checkpoints: Checkpoints, until: int | None = None
) -> TrainState:
    """Restore the last checkpoint that can be read; without any checkpoint, make a new state.

    Args:
        checkpoints: of the run; broken ones are set aside, unless `until` is given.
        until: checkpoints of later steps are ignored; None: none is.

    Raises:
        UserError: there are checkpoints, but none can be read.
    """
    agreement.check_alike({'steps of the checkpoints': checkpoints.steps})
    broken = {}
    for step in reversed(checkpoints.steps):
        if until is not None and step > until:
            continue
        reason = None
        try:
            wanted = run.abstract
            params, optimizer, ema = checkpoints.restore(step, wanted.params, wanted.optimizer, wanted.ema)
        except BrokenCheckpointError as error:
            reason = str(error)
        reasons = [each for each in agreement.gather(reason) if each]
        if reasons:  # in any process: all must continue from the same step
            broken[step] = reasons[0]
            continue
        if broken and until is None:
            checkpoints.set_aside(broken)
            reasons = '; '.join(broken.values())
            logging.error('%s: set aside in %s, continuing from an older checkpoint', reasons, BROKEN_FOLDER)
        logging.info('continuing from step %d', step)
        step, none = replicate((np.int32(step), np.int32(0)), run.mesh)
        return TrainState(step, params, optimizer, none, ema)
    if broken:
        raise UserError(f'no checkpoint can be read: {"; ".join(broken.values())}')
    state = run.create_state()
    return begin_with(state, config) if config.warm_start else state


def _take_steps(
    config: ml_collections.ConfigDict,
    run: Run,
    state: TrainState,
    *,
    feed: ResidentFeed | StreamedFeed,
    evaluate: Evaluate | None,
    draw_samples: DrawSamples | None,
    saver: Saver,
    writer: MetricsWriter,
    stop_after: float | None,
    after_validation: AfterValidation | None,
) -> None:
    step = int(state.step)
    periods = (config.log_every_steps, config.evaluate_every_steps, config.checkpoint_every_steps, config.num_steps)
    calls, since, started = [], step, time.perf_counter()
    first = timed = step  # the rate is that of the steps after `timed`
    progress = ProgressBar(config.num_steps, step, is_shown=agreement.is_first())
    with StopRequest(run.mesh, stop_after) as request, contextlib.closing(progress):
        progress.say('compiling the train step')
        while step < config.num_steps:
            # 1. Steps up to the end of the next period. The host sends the device one call ahead, so that it never
            # idles, and no more than one, so that a request to stop does not come too late.
            count = min(config.steps_per_call, *(period - step % period for period in periods))
            state, sums = run.train_steps(state, feed.take(count), np.int32(count))
            jax.block_until_ready(calls[-1:])
            calls.append(sums)
            step += count
            if timed == first:  # what was compiled in this call does not count
                jax.block_until_ready(sums)
                feed.pop_waited_seconds()
                timed, started = step, time.perf_counter()
                progress.begin(step)
            stops = request.agreed()
            is_last = step == config.num_steps
            # The last weights are validated whatever comes, because no later call would do it.
            evaluates = evaluate is not None and (is_last or (not stops and step % config.evaluate_every_steps == 0))
            saves = stops or evaluates or is_last or step % config.checkpoint_every_steps == 0
            if not (saves or step % config.log_every_steps == 0):
                continue
            # 2. The log, also before each checkpoint, so that the metrics end at the step of the checkpoint.
            means = _means(calls, step - since, since)
            seconds = time.perf_counter() - started  # `_means` has waited for the device
            if int(state.skipped) >= config.stop_after_skipped:
                raise UserError(_explain_skips(int(state.step), int(state.skipped), saver.checkpoints.steps))
            saver.check(step, state)
            rate = float(run.learning_rate(jnp.int32(step - 1)))
            text, speed, waited = f'loss {means["loss"]:.4f}, {means["psnr"]:.2f} dB', {}, feed.pop_waited_seconds()
            if step > timed:
                images_per_second = (step - timed) * config.batch_size / seconds
                speed = {'images_per_second': images_per_second, 'data_wait': waited / seconds}
                text += f', {images_per_second:.0f} images/s'
            writer.write(step, **means, learning_rate=rate, **speed)
            progress.update(step, text)
            # 3. The validation.
            merit = None
            if evaluate is not None and evaluates:
                progress.say('evaluating')
                params = gather(state.params, run.mesh)
                merit, scores = evaluate(params)
                for kind, weights in averages_of(state).items():  # later used in place of params, so its merit counts
                    params = gather(weights, run.mesh)
                    merit, averaged = evaluate(params)
                    scores |= {f'{kind}/{name}': score for name, score in averaged.items()}
                writer.write(step, **scores)
                if draw_samples is not None and agreement.is_first():
                    writer.write_images(step, draw_samples(params))
                progress.write(f'step {step}: ' + ', '.join(f'{name} {score:.4g}' for name, score in scores.items()))
            # 4. The checkpoint, with the validation's merit. After a skipped step it would repeat the weights of an
            # older step, and could push a better one out.
            if stops or is_last or (saves and int(state.skipped) == 0):
                saver.save(step, state, merit)
            if after_validation is not None and merit is not None:
                after_validation(step, merit)
            if stops and not is_last:
                raise StoppedError(f'as asked at step {step}, which is saved: the same command goes on')
            calls, since, timed, started = [], step, step, time.perf_counter()


def _means(calls: Sequence[dict[str, jax.Array]], steps: int, since: int) -> dict[str, float]:
    """The mean over the steps that were not skipped of each number that the calls summed up; NaN if all were."""
    sums = jax.tree.map(lambda *each: sum(map(float, each)), *jax.device_get(calls))
    skipped = int(sums.pop('skipped'))
    if skipped:
        logging.warning(
            '%d steps after step %d were skipped: loss or gradient not finite (--replay_step shows a batch)',
            skipped,
            since,
        )
    taken = steps - skipped
    return {name: number / taken if taken else math.nan for name, number in sums.items()} | {'skipped': skipped}


def _explain_skips(step: int, skipped: int, saved: Sequence[int]) -> str:
    last = f'the last checkpoint, of step {saved[-1]}, is from before' if saved else 'no checkpoint was saved'
    return (
        f'the loss or its gradient was not finite in {skipped} steps in a row, in batches {step - skipped} to '
        f'{step - 1}: {last}; --replay_step={step - skipped} shows the first of them'
    )
