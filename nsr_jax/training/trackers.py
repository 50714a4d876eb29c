"""Services that follow a run beside metrics.jsonl and TensorBoard: Weights & Biases and MLflow.

Each reads its own environment variables: $WANDB_MODE=offline, $WANDB_PROJECT, $MLFLOW_TRACKING_URI and so on. The
workdir remembers the run that a service has given to it, so that a resumed run goes on in the same one.

`TRACKERS` holds all of them by name; each is called with the workdir, the config and the id that the service gave to
the run before, None if there is none, and returns a `Tracker`.
"""

import importlib
import importlib.util
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import ml_collections
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict

from nsr_jax.atomic_files import write_atomically
from nsr_jax.errors import UserError

RECORD = 'trackers.json'
_PROJECT = 'nsr_jax'


class Tracker(Protocol):
    """A run in a service."""

    id: str

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add numbers by name, which may be infinite or NaN."""
        ...

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Add images by name: uint8 (H, W, 3)."""
        ...

    def close(self, done: bool) -> None:
        """Send what is left; `done`: the run has taken its last step, and did not stop before."""
        ...


class WandbTracker:
    """A run of Weights & Biases, in its folder wandb/ in the workdir."""

    def __init__(self, workdir: pathlib.Path, config: ml_collections.ConfigDict, known: str | None):
        wandb = importlib.import_module('wandb')

        self._image = wandb.Image
        self._run = wandb.init(
            project=os.environ.get('WANDB_PROJECT', _PROJECT),
            name=os.environ.get('WANDB_NAME', workdir.name),
            id=known,
            resume='allow',
            dir=workdir,
            config=config.to_dict(),
            settings=wandb.Settings(console='off', silent=True),
        )
        self.id = self._run.id

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """As in `Tracker`."""
        self._run.log(dict(numbers), step=step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """As in `Tracker`."""
        self._run.log({name: self._image(image) for name, image in images.items()}, step=step)

    def close(self, done: bool) -> None:
        """As in `Tracker`."""
        self._run.finish(exit_code=0 if done else 1)


class MLflowTracker:
    """A run of MLflow, in the store that its environment variables name."""

    def __init__(self, workdir: pathlib.Path, config: ml_collections.ConfigDict, known: str | None):
        mlflow = importlib.import_module('mlflow')

        self._metric = mlflow.entities.Metric
        self._client = client = mlflow.MlflowClient()
        if known is not None:
            client.update_run(known, status='RUNNING')
            self.id = known
            return
        name = os.environ.get('MLFLOW_EXPERIMENT_NAME', _PROJECT)
        try:
            experiment = client.create_experiment(name)
        except mlflow.MlflowException:  # it exists, or another run has just made it
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
            experiment = found.experiment_id
        self.id = client.create_run(experiment, run_name=workdir.name).info.run_id
        for field, value in flatten_dict(config.to_dict(), sep='.').items():
            client.log_param(self.id, field, value)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """As in `Tracker`."""
        now = int(time.time() * 1000)
        self._client.log_batch(self.id, [self._metric(name, float(each), now, step) for name, each in numbers.items()])

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """As in `Tracker`."""
        for name, image in images.items():
            self._client.log_image(self.id, image, key=name, step=step)

    def close(self, done: bool) -> None:
        """As in `Tracker`."""
        self._client.set_terminated(self.id, 'FINISHED' if done else 'KILLED')


TRACKERS: dict[str, Callable[[pathlib.Path, ml_collections.ConfigDict, str | None], Tracker]] = {
    'wandb': WandbTracker,
    'mlflow': MLflowTracker,
}


def check_trackers(names: str) -> None:
    """Check the trackers of a config.

    Args:
        names: separated by commas; '' for none.

    Raises:
        UserError: one is unknown, or its package is not installed.
    """
    for name in _split(names):
        if name not in TRACKERS:
            raise UserError(f'config.trackers: {name!r} is none of {", ".join(TRACKERS)}')
        if name in ('wandb', 'mlflow') and name not in sys.modules and importlib.util.find_spec(name) is None:
            raise UserError(f'config.trackers={names} needs the package {name}: pip install "nsr-jax[{name}]"')


class Trackers:
    """The trackers of a run. One that fails while the run trains is left out from then on, with a warning.

    Args:
        workdir: keeps the ids of the runs in `RECORD`.
        config: of the run.
        sent: the last step that they have been told before; its numbers and those of earlier steps are not sent again.

    Raises:
        UserError: a tracker cannot be started, or `RECORD` cannot be read or written.
    """

    def __init__(self, workdir: pathlib.Path, config: ml_collections.ConfigDict, sent: int):
        self._sent = sent
        self._trackers: dict[str, Tracker] = {}
        path = workdir / RECORD
        ids = _read(path)
        for name in _split(config.trackers):
            try:
                self._trackers[name] = TRACKERS[name](workdir, config, ids.get(name))
            except Exception as error:  # of the service: each has its own
                self.close(done=False)  # those that have been started
                raise UserError(f'config.trackers: {name} cannot be started: {error}') from error
            ids[name] = self._trackers[name].id
            write_atomically(path, json.dumps(ids) + '\n')

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send numbers by name to all."""
        self._send(step, lambda tracker: tracker.write(step, numbers))

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Send images by name, uint8 (H, W, 3), to all."""
        self._send(step, lambda tracker: tracker.write_images(step, images))

    def close(self, done: bool) -> None:
        """Close all; `done`: the run has taken its last step."""
        self._send(None, lambda tracker: tracker.close(done))

    def _send(self, step: int | None, send: Callable[[Tracker], Any]) -> None:
        if step is not None and step <= self._sent:
            return
        for name, tracker in list(self._trackers.items()):
            try:
                send(tracker)
            except Exception as error:  # the run is worth more than its record
                logging.warning('%s failed and is told no more of this run: %s', name, error)
                del self._trackers[name]


def _split(names: str) -> list[str]:
    return [name for name in names.split(',') if name]


def _read(path: pathlib.Path) -> dict[str, str]:
    try:
        return {str(name): str(known) for name, known in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f'{path} cannot be read: remove it to begin new runs of trackers') from error
