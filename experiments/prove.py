"""Prove on a CPU that every comparison runs: train each for a few steps, score it, and keep a record of it.

    NSR_DATA_DIR=... python -m experiments.prove --steps=20
    python -m experiments.results                              # shows the records

It is the command of the long run with another number of steps, in runs/short, and what the long run begins with is the
short run of it. So few steps teach nothing: the scores say that the evaluation runs. Each run takes one to three
minutes on two cores. A run with a record is not run again, so the same command goes on where it was stopped;
`--overwrite` runs it anew.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import flags

from benchmarks.environment import environment
from experiments import archives
from experiments.comparisons import COMPARISONS, Comparison, find_comparison
from nsr_jax import command_line
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.errors import UserError
from nsr_jax.evaluation.scoring import means
from nsr_jax.evaluation.tables import from_json

FOLDER = 'runs/short'
RECORDS = pathlib.Path('experiments/results/short_runs.json')


def read_records(path: pathlib.Path = RECORDS) -> dict[str, dict[str, Any]]:
    """By the run's name; none where the file is not there yet."""
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}


def train_arguments(run: Comparison, steps: int) -> list[str]:
    """What follows `python`: no scores on the way, and one checkpoint, at the end."""
    log = f'--config.log_every_steps={max(1, steps // 4)}'
    return [
        *run.train_arguments(steps, FOLDER), log, f'--config.checkpoint_every_steps={steps}',
        '--config.evaluation.datasets=',
    ]  # fmt: skip


def evaluate_arguments(run: Comparison, steps: int) -> list[str]:
    """The same for its scores: on the config's own dataset, which is the smallest, at its first level, in float32."""
    config = run.config(steps)
    levels = [f'--levels={level:g}' for level in config.evaluation.levels[:1]]
    return [
        'eval.py', f'--config={run.config_flag(steps)}', '--config.compute_dtype=float32',
        f'--checkpoint={FOLDER}/{run.name}', f'--datasets={config.evaluation.datasets}',
        f'--baselines={"bicubic" if config.task == "sr" else "degraded"}', f'--protocol={config.evaluation.protocol}',
        *levels, '--pictures=0', f'--output={FOLDER}/{run.name}/eval',
    ]  # fmt: skip


def prove(run: Comparison, steps: int) -> dict[str, Any]:
    """Train and score one comparison anew, after what it begins with.

    Args:
        run: its workdir in `FOLDER` is removed first.
        steps: of the optimizer.

    Returns:
        The record: what was run and what came of it.

    Raises:
        UserError: train.py or eval.py fails; the line holds the end of what it said.
    """
    if run.warm_start and archives.last_checkpoint(pathlib.Path(FOLDER, run.warm_start)) is None:
        first = find_comparison(run.warm_start)
        _start(train_arguments(first, steps), pathlib.Path(FOLDER, first.name))
    workdir = pathlib.Path(FOLDER, run.name)
    shutil.rmtree(workdir, ignore_errors=True)
    commands = train_arguments(run, steps), evaluate_arguments(run, steps)
    seconds = [_start(arguments, workdir) for arguments in commands]
    return make_record(run, workdir, commands, seconds)


def make_record(
    run: Comparison, workdir: pathlib.Path, commands: Sequence[Sequence[str]], seconds: Sequence[float]
) -> dict[str, Any]:
    """What a short run says.

    Args:
        run: that it is of.
        workdir: as train.py and eval.py leave it, the scores in eval/.
        commands: both ones, without `python`.
        seconds: that they took.

    Raises:
        UserError: the run logged no loss.
    """
    lines = [json.loads(line) for line in (workdir / archives.METRICS).read_text(encoding='utf-8').splitlines()]
    losses = [[line['step'], line['loss']] for line in lines if 'loss' in line]
    if not losses:
        raise UserError(f'{workdir}: no loss was logged')
    found = means(from_json((workdir / 'eval' / 'scores.json').read_text(encoding='utf-8')))
    return {
        'name': run.name,
        'steps': losses[-1][0],
        'losses': [losses[0], losses[-1]],
        'scores': [vars(mean) for mean in found],
        'seconds': {'train.py': round(seconds[0], 1), 'eval.py': round(seconds[1], 1)},
        'environment': environment(run.config().compute_dtype),
        'commands': [' '.join(['python', *arguments]) for arguments in commands],
    }


def _start(arguments: Sequence[str], workdir: pathlib.Path) -> float:
    """Run a command of the project on the CPU; its seconds, the start of Python and compilation included."""
    make_output_folder(workdir)
    started = time.monotonic()
    with (workdir / archives.LOG).open('ab') as log:
        process = subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | {'JAX_PLATFORMS': 'cpu'}, stdout=log, stderr=log, check=False,
        )  # fmt: skip
    if process.returncode:
        said = (workdir / archives.LOG).read_text(encoding='utf-8', errors='replace').split('\n')
        end = next((line for line in reversed(said) if line.strip()), '')
        raise UserError(f'python {" ".join(arguments)} fails with exit code {process.returncode}: {end}')
    return time.monotonic() - started


def prove_all(runs: Sequence[Comparison], steps: int, *, overwrite: bool, path: pathlib.Path = RECORDS) -> None:
    """Prove runs in their order; each one's record is kept as soon as it is there.

    Raises:
        UserError: one fails; those before it are kept.
    """
    make_output_folder(path.parent)
    for run in runs:
        records: Mapping[str, Any] = read_records(path)
        if run.name in records and not overwrite:
            sys.stdout.write(f'{run.name}: there is a record of it\n')
            continue
        records = {**records, run.name: prove(run, steps)}
        names = [each.name for each in COMPARISONS if each.name in records]
        write_atomically(path, json.dumps({name: records[name] for name in names}, indent=1) + '\n')
        sys.stdout.write(f'{run.name}: {sum(records[run.name]["seconds"].values()):.0f} s\n')
        sys.stdout.flush()


def main(argv: Sequence[str]) -> None:
    """Check what was asked for, then prove it."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    jax.config.update('jax_platforms', 'cpu')  # as in the commands that it starts
    given = flags.FLAGS
    runs = [find_comparison(name) for name in given.runs] or COMPARISONS
    prove_all(runs, given.steps, overwrite=given.overwrite)


if __name__ == '__main__':
    flags.DEFINE_integer('steps', 20, 'Of each run.', lower_bound=1)
    flags.DEFINE_list('runs', [], 'Names in experiments/comparisons.py; default: all.')
    flags.DEFINE_bool('overwrite', False, 'Run those too of which there is a record.')
    command_line.run(main)
