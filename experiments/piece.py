"""Train comparisons for a given time, one after another; what is not done then goes on with the next call.

    python -m experiments.piece --runs=sr_x2_nsr,sr_x2 --seconds=500 --output=results [-- --config.batch_size=8]

A run is asked to stop by SIGTERM, saves its state, and goes on exactly. Results of each, and the state of the one that
is not done, are written to --output. Exit code 0: all are done; 75: call again; 1: one failed, see its train.log.
`--measure=300` trains none: it takes so many steps of each and says how many fit into 25 minutes.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import jax
from absl import flags

from experiments import archives
from experiments.comparisons import FOLDER, Comparison, find_comparison
from nsr_jax import command_line
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.errors import UserError

STATE = f'{FOLDER}/state'
SHORTEST_SECONDS = 20  # that are worth starting for
PATIENCE_SECONDS = 45  # to save in, once asked to stop
RUN_SECONDS = 25 * 60
_STOPPED = (command_line.EXIT_STOPPED, -signal.SIGTERM, -signal.SIGKILL)


def train_piece(arguments: Sequence[str], workdir: pathlib.Path, seconds: float) -> int:
    """Train until the run is done or the time is over; its standard error is appended to the workdir's train.log.

    Returns:
        The exit code of train.py, or minus the signal that ended it: before its first step it stops at once, and if
        it does not stop it is killed, which loses what came after its last checkpoint.
    """
    make_output_folder(workdir)
    started = time.monotonic()
    with (workdir / archives.LOG).open('ab') as log:
        process = subprocess.Popen([sys.executable, *arguments], stderr=log)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                code = process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
    piece = {'seconds': round(time.monotonic() - started, 1), 'exit_code': code, 'hardware': _hardware()}
    piece |= {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax', 'numpy')}
    pieces = [*archives.read_pieces(workdir), piece | {'python': platform.python_version()}]
    write_atomically(workdir / archives.PIECES, ''.join(json.dumps(each) + '\n' for each in pieces))
    return code


def _hardware() -> str:
    tool = shutil.which('nvidia-smi')
    if not tool:
        return f'CPU, {os.cpu_count()} cores'
    query = [tool, '--query-gpu=name', '--format=csv,noheader']
    return ', '.join(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split('\n')[:-1])


def train_all(
    runs: Sequence[Comparison],
    seconds: float,
    output: pathlib.Path,
    *,
    steps: int | None,
    state: bool,
    extra: Sequence[str],
) -> int:
    """Train the runs that are not done, one after another.

    Args:
        runs: in their order.
        seconds: for all of them together.
        output: gets results, also of a run that failed.
        steps: of each run; None: its config's.
        state: whether the state of a run that is not done is written too.
        extra: more arguments for train.py.

    Returns:
        The exit code of the command.
    """
    end = time.monotonic() + seconds
    for run in runs:
        workdir = pathlib.Path(FOLDER, run.name)
        parts = sorted(pathlib.Path(STATE).glob(f'{run.name}.state.*'))
        if parts and archives.last_checkpoint(workdir) is None:
            archives.read_state(parts, workdir)
        if archives.is_finished(workdir):
            continue
        if end - time.monotonic() < SHORTEST_SECONDS:
            sys.stdout.write(f'{run.name}: not started, less than {SHORTEST_SECONDS} s are left\n')
            return command_line.EXIT_STOPPED
        arguments = [*run.train_arguments(steps), *extra]
        code = train_piece(arguments, workdir, end - time.monotonic())
        archives.write_results(workdir, output, ' '.join(['python', *arguments]))
        seconds = archives.read_pieces(workdir)[-1]['seconds']
        sys.stdout.write(f'{run.name}: exit code {code} after {seconds:.0f} s\n')
        if code in _STOPPED:
            if state:
                archives.write_state(workdir, output)
            return command_line.EXIT_STOPPED
        if code:
            sys.stdout.write((workdir / archives.LOG).read_text(encoding='utf-8', errors='replace')[-3000:])
            return 1
    return 0


def measure(runs: Sequence[Comparison], steps: int, output: pathlib.Path, extra: Sequence[str]) -> None:
    """Take some steps of each run in a folder of its own, and write rates.json: steps a second, after compilation.

    Raises:
        UserError: one fails.
    """
    rates = {}
    for run in runs:
        workdir = pathlib.Path(FOLDER, 'measure', run.name)
        shutil.rmtree(workdir, ignore_errors=True)
        periods = [f'--config.{name}_every_steps={steps}' for name in ('evaluate', 'checkpoint')]
        few = [f'--config.num_steps={steps}', '--config.log_every_steps=50', '--config.steps_per_call=50', *periods]
        arguments = [*run.train_arguments(), f'--workdir={workdir}', '--config.evaluation.datasets=', *few, *extra]
        if train_piece(arguments, workdir, RUN_SECONDS):
            raise UserError(
                f'{run.name} fails: {(workdir / archives.LOG).read_text(encoding="utf-8", errors="replace")[-2000:]}'
            )
        lines = [json.loads(line) for line in (workdir / archives.METRICS).read_text(encoding='utf-8').splitlines()]
        batch_size = json.loads((workdir / 'config.json').read_text(encoding='utf-8'))['batch_size']
        rate = statistics.median(line['images_per_second'] for line in lines[1:]) / batch_size
        rates[run.name] = {'steps_per_second': rate, 'steps_in_25_minutes': int(rate * RUN_SECONDS)}
        sys.stdout.write(f'{run.name}: {rate:.1f} steps/s, {int(rate * RUN_SECONDS)} in 25 minutes\n')
    write_atomically(output / 'rates.json', json.dumps({'hardware': _hardware(), 'runs': rates}, indent=1) + '\n')


def main(argv: Sequence[str]) -> int | None:
    """Check what was asked for, then train or measure."""
    given = flags.FLAGS
    if wrong := [each for each in argv[1:] if not each.startswith('--config.')]:
        raise UserError(f'unexpected argument {wrong[0]!r}: train.py takes --config.NAME=VALUE')
    jax.config.update('jax_platforms', 'cpu')  # of this process, which only reads weights: the GPU is for training
    runs = [find_comparison(name) for name in given.runs]
    output = make_output_folder(given.output)
    if given.measure:
        measure(runs, given.measure, output, argv[1:])
        return None
    return train_all(runs, given.seconds, output, steps=given.steps, state=given.state, extra=argv[1:])


if __name__ == '__main__':
    flags.DEFINE_list('runs', None, 'Names in experiments/comparisons.py.')
    flags.DEFINE_float(
        'seconds', 500, 'After which the run at work is asked to stop.', lower_bound=2 * SHORTEST_SECONDS
    )
    flags.DEFINE_integer('steps', None, "Of each run; default: its config's.", lower_bound=1)
    flags.DEFINE_bool('state', True, 'Write the state of a run that is not done too, to go on with elsewhere.')
    flags.DEFINE_integer('measure', 0, 'Take so many steps of each run and train none.', lower_bound=0)
    flags.DEFINE_string('output', None, 'Folder for what is to come back.')
    flags.mark_flags_as_required(['runs', 'output'])
    command_line.run(main)
