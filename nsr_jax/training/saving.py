"""Saving the states of a run, with what they depend on, and only into the run's own folder."""

import contextlib
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import ml_collections
from absl import logging

from nsr_jax import agreement
from nsr_jax.errors import UserError
from nsr_jax.trained import FOLDER
from nsr_jax.training.checkpoints import Checkpoints
from nsr_jax.training.history import Change, write_history
from nsr_jax.training.presence import Presence
from nsr_jax.training.state import TrainState, averages_of
from nsr_jax.training.workdir import LOCK


class Saver:
    """Saves states as long as the workdir is there. All processes of a job must make the same calls.

    Args:
        workdir: locked, with the run's config in it.
        images: a text that changes when the training images do.
        measured_on: as for `train`.

    Attributes:
        changes: the fields of the config that were changed, as `history.record_changes` tells them.
    """

    def __init__(
        self, workdir: pathlib.Path, config: ml_collections.ConfigDict, images: str, measured_on: Mapping[str, str]
    ):
        self._workdir, self._config = workdir, config
        self.changes: list[Change] = []
        self._origin = {'images': images, 'measured_on': measured_on}
        self.checkpoints = Checkpoints(workdir, config.checkpoints_to_keep)
        self._presence = Presence([workdir, workdir / FOLDER, workdir / LOCK])

    def __enter__(self) -> 'Saver':
        return self

    def __exit__(self, *error: Any) -> None:
        with contextlib.closing(self._presence):
            self.checkpoints.__exit__(*error)

    def say_changes(self, step: int) -> None:
        """Warn if the images or what scores depend on have changed since a checkpoint that names them was saved."""
        images, measured_on = self.checkpoints.read_origin(step)
        now = self._origin['measured_on']
        if images not in ('', self._origin['images']):
            logging.warning(
                'the training images are not those of step %d (%s then, %s now): from here on this run differs from '
                'one that was not stopped',
                step,
                images,
                self._origin['images'],
            )
        if measured_on and measured_on != now:
            changes = [
                f'{name} {measured_on.get(name, "none")} then, {now.get(name, "none")} now'
                for name in {**measured_on, **now}
                if measured_on.get(name) != now.get(name)
            ]
            logging.warning(
                'scores are no longer measured as at step %d (%s): the best checkpoint is chosen anew, among those '
                'with new scores',
                step,
                '; '.join(changes),
            )

    def check(self, step: int, state: TrainState) -> None:
        """Check that the workdir is there, and that no writing in the background has failed.

        Raises:
            UserError: the folder is lost; the line says where the state is saved instead. Or as `Checkpoints.check`.
        """
        if lost := agreement.by_first(self._presence.describe_loss):
            raise UserError(f'{lost}; {self._rescue(step, state)}')
        self.checkpoints.check()

    def save(self, step: int, state: TrainState, merit: float | None) -> None:
        """Check, then save as `Checkpoints.save` does."""
        self.check(step, state)
        self._save(self.checkpoints, step, state, merit)

    def _save(self, checkpoints: Checkpoints, step: int, state: TrainState, merit: float | None = None) -> None:
        checkpoints.save(
            step,
            self._config,
            state.params,
            state.optimizer,
            merit,
            averages=averages_of(state),
            changes=self.changes,
            **self._origin,
        )

    def _rescue(self, step: int, state: TrainState) -> str:
        """Save a state into a new folder beside the lost one; returns a sentence that says where."""

        def make_folder() -> str:
            folder = tempfile.mkdtemp(prefix=f'{self._workdir.name[:100]}.rescued.', dir=self._workdir.parent)
            write_history(pathlib.Path(folder), self._config, self.changes)
            return folder

        try:
            folder = agreement.by_first(make_folder)
            with Checkpoints(folder, keep=1) as checkpoints:
                self._save(checkpoints, step, state)
        except (UserError, OSError, RuntimeError) as error:
            if agreement.lost_another(error):
                raise
            return f'the state of step {step} is lost: {error}'
        return f'the state of step {step} is saved in {folder}: continue from it with --workdir={folder}'
