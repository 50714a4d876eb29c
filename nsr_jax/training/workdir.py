"""The folder of one run: its lock and its metrics, which trackers are told as well."""

import contextlib
import fcntl
import json
import math
import os
import pathlib
import socket
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import ml_collections
import numpy as np
import tensorboardX
from absl import logging

from nsr_jax import agreement
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.errors import UserError
from nsr_jax.paths import check_for_libraries
from nsr_jax.training.trackers import Trackers

LOCK = '.lock'


def check_workdir(workdir: pathlib.Path) -> None:
    """Make the folder if it is missing; raises `UserError` if it cannot be written or would be misread."""
    check_for_libraries(workdir, f'workdir {workdir}')
    make_output_folder(workdir)


@contextlib.contextmanager
def lock_workdir(workdir: pathlib.Path) -> Iterator[bool]:
    """Keep other jobs out of the folder, by a lock that the operating system takes from a process that dies.

    The first process of a job locks the folder. The context's value is whether this process holds the lock.

    Raises:
        UserError: another job trains in the folder, or the lock cannot be written.
    """
    if not agreement.is_first():
        yield False
        return
    path = workdir / LOCK
    try:
        opened = path.open('ab+', buffering=0)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}') from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            who = file.read().decode(errors='replace').strip()
            raise UserError(f'another job trains in {workdir}: {who or "unknown"}') from error
        except OSError as error:
            logging.warning('%s cannot be locked (%s): take care that no other job trains in it', workdir, error)
            is_locked = False
        else:
            is_locked = True
        try:
            file.truncate(0)
            file.write(f'process {os.getpid()} on {socket.gethostname()}\n'.encode())
        except OSError as error:
            raise UserError(f'{path} cannot be written: {error.strerror}') from error
        yield is_locked


def check_shared(workdir: pathlib.Path) -> None:
    """Check that all processes of the job see the folder that the first one has locked.

    Raises:
        UserError: they see different folders, as when each machine has one of this name.
    """
    path = workdir / LOCK
    if agreement.is_first():
        with path.open('rb') as file:
            os.fsync(file.fileno())  # after this, network file systems show it to others
    with agreement.agreed():
        pass  # nobody reads before the first process has written
    try:
        text = path.read_text(encoding='utf-8', errors='replace').strip()
    except OSError as error:
        text = error.strerror
    agreement.check_alike({f'what {path} holds': text})


class MetricsWriter:
    """Writes each step's numbers to `metrics.jsonl`, TensorBoard and trackers, in the first process of a job alone.

    Args:
        workdir: an existing folder.
        step: the one that training continues from. Lines of later steps, left by a run that was stopped before it
            saved their weights, are removed, so that no step occurs twice.
        config: of the run, names the trackers; None: there are none.

    Raises:
        UserError: one of them cannot be read, written or started.
    """

    def __init__(self, workdir: pathlib.Path, step: int, config: ml_collections.ConfigDict | None = None):
        self._path = workdir / 'metrics.jsonl'
        self._last, self._num_steps = step, config.num_steps if config else 0
        self._file: BinaryIO | None = None
        self._tensorboard: tensorboardX.SummaryWriter | None = None
        self._trackers: Trackers | None = None
        with agreement.agreed(), self._written():
            if agreement.is_first():
                lines = []
                if os.path.lexists(self._path):
                    lines = _read_lines(self._path)
                    write_atomically(self._path, b''.join(line for each, line in lines if each <= step))
                self._file = self._path.open('ab', buffering=0)
                folder = self._path.with_name('tensorboard')
                self._tensorboard = tensorboardX.SummaryWriter(str(folder), purge_step=step + 1)
                if config is not None and config.trackers:
                    self._trackers = Trackers(workdir, config, max((each for each, _ in lines), default=0))

    def write(self, step: int, **numbers: float) -> None:
        """Append one line with the step and the numbers by name; numbers that are not finite are written as text.

        Raises:
            UserError: the line cannot be written.
        """
        if self._file is None or self._tensorboard is None:
            return
        self._last = step
        written = {name: number if math.isfinite(number) else str(number) for name, number in numbers.items()}
        line = json.dumps({'step': step, **written}, allow_nan=False) + '\n'
        with self._written():
            self._file.write(line.encode())
            for name, number in numbers.items():
                self._tensorboard.add_scalar(name, number, step)
            self._tensorboard.flush()  # here, because in its own thread an error would pass in silence
        if self._trackers:
            self._trackers.write(step, numbers)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Add images by name, uint8 (H, W, 3), to TensorBoard and the trackers; raises `UserError` as `write` does."""
        if self._tensorboard is None:
            return
        with self._written():
            for name, image in images.items():
                self._tensorboard.add_image(name, image, step, dataformats='HWC')
            self._tensorboard.flush()
        if self._trackers:
            self._trackers.write_images(step, images)

    def close(self) -> None:
        """Flush and close all; raises `UserError` as `write` does."""
        try:
            if self._file is not None and self._tensorboard is not None:
                self._file.close()
                with self._written():
                    self._tensorboard.close()
        finally:
            if self._trackers:
                self._trackers.close(done=self._last >= self._num_steps)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f'metrics cannot be written into {self._path.parent}: {error.strerror}') from error


def _read_lines(path: pathlib.Path) -> list[tuple[int, bytes]]:
    """The undamaged lines of a file of metrics, with their steps. A killed process leaves its last line incomplete."""
    kept, lines = [], path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            kept.append((int(json.loads(line)['step']), line + b'\n'))
        except (ValueError, TypeError, LookupError, RecursionError):
            if number < len(lines):
                logging.warning('%s: line %d is damaged and is removed: %.80r', path, number, line)
    return kept
