"""One run of a sweep: train as train.py does, then score on the validation images and keep the result."""

import contextlib
import json
import math
import pathlib
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from absl import logging

from nsr_jax import agreement
from nsr_jax.atomic_files import write_atomically
from nsr_jax.errors import StoppedError, UserError
from nsr_jax.evaluation.validation import open_held_out, open_validation
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import count_multi_adds, count_parameters
from nsr_jax.studies.gates_worth import measure_gates
from nsr_jax.studies.study import StudyRun
from nsr_jax.trained import FOLDER, load_model
from nsr_jax.training.history import find_differences
from nsr_jax.training.loop import train
from nsr_jax.training.run import check_run

RESULT = 'result.json'
FAILURE = 'failure.txt'


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Raise `StoppedError` when SIGTERM comes inside the block; while it trains, training itself hears the signal."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise StoppedError('as asked to before or after training: the same command goes on')

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def train_and_score(
    run: StudyRun,
    workdir: pathlib.Path,
    after_validation: Callable[[int, float], None] | None = None,
    trained_like: Sequence[StudyRun] = (),
) -> None:
    """Train to the last step, resuming what an earlier call began, and write the result of the last step's weights.

    Args:
        run: of a sweep.
        workdir: of the sweep.
        after_validation: as for `training.loop.train`.
        trained_like: runs that are trained in the same way. The weights of one that is done are scored instead.

    Raises:
        UserError: as in `training.loop.train`, or there are no validation images. `FAILURE` keeps the reason.
        StoppedError: as in `training.loop.train`.
    """
    folder = run.folder(workdir)
    try:
        with agreement.agreed():
            check_run(run.config, folder)
            if agreement.is_first():
                (folder / FAILURE).unlink(missing_ok=True)
        if (folder / RESULT).exists():
            logging.info('%s: done before', run)
            return
        lender = agreement.by_first(lambda: _find_lender(run, workdir, trained_like))
        if lender:
            logging.info('%s: is trained as %s is, whose weights are scored', run, lender)
        _train_and_score(run, folder, workdir / lender if lender else folder, after_validation)
    except UserError as error:
        if agreement.is_first():
            with contextlib.suppress(UserError):  # the folder itself may be what is wrong
                write_atomically(folder / FAILURE, str(error))
        raise


def _find_lender(run: StudyRun, workdir: pathlib.Path, trained_like: Sequence[StudyRun]) -> str | None:
    """The folder in the workdir of a run that is done and has the weights that this one would be trained to."""
    for each in trained_like:
        folder = each.folder(workdir)
        is_trained = (folder / FOLDER / str(run.config.num_steps)).is_dir()  # rather than scored by others' weights
        if is_trained and read_result(folder) is not None and find_differences(folder, run.config) == {}:
            return str(folder.relative_to(workdir))
    return None


def _train_and_score(
    run: StudyRun, folder: pathlib.Path, trained: pathlib.Path, after_validation: Callable[[int, float], None] | None
) -> None:
    """Write the result into `folder`, of weights that are or will be in the workdir `trained`."""
    config = run.config
    with agreement.agreed():
        validation = open_validation(config)
        if validation is None or open_held_out(config) is None:
            raise UserError('there are no validation images to compare members by: see config.validation')
    if trained == folder:
        train(
            config,
            folder,
            evaluate=validation.evaluate,
            measured_on=validation.measured_on,
            draw_samples=validation.draw_samples,
            after_validation=after_validation,
        )
    params = load_model(trained / FOLDER / str(config.num_steps)).params
    network = build_network(config.model)
    merit, scores = validation.evaluate(params)
    assert merit is not None  # there are validation images
    scores = {name.removeprefix('validation/'): score for name, score in scores.items()}
    with agreement.agreed():
        gates = measure_gates(config, params)
    result = {
        'parameters': count_parameters(network),
        'multi_adds': count_multi_adds(network).total,
        'steps': config.num_steps,
        'merit': _storable(merit),
        'scores': {name: _storable(score) for name, score in {**scores, **gates}.items()},
    }
    if agreement.is_first():
        write_atomically(folder / RESULT, json.dumps(result, indent=1, allow_nan=False) + '\n')


def read_result(folder: pathlib.Path) -> dict[str, Any] | None:
    """The result in the folder of a run; None if it is not done. Raises `UserError` if the file is damaged."""
    path = folder / RESULT
    try:
        result = json.loads(path.read_bytes())
        scores = {name: float(score) for name, score in result['scores'].items()}
        sizes = {name: int(result[name]) for name in ('parameters', 'multi_adds', 'steps')}
        merit = float(result.get('merit', math.nan))  # results of older versions have none
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'{path} cannot be read as the result of a run; remove it to score the run again') from error
    return {**sizes, 'merit': merit, 'scores': scores}


def read_failure(folder: pathlib.Path) -> str | None:
    """Why a run has failed; None if it has not. Raises `UserError` if the file cannot be read."""
    try:
        return (folder / FAILURE).read_text(encoding='utf-8', errors='replace').strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f'{folder / FAILURE} cannot be read: {error.strerror}') from error


def _storable(score: float) -> float | str:
    return score if math.isfinite(score) else str(score)
