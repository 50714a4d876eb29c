"""A search over the ranges of a sweep file: trials, which an Optuna study in the workdir keeps.

A trial is an ordinary run whose config differs from that of the sweep's first member in the fields of RANGES. Its
values depend on the seed and on its number alone, whoever starts it. By `halving` a trial goes on after 1, 3, 9, …
validations only if it is among the better third of those that have come so far.
"""

import contextlib
import fcntl
import functools
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from absl import logging

from nsr_jax import agreement
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.errors import UserError
from nsr_jax.paths import check_for_libraries
from nsr_jax.studies.launching import Job
from nsr_jax.studies.one_run import FAILURE, read_result, train_and_score
from nsr_jax.studies.study import Study, StudyRun, claim_workdir
from nsr_jax.training.run import check_names

if TYPE_CHECKING:
    import optuna

STORAGE = 'search.sqlite3'
METHODS = ('random', 'halving')
REDUCTION = 3  # of the trials that come to a rung of `halving`, one of so many goes on
_LOCK = '.search.lock'
_CLAIM = '.claim'
_WAIT_SECONDS = 120  # for other processes that write


def check_search(study: Study, method: str, where: str) -> None:
    """Check a search before anything starts: that each end of each range makes sense, all other fields as they are.

    Args:
        where: the sweep file.

    Raises:
        UserError: the sweep has no ranges, a range has a field or values that a config does not take, or there are no
            validations to stop trials by; or Optuna is missing.
    """
    _optuna()
    if not study.ranges:
        raise UserError(f'--search={method}: {where} has no RANGES, the fields to search over')
    for name, each in study.ranges.items():
        for value in each.values:
            place = f'{where}: RANGES, {name} {value}'
            config = study.changed({name: value}, place)
            try:
                check_names(config)
            except UserError as error:
                raise UserError(f'{place}: {error}') from error
    config = study.runs[0].config
    if method == 'halving' and config.evaluate_every_steps >= config.num_steps:
        raise UserError(
            f'--search=halving stops trials by their validations: evaluate_every_steps {config.evaluate_every_steps} '
            f'must be below num_steps {config.num_steps}'
        )


