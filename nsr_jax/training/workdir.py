"""The folder of one run: its config, and the lines of its metrics."""

import json
import math
import pathlib
from collections.abc import Iterator

import ml_collections
import tensorboardX

from nsr_jax.errors import UserError
from nsr_jax.files import make_output_folder, write_atomically

CONFIG = 'config.json'

# What may differ when a run goes on: nothing of it changes a batch, a weight or a step.
_FREE = ('data.data_dir', 'data.tfds_dir', 'remat', 'steps_per_call', 'checkpoints_to_keep')
_FREE_SECTIONS = ('mesh.', 'evaluation.')
_FREE_PERIODS = ('log_every_steps', 'evaluate_every_steps', 'checkpoint_every_steps')


def check_workdir(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Make the folder where it is missing, and check that a run in it has the same config.

    Raises:
        UserError: it cannot be written into, or holds a run of another config; the line says what differs.
    """
    make_output_folder(workdir)
    path = workdir / CONFIG
    if not path.exists():
        return
    try:
        saved = dict(_leaves(json.loads(path.read_text())))
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    asked = dict(_leaves(json.loads(config.to_json())))
    differences = [
        f'{name} {saved.get(name, "missing")} there, {asked.get(name, "missing")} now'
        for name in dict.fromkeys([*saved, *asked])
        if saved.get(name) != asked.get(name)
        and name not in (*_FREE, *_FREE_PERIODS)
        and not name.startswith(_FREE_SECTIONS)
    ]
    if differences:
        raise UserError(f'workdir {workdir} holds a run of another config: {"; ".join(differences)}')


def write_config(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Write the config of a run that starts; one that goes on keeps the first."""
    if not (workdir / CONFIG).exists():
        write_atomically(workdir / CONFIG, json.dumps(json.loads(config.to_json()), indent=2) + '\n')


def _leaves(section: dict, prefix: str = '') -> Iterator[tuple[str, object]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _leaves(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value


class MetricsWriter:
    """Writes each step's numbers to `metrics.jsonl` and to TensorBoard.

    Args:
        workdir: an existing folder.
        step: that training goes on from; lines of later steps, from a run that was stopped before it saved its
            weights, are removed, so that no step stands there twice.
    """

    def __init__(self, workdir: pathlib.Path, step: int):
        path = workdir / 'metrics.jsonl'
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _is_until(line, step)]
            write_atomically(path, ''.join(line + '\n' for line in kept))
        self._file = path.open('a')
        self._tensorboard = tensorboardX.SummaryWriter(str(workdir / 'tensorboard'), purge_step=step + 1)

    def write(self, step: int, **numbers: float) -> None:
        """Append one line: the step and the numbers by name; infinity is the string "inf", as in score tables."""
        written = {name: number if math.isfinite(number) else str(number) for name, number in numbers.items()}
        self._file.write(json.dumps({'step': step, **written}, allow_nan=False) + '\n')
        self._file.flush()
        for name, number in numbers.items():
            self._tensorboard.add_scalar(name, number, step)

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        self._tensorboard.close()


def _is_until(line: str, step: int) -> bool:
    try:
        return json.loads(line)['step'] <= step
    except ValueError:  # the torn last line of a process that was killed while writing
        return False
