"""A batch of a run computed again, to see what was in it and what the network made of each sample."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from absl import logging
from jax import lax

from nsr_jax import markdown
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.data.sampling import sample_keys
from nsr_jax.errors import UserError
from nsr_jax.images.writing import write_image
from nsr_jax.losses import weighted_sum
from nsr_jax.ops.settings import without_x64
from nsr_jax.training.checkpoints import Checkpoints
from nsr_jax.training.gradients import warm_gates
from nsr_jax.training.history import config_at, read_changes
from nsr_jax.training.loop import first_state
from nsr_jax.training.run import Run, check_run, prepare_run

FOLDER = 'replay'
_GAP = 4  # pixels between pictures


@without_x64()
def replay(config: ml_collections.ConfigDict, workdir: str | pathlib.Path, batch: int) -> str:
    """Compute a batch of a run again with the weights that the run had at that step.

    The last checkpoint before the batch, or new weights if there is none, is trained up to it. The run itself stays as
    it is.

    Args:
        workdir: gets replay/batch_N.md, and replay/batch_N.png with the input, prediction and target of each sample.
        batch: N, from 0: the batch that takes the run from step N to N + 1.

    Returns:
        the text of the .md: for each sample its image and place, the range of its input, its loss, PSNR in dB and
        gradient norm.

    Raises:
        UserError: as `train`; or the run has no such batch, or stops before it.
    """
    workdir = pathlib.Path(workdir).resolve()
    if jax.process_count() > 1:
        raise UserError('a batch is replayed by one process')
    if batch >= config.num_steps:
        raise UserError(f'there is no batch {batch}: config.num_steps is {config.num_steps}, and they count from 0')
    check_run(config, workdir)
    changes = read_changes(workdir)
    config = config_at(config, changes, batch)
    run = prepare_run(config)
    with contextlib.closing(Checkpoints(workdir, config.checkpoints_to_keep)) as checkpoints:
        state = first_state(config, run, checkpoints, until=batch)
    started = step = int(state.step)
    since = max((change['step'] for change in changes if change['step'] <= batch), default=0)
    if started < since:
        raise UserError(f'the config was changed at step {since}: batch {batch} needs the checkpoint of that step')
    with contextlib.closing(run.images.open_feed(step)) as feed:
        while step < batch:
            count = min(config.steps_per_call, batch - step)
            state, _ = run.train_steps(state, feed.take(count), np.int32(count))
            step += count
        if int(state.step) < batch:
            raise UserError(f'the run stops before batch {batch}: its loss is not finite from batch {state.step} on')
        indices = jnp.arange(config.batch_size, dtype=jnp.int32)
        inputs, targets = jax.jit(run.make_batch)(feed.take(1), step, step, indices)
    keys = None if run.noise_key is None else sample_keys(run.noise_key, step, indices)
    warm = functools.partial(warm_gates, step=state.step, warmup_steps=config.gate_warmup_steps)
    predictions, numbers = _apply(run, warm, state.params, (inputs, targets, keys))
    text = (
        f'Batch {batch} with the weights of step {batch}, computed from those of step {started}. '
        f'Loss {numbers["loss"].mean():.5g}, gradient norm {numbers["batch_gradient_norm"]:.5g}.\n\n'
    ) + _table(run.images.places(step), numbers, inputs)
    folder = make_output_folder(workdir / FOLDER)
    write_atomically(folder / f'batch_{batch}.md', text)
    write_image(folder / f'batch_{batch}.png', _picture(inputs, predictions, targets))
    logging.info('table and pictures are in %s', folder)
    return text


def _apply(
    run: Run, warm: Callable[[dict], dict], params: Any, samples: tuple[jax.Array, jax.Array, jax.Array | None]
) -> tuple[jax.Array, dict[str, Any]]:
    """The predictions, and for each sample (input, target and key of its noise) its loss, PSNR and gradient norm."""

    def loss(params, sample):
        given, target, key = sample
        rngs = None if key is None else {'noise': key}
        prediction = run.network.apply({'params': warm(params)}, given[None], rngs=rngs)
        return weighted_sum(run.losses, prediction, target[None])[0], prediction[0]

    def of_each(params, samples):
        def of_one(sample):
            (value, prediction), gradient = jax.value_and_grad(loss, has_aux=True)(params, sample)
            psnr = -10 * jnp.log10(jnp.mean(jnp.square(prediction - sample[1])))
            return prediction, value, psnr, gradient

        predictions, losses, psnrs, gradients = lax.map(of_one, samples)
        norms = jax.vmap(optax.tree.norm)(gradients)
        whole = optax.tree.norm(jax.tree.map(lambda leaf: leaf.mean(axis=0), gradients))
        return predictions, {'loss': losses, 'psnr': psnrs, 'gradient_norm': norms, 'batch_gradient_norm': whole}

    return jax.jit(of_each)(params, samples)


def _table(places: Sequence[tuple[str, int, int]], numbers: dict[str, Any], inputs: jax.Array) -> str:
    rows = []
    for index, (name, row, column) in enumerate(places):
        values = [f'{numbers[key][index]:.5g}' for key in ('loss', 'psnr', 'gradient_norm')]
        low, high = inputs[index].min(), inputs[index].max()
        rows.append([index, name, f'{row}, {column}', f'{low:.3f} … {high:.3f}', *values])
    head = ['sample', 'image', 'row, column', 'input from … to', 'loss', 'PSNR', 'gradient norm']
    return markdown.table(head, rows, left=2)


def _picture(*columns: jax.Array) -> np.ndarray:
    """One row for each sample, with its input, prediction and target; black where they are not finite."""
    side = max(column.shape[1] for column in columns)
    rows = []
    for sample in zip(*(np.asarray(column) for column in columns), strict=True):
        pixels = [np.kron(each, np.ones((side // len(each),) * 2 + (1,), np.float32)) for each in sample]
        pixels = [np.pad(each, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=1) for each in pixels]
        rows.append(np.concatenate(pixels, axis=1))
    whole = np.nan_to_num(np.concatenate(rows)[:-_GAP, :-_GAP], nan=0, posinf=1, neginf=0)
    return np.round(whole.clip(0, 1) * 255).astype(np.uint8)
