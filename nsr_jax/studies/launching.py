"""Start the runs of a sweep as processes, one after another or several at a time, until all end or a signal comes."""

import contextlib
import functools
import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NamedTuple

import tqdm
from absl import logging

from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.cpu_cores import count_cores
from nsr_jax.errors import StoppedError
from nsr_jax.studies.one_run import FAILURE, read_failure, read_result
from nsr_jax.studies.study import StudyRun

LOG = 'log.txt'
_POLL_SECONDS = 0.2
_STOPPED = 75  # exit code of a run that a signal made save and end
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Job(NamedTuple):
    """A run that is to be started.

    Attributes:
        run: it.
        command: trains and scores it.
        is_done: whether it has ended well.
        keeps_open: file descriptors that its process inherits.
    """

    run: StudyRun
    command: Sequence[str]
    is_done: Callable[[], bool]
    keeps_open: Sequence[int] = ()


def run_all(
    runs: Sequence[StudyRun], workdir: pathlib.Path, command: Callable[[StudyRun], Sequence[str]], *, jobs: int = 1
) -> list[str]:
    """Start all runs that are not done, and wait for them, as `run_jobs` does.

    Args:
        runs: in the order in which they are started.
        workdir: of the sweep.
        command: of a run, which trains and scores it.
        jobs: how many runs are trained at a time.

    Returns:
        Which runs failed or were stopped, and why.

    Raises:
        UserError: as in `run_jobs`.
        StoppedError: as in `run_jobs`.
    """

    def is_done(run: StudyRun) -> bool:
        return read_result(run.folder(workdir)) is not None

    waiting = [run for run in runs if not is_done(run)]
    started = (Job(run, command(run), functools.partial(is_done, run)) for run in waiting)
    total, left = (sum(run.config.num_steps for run in each) for each in (runs, waiting))
    progress = SweepProgress(len(runs), total, len(waiting), left)
    failures = run_jobs(started, workdir, progress, at_a_time=jobs)
    stopped = [run for run in waiting if not is_done(run) and read_failure(run.folder(workdir)) is None]
    return failures + [f'{run}: it was stopped alone; the same command resumes it' for run in stopped]


def run_jobs(
    waiting: Iterator[Job],
    workdir: pathlib.Path,
    progress: 'SweepProgress',
    *,
    at_a_time: int = 1,
    ended: Callable[[Job, str | None], None] = lambda job, failure: None,
) -> list[str]:
    """Start jobs as processes as long as there are any, and wait for them.

    A run that fails leaves a line in `FAILURE` in its folder, and the others go on. A run's output goes to its `LOG`.

    Args:
        waiting: the next one is asked for when a process can be started.
        workdir: of the sweep.
        progress: shows how far they are.
        at_a_time: how many processes there are. If several are, each computes on its share of the cores, unless
            $JAX_NUM_CPU_DEVICES says otherwise.
        ended: called with each that has ended before a signal came, and why it failed; None: it has not.

    Returns:
        Which runs failed, and why.

    Raises:
        UserError: a folder cannot be written to, or a result is damaged.
        StoppedError: SIGTERM or SIGINT came. Every run has received it and saved its state.
    """
    environment = dict(os.environ)
    if at_a_time > 1:
        environment.setdefault('JAX_NUM_CPU_DEVICES', str(max(1, count_cores() // at_a_time)))
    running: list[_Process] = []
    failures = []
    with _hear_stops() as stops, contextlib.closing(progress):
        try:
            while True:
                while len(running) < at_a_time and not stops and (job := next(waiting, None)) is not None:
                    running.append(_Process(job, workdir, environment))
                if not running:
                    break
                for process in running:
                    process.tell(len(stops))
                for process in [process for process in running if process.code is not None]:
                    running.remove(process)
                    failure = process.failure(asked_to_stop=bool(stops))
                    failures += [failure] if failure else []
                    if not stops:
                        ended(process.job, failure)
                        progress.ended(process, failure)
                progress.show(running)
                time.sleep(_POLL_SECONDS)
        finally:
            for process in running:
                process.kill()
    if stops:
        raise StoppedError('as asked to; what the runs have done is saved: the same command goes on')
    return failures


@contextlib.contextmanager
def _hear_stops() -> Iterator[list[int]]:
    """A list that grows by each SIGTERM or SIGINT that comes inside the block."""
    stops: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        stops.append(number)

    previous = {number: signal.signal(number, hear) for number in _SIGNALS}
    try:
        yield stops
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Process:
    """A process that trains and scores a run. Its output is appended to the log of the run."""

    def __init__(self, job: Job, workdir: pathlib.Path, environment: dict[str, str]):
        self.job = job
        self.started = time.monotonic()
        self._folder = make_output_folder(job.run.folder(workdir))
        self._told = 0
        (self._folder / FAILURE).unlink(missing_ok=True)
        with (self._folder / LOG).open('ab') as log:
            self._process = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                process_group=0,  # its own, so that Ctrl-C does not reach it twice
                pass_fds=job.keeps_open,
            )

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    @property
    def step(self) -> int:
        """The last step that it has logged."""
        try:
            with (self._folder / 'metrics.jsonl').open('rb') as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                return int(json.loads(file.read().splitlines()[-1])['step'])
        except (OSError, ValueError, LookupError):  # no step is logged yet, or its line is being written
            return 0

    def tell(self, stops: int) -> None:
        """Pass on the signals that it has not received yet."""
        if self._told < stops:
            self._process.send_signal(signal.SIGTERM)
            self._told = stops

    def failure(self, *, asked_to_stop: bool) -> str | None:
        """Why it ended before it was done, also written to its folder; None if it is done or was stopped."""
        if self.job.is_done() or self.code == _STOPPED or asked_to_stop:
            return None
        reason = read_failure(self._folder)
        if reason is None:
            reason = f'it ended with exit code {self.code}; {self._folder / LOG} says more'
            write_atomically(self._folder / FAILURE, reason)
        return f'{self.job.run}: {reason}'

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


class SweepProgress:
    """The progress of all runs: a bar on a terminal, and a line in the log whenever a run ends.

    Args:
        runs: how many there are.
        steps: of all of them.
        left: how many runs are not done.
        steps_left: of these.
    """

    def __init__(self, runs: int, steps: int, left: int, steps_left: int):
        self._runs, self._left = runs, left
        self._failed, self._steps, self._started = 0, 0, time.monotonic()
        self._before, self._to_do = steps - steps_left, steps_left
        self._bar = tqdm.tqdm(total=steps, initial=self._before, unit='step', dynamic_ncols=True, disable=None)

    def show(self, running: Sequence[_Process]) -> None:
        """Bring the bar up to date."""
        if not self._bar.disable:
            self._bar.update(self._before + self._steps + sum(process.step for process in running) - self._bar.n)
            self._bar.set_description_str(f'{self._runs - self._left} of {self._runs} runs, {self._failed} failed')

    def ended(self, process: _Process, failure: str | None) -> None:
        """Log that a run has ended, and how long the others will take at this rate."""
        self._left -= 1
        self._failed += failure is not None
        self._steps += process.job.run.config.num_steps
        now = time.monotonic()
        ending = 'done in' if process.job.is_done() else 'stopped after'
        what = failure or f'{process.job.run}: {ending} {(now - process.started) / 60:.1f} min'
        left = (now - self._started) / self._steps * (self._to_do - self._steps) / 60
        with self._bar.external_write_mode():
            logging.info(
                '%d of %d runs have ended, %d of them failed, about %.0f min left. %s',
                *(self._runs - self._left, self._runs, self._failed, left, what),
            )

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()
