"""How long the runs of a sweep take on this machine, from a few timed steps of each member."""

import contextlib
import hashlib
import json
import pathlib
import time

import jax
import ml_collections
import numpy as np
from absl import logging

from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.errors import UserError
from nsr_jax.ops.settings import without_x64
from nsr_jax.studies.study import Study
from nsr_jax.training.run import prepare_run

TIMES = 'seconds_per_step.json'
_STEPS = 5


def time_members(study: Study, workdir: pathlib.Path | None) -> dict[str, float]:
    """Time the training step of each member, in seconds, without validation and checkpoints.

    Args:
        study: whose members are timed.
        workdir: keeps the times in `TIMES` by config and devices, so that no member is timed again; None: nowhere.

    Raises:
        UserError: as in `prepare_run`, or the file cannot be read or written.
    """
    path = None if workdir is None else make_output_folder(workdir) / TIMES
    known = {} if path is None else _read(path)
    found = {}
    for run in study.runs[: len(study.members)]:
        devices = f'{jax.device_count()} {jax.devices()[0].device_kind}'
        key = hashlib.sha256(f'{devices} {run.config.to_json(sort_keys=True)}'.encode()).hexdigest()
        if key not in known:
            logging.info('%s: compiles, then times %d steps', run.member, _STEPS)
            known[key] = seconds_per_step(run.config)
            if path is not None:
                write_atomically(path, json.dumps(known, indent=1) + '\n')
        found[run.member] = known[key]
    return found


@without_x64()
def seconds_per_step(config: ml_collections.ConfigDict) -> float:
    """Compile the training step of a config and time it; nothing is written."""
    run = prepare_run(config)
    state, started, count = run.create_state(), 0.0, 0
    with contextlib.closing(run.images.open_feed(0)) as feed:
        for count in (1, min(_STEPS, config.steps_per_call)):  # the first call compiles
            started = time.perf_counter()
            state, sums = run.train_steps(state, feed.take(count), np.int32(count))
            jax.block_until_ready(sums)
    return (time.perf_counter() - started) / count


def _read(path: pathlib.Path) -> dict[str, float]:
    try:
        return {str(key): float(seconds) for key, seconds in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f'{path} cannot be read: remove it to time the members again') from error
