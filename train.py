"""Train a restoration network, or resume its training.

    python train.py --config=configs/sr.py:scale=2,preset=edsr_s_nsr --workdir=runs/x2 --config.batch_size=32

A run that stopped resumes exactly from the last checkpoint in its workdir. `--config.NAME=VALUE` overrides any field of
configs/base.py. `--change=num_steps,learning_rate` lets a run, also a finished one, go on with other values of these
fields. `--stop_after=9m` saves and ends with exit code 75 after nine minutes; the same command then resumes.
Instead of training, `--profile=20` shows how 20 steps spend their time, and `--replay_step=700` what is in batch 700.
`--compile_for=v5e:2x2` compiles the step for chips that need not be there, and shows what the compiler says of it.
"""

import json
import pathlib
from collections.abc import Sequence

from absl import flags, logging
from ml_collections import config_flags

from configs import base
from configs.listing import list_configs
from nsr_jax import agreement, command_line, streams
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.errors import UserError
from nsr_jax.evaluation.validation import open_validation
from nsr_jax.paths import local_path
from nsr_jax.planning.compiled_step import make_plan
from nsr_jax.planning.description import describe
from nsr_jax.planning.target import EXAMPLES, hide_accelerators
from nsr_jax.training.loop import train
from nsr_jax.training.profile import profile
from nsr_jax.training.replay import replay
from nsr_jax.training.run import check_run
from nsr_jax.training.stopping import parse_duration

CONFIG = config_flags.DEFINE_config_file('config', help_string='A file in configs/, with its argument.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder for checkpoints, metrics.jsonl and tensorboard/.')
STOP_AFTER = flags.DEFINE_string(
    'stop_after', None, 'Time since the start after which to save and end with exit code 75: 90s, 9m, 2h, 1h30m.'
)
CHANGE = flags.DEFINE_list(
    'change', [], 'Fields of the config that may differ from those of the run so far: num_steps,learning_rate.'
)
PROFILE = flags.DEFINE_integer('profile', 0, 'Number of steps to trace instead of training.', lower_bound=0)
REPLAY = flags.DEFINE_integer('replay_step', None, 'Batch of the run to replay instead of training.', lower_bound=0)
COMPILE_FOR = flags.DEFINE_string(
    'compile_for', None, f'Chips to plan the run for instead of training: {EXAMPLES}. It needs no --workdir.'
)
COMPILE_REPORT = flags.DEFINE_string('compile_report', None, 'File for the plan of --compile_for, as JSON.')
command_line.require_config(list_configs)
flags.register_multi_flags_validator(
    ['workdir', 'compile_for'],
    lambda given: given['workdir'] is not None or given['compile_for'] is not None,
    message='give --workdir=FOLDER for the run, or --compile_for to plan it',
)


def main(argv: Sequence[str]) -> None:
    """Check the flags and the config, then train."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    if CHANGE.value and (PROFILE.value or REPLAY.value is not None or COMPILE_FOR.value is not None):
        raise UserError('--change is for training, not for --profile, --replay_step and --compile_for')
    if COMPILE_FOR.value is not None:
        plan(COMPILE_FOR.value)
        return
    workdir = local_path(WORKDIR.value or '', '--workdir')
    stop_after = None if STOP_AFTER.value is None else parse_duration(STOP_AFTER.value, '--stop_after')
    with agreement.agreed():
        command_line.check_config(base.check, CONFIG.value)
        check_run(CONFIG.value, workdir, CHANGE.value)
    if PROFILE.value:
        logging.info('\n%s', profile(CONFIG.value, workdir, PROFILE.value))
        return
    if REPLAY.value is not None:
        logging.info('\n%s', replay(CONFIG.value, workdir, REPLAY.value))
        return
    with agreement.agreed():
        validation = open_validation(CONFIG.value)
    scoring = vars(validation) if validation else {}
    train(CONFIG.value, workdir, stop_after=stop_after, change=CHANGE.value, **scoring)


def plan(chips: str) -> None:
    """Print the plan of the run for chips, and write it to --compile_report."""
    path = None if COMPILE_REPORT.value is None else pathlib.Path(local_path(COMPILE_REPORT.value, '--compile_report'))
    if path:
        make_output_folder(path.parent)
    command_line.check_config(base.check, CONFIG.value)
    found = make_plan(CONFIG.value, chips)
    if path:
        write_atomically(path, json.dumps(found, indent=1, allow_nan=False) + '\n')
    streams.print_text(describe(found))


def computes() -> bool:
    """Whether accelerators are used; from a plan they are hidden."""
    if COMPILE_FOR.value is not None:
        hide_accelerators()
    return COMPILE_FOR.value is None


if __name__ == '__main__':
    command_line.run(main, computes)
