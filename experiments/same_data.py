"""Train networks on the training images of published ones, score them, and write both into docs/results.md.

    python -m experiments.same_data --workdir=../same_data
    python -m experiments.same_data --workdir=../same_data --runs=sr_x2_nsr,sr_x2 --stop_after=9m
    python -m experiments.same_data --workdir=/tmp/trial --steps=20

For each run, `train.py` trains in a folder of --workdir, then `eval.py` scores the weights that are best on held-out
training images, in float32, on the test sets of its rivals. Exit code 75 means that there is more to do, and
that the same command resumes. The scores of a whole run are kept in experiments/results/NAME.json, and a run that has
this file is done. With --steps the scores are only in the folders of the runs.
"""

import dataclasses
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags, logging

from experiments import page
from experiments.runs import RUNS, Run
from nsr_jax import command_line
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.errors import StoppedError, UserError
from nsr_jax.evaluation.scores import means
from nsr_jax.evaluation.tables import from_json, to_record
from nsr_jax.paths import local_path
from nsr_jax.trained import FOLDER
from nsr_jax.training.stopping import parse_duration, seconds_since_start

ROOT = pathlib.Path(__file__).parents[1]
RECORDS = ROOT / 'experiments' / 'results'
PIECES = 'pieces.jsonl'  # one line for each start of train.py: its seconds, exit code and hardware


def complete(run: Run, folder: pathlib.Path, steps: int | None, stop_after: float | None) -> dict[str, Any]:
    """Train and score a run, or resume it, and return its record: its scores, and how it was trained.

    Args:
        run: the one to complete.
        folder: of all runs, absolute.
        steps: of the training; None takes the config's own number.
        stop_after: seconds since this process started, after which training saves. Scoring is not interrupted.

    Raises:
        StoppedError: there is more to do.
        UserError: a command failed, and printed why.
    """
    workdir = make_output_folder(folder / run.name)
    config = run.config(steps)
    if not (workdir / FOLDER / str(config.num_steps)).is_dir():
        budget = []
        if stop_after is not None:
            if (left := int(stop_after - seconds_since_start())) < 1:
                raise StoppedError(f'before {run.name}: the same command resumes')
            budget = [f'--stop_after={left}s']
        started = time.monotonic()
        code = start([*run.train_arguments(folder, steps), *budget])
        _add_piece(workdir, {'seconds': time.monotonic() - started, 'exit_code': code, 'hardware': _hardware()})
        _check_exit(run, 'train.py', code)
    _check_exit(run, 'eval.py', start(run.score_arguments(folder, steps)))
    scores = means(from_json((workdir / 'eval' / 'scores.json').read_text(encoding='utf-8')))
    return {
        'name': run.name,
        'config': json.loads(config.to_json()),
        'scores': [to_record(dataclasses.replace(mean, model=run.name)) for mean in scores],
        'pieces': [json.loads(line) for line in (workdir / PIECES).read_text(encoding='utf-8').splitlines()],
    }


def start(arguments: Sequence[str]) -> int:
    """Run a script of this project and return its exit code. SIGTERM is passed on; Ctrl-C reaches the script anyway."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT)
    previous = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number)),
        signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None),
    }
    try:
        return process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _check_exit(run: Run, script: str, code: int) -> None:
    if code in (command_line.EXIT_STOPPED, command_line.EXIT_INTERRUPTED, -signal.SIGTERM, -signal.SIGINT):
        raise StoppedError(f'{script} of {run.name} stopped: the same command resumes')
    if code:
        raise UserError(f'{script} of {run.name} failed with exit code {code}; its own message is above')


def _add_piece(workdir: pathlib.Path, piece: dict[str, Any]) -> None:
    path = workdir / PIECES
    before = path.read_text(encoding='utf-8') if path.exists() else ''
    write_atomically(path, before + json.dumps(piece | {'jax': jax.__version__}) + '\n')


def _hardware() -> str:
    if tool := shutil.which('nvidia-smi'):
        query = [tool, '--query-gpu=name', '--format=csv,noheader']
        found = subprocess.run(query, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return ', '.join(found.stdout.splitlines())
    return f'{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} CPU cores'


def read_records() -> dict[str, dict[str, Any]]:
    """The records of the finished runs, by name."""
    paths = {name: RECORDS / f'{name}.json' for name in RUNS}
    return {name: json.loads(path.read_text(encoding='utf-8')) for name, path in paths.items() if path.exists()}


def main(argv: Sequence[str]) -> None:
    """Complete the runs one after another, and write the page after each."""
    given = flags.FLAGS
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    if unknown := [name for name in given.runs if name not in RUNS]:
        raise UserError(f'--runs: unknown run {unknown[0]!r}: one of {", ".join(RUNS)}')
    stop_after = parse_duration(given.stop_after, '--stop_after') if given.stop_after is not None else None
    page.write(read_records())
    if given.workdir is None:
        return
    folder = make_output_folder(local_path(given.workdir, '--workdir')).resolve()
    for name in given.runs or RUNS:
        if given.steps is None and name in read_records():
            logging.info('%s is done', name)
            continue
        record = complete(RUNS[name], folder, given.steps, stop_after)
        if given.steps is None:
            write_atomically(make_output_folder(RECORDS) / f'{name}.json', json.dumps(record, indent=1) + '\n')
            page.write(read_records())
        logging.info('%s: scores are in %s', name, folder / name / 'eval')


if __name__ == '__main__':
    flags.DEFINE_string(
        'workdir', None, 'Folder for the runs, outside the checkout; without it, only the page is written.'
    )
    flags.DEFINE_list('runs', [], f'Runs to complete, in this order; default: all of {", ".join(RUNS)}.')
    flags.DEFINE_integer('steps', None, "Steps of each run, for a trial; default: the config's.", lower_bound=1)
    flags.DEFINE_string('stop_after', None, 'Time after which training saves and the command ends with 75: 9m, 1h30m.')
    jax.config.update('jax_platforms', 'cpu')  # this process leaves accelerators to those that it starts
    command_line.run(main)