class Search:
    """The trials in a workdir, which several processes may take from at the same time.

    Args:
        study: with ranges that `check_search` has accepted.
        workdir: of the search; made if it is missing.
        method: of `METHODS`.

    Raises:
        UserError: the workdir holds something else, or cannot be written; its trials cannot be read.
    """

    def __init__(self, study: Study, workdir: pathlib.Path, method: str):
        check_for_libraries(workdir, f'--workdir={workdir}')
        ranges = ', '.join(f'{name} {each}' for name, each in study.ranges.items())
        claim_workdir(workdir, study, f'a search by {method} from {next(iter(study.members))} over {ranges}')
        self.study = study
        self.workdir = workdir
        self._claims: dict[int, BinaryIO] = {}
        optuna = _optuna()
        every = study.runs[0].config.evaluate_every_steps
        pruner = (
            optuna.pruners.SuccessiveHalvingPruner(min_resource=every, reduction_factor=REDUCTION)
            if method == 'halving'
            else optuna.pruners.NopPruner()
        )
        path = (workdir / STORAGE).resolve()
        with _readable(path), _locked(workdir / _LOCK):
            storage = optuna.storages.RDBStorage(
                f'sqlite:///{path}'.replace('{', '{{').replace('}', '}}'),  # Optuna fills in templates
                engine_kwargs={'connect_args': {'timeout': _WAIT_SECONDS}},
            )
            self._trials = optuna.create_study(
                storage=storage, study_name=study.name, direction='maximize', pruner=pruner, load_if_exists=True
            )

    def trials(self) -> Sequence['optuna.trial.FrozenTrial']:
        """All trials so far, by number."""
        with _readable(self.workdir / STORAGE):
            return self._trials.get_trials(deepcopy=False)

    def folder(self, number: int) -> pathlib.Path:
        """The workdir of a trial."""
        return self.workdir / f'trial_{number}' / f'seed_{self.study.seeds[0]}'

    def run_of(self, number: int, values: dict[str, Any]) -> StudyRun:
        """The run of a trial.

        Args:
            number: of the trial.
            values: that it has drawn, by field.

        Raises:
            UserError: its values make no sense together.
        """
        name, seed = f'trial_{number}', self.study.seeds[0]
        config = self.study.changed(values, name)
        check_names(config)
        return StudyRun(number, name, seed, config)

    def take(self, most: int, command: Callable[[StudyRun], Sequence[str]]) -> Iterator[Job]:
        """Trials to run: those that nobody runs any more, then new ones up to `most` in all.

        Args:
            command: as for `launching.run_all`.

        Raises:
            UserError: the workdir cannot be written, or the trials cannot be read.
        """
        while True:
            with _readable(self.workdir / STORAGE), _locked(self.workdir / _LOCK):
                found = self._claim(most)
            if found is None:
                return
            number, self._claims[number] = found
            try:
                run = self.run_of(number, self.trials()[number].params)
            except UserError as error:
                write_atomically(self.folder(number) / FAILURE, str(error))
                self._end(number, str(error))
                continue
            # The process inherits the claim, which so outlives this one if this one is killed.
            is_done = functools.partial(self._has_ended, number)
            yield Job(run, command(run), is_done, (self._claims[number].fileno(),))

    def record(self, job: Job, failure: str | None) -> None:
        """Record that a process has ended, and why it failed; None: it has not."""
        self._end(job.run.index, failure)

    def _claim(self, most: int) -> tuple[int, BinaryIO] | None:
        """The number of a trial that only this process holds now, and its open lock; None if there is none left."""
        trials = self.trials()
        for trial in trials:
            if not trial.state.is_finished() and (claim := _try_lock(self.folder(trial.number) / _CLAIM)):
                break
        else:
            if len(trials) >= most:
                return None
            trial = self._trials.ask()
            claim = _try_lock(self.folder(trial.number) / _CLAIM)
            assert claim is not None  # nobody else knows of this trial yet
        self._draw(trial.number)
        return trial.number, claim

    def _draw(self, number: int) -> None:
        """Draw the values of a trial; those that it has stay."""
        trial = self._live(number)
        for index, (name, each) in enumerate(self.study.ranges.items()):
            seed = np.random.SeedSequence([self.study.seeds[0], number, index]).generate_state(1)[0]
            self._trials.sampler = _optuna().samplers.RandomSampler(int(seed))
            if each.kind == 'choice':
                trial.suggest_categorical(name, each.values)
            elif each.kind == 'int':
                trial.suggest_int(name, *each.values)
            else:
                trial.suggest_float(name, *each.values, log=each.kind == 'log')

    def _live(self, number: int) -> 'optuna.Trial':
        """A trial that has not ended, for drawing and reporting."""
        return _optuna().trial.Trial(self._trials, self.trials()[number]._trial_id)

    def _end(self, number: int, failure: str | None) -> None:
        with _readable(self.workdir / STORAGE):
            if failure is not None:
                self._trials.tell(number, state=_optuna().trial.TrialState.FAIL)
        self._claims.pop(number).close()

    def _has_ended(self, number: int) -> bool:
        return self.trials()[number].state.is_finished()

    def train(self, number: int) -> None:
        """Train and score a trial in this process, and record how it ends.

        Raises:
            UserError: there is no such trial, or as in `train_and_score`.
            StoppedError: as in `train_and_score`.
        """
        optuna = _optuna()
        trials = self.trials()
        if not 0 <= number < len(trials):
            raise UserError(f'--index={number}: the {len(trials)} trials of this search so far begin with 0')
        if trials[number].state.is_finished():
            logging.info('trial_%d: has ended before', number)
            return
        run = self.run_of(number, trials[number].params)
        live = self._live(number)

        def report(step: int, merit: float) -> bool:
            """Whether the trial is to be stopped."""
            if math.isnan(merit):
                raise UserError(f'it diverged: the validation of step {step} gives no number')
            live.report(merit, step)
            return step < run.config.num_steps and live.should_prune()

        def after_validation(step: int, merit: float) -> None:
            if agreement.by_first(lambda: report(step, merit)):
                raise optuna.TrialPruned

        with _readable(self.workdir / STORAGE):
            try:
                train_and_score(run, self.workdir, after_validation)
            except optuna.TrialPruned:
                logging.info('%s: is not among the better ones, and is stopped', run)
                outcome: dict[str, Any] = {'state': optuna.trial.TrialState.PRUNED}
            else:
                result = read_result(run.folder(self.workdir))
                assert result is not None
                outcome = {'values': result['merit']}
            if agreement.is_first():
                self._trials.tell(number, **outcome)


def _optuna() -> ModuleType:
    """Optuna, with its log reduced to errors. Raises `UserError` if it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise UserError(f'--search needs the package optuna: pip install "nsr-jax[search]" ({error})') from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextlib.contextmanager
def _readable(path: pathlib.Path) -> Iterator[None]:
    """Turn errors of the database into a `UserError` that names its file."""
    import sqlalchemy.exc

    optuna = _optuna()
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(f'{path} cannot be read or written as the trials of a search: {reason}') from error


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Wait until no other process is inside this block."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open('ab'))
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(f'{path} cannot be locked: {error.strerror}') from error
        yield


def _try_lock(path: pathlib.Path) -> BinaryIO | None:
    """The open file, locked for as long as it or its copy in another process is open; None if another one holds it."""
    make_output_folder(path.parent)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open('ab'))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError as error:
            raise UserError(f'{path} cannot be locked: {error.strerror}') from error
        stack.pop_all()  # the caller closes it
        return file
