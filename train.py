"""Train a restoration network, or go on training one.

    python train.py --config=configs/sr.py:scale=2,preset=edsr_s_nsr --workdir=runs/x2 --config.batch_size=32

The workdir's last checkpoint is gone on from, exactly. `--config.NAME=VALUE` overrides any field of configs/base.py.
Without training, `--profile=20` says where the time of 20 steps goes, `--replay_step=700` what was in batch 700.
"""

from collections.abc import Sequence

from absl import flags, logging
from ml_collections import config_flags

from configs import base
from nsr_jax import agreement, command_line
from nsr_jax.errors import UserError
from nsr_jax.evaluation.validation import open_validation
from nsr_jax.paths import local_path
from nsr_jax.training.loop import train
from nsr_jax.training.preparation import check_run
from nsr_jax.training.profile import profile
from nsr_jax.training.replay import replay

CONFIG = config_flags.DEFINE_config_file('config', help_string='A file in configs/, with its argument.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder for checkpoints, metrics.jsonl and tensorboard/.')
PROFILE = flags.DEFINE_integer('profile', 0, 'Steps to trace instead of training.', lower_bound=0)
REPLAY = flags.DEFINE_integer('replay_step', None, 'Batch of the run to look at instead of training.', lower_bound=0)
flags.mark_flags_as_required(['config', 'workdir'])


def main(argv: Sequence[str]) -> None:
    """Check what was asked for, then train."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    workdir = local_path(WORKDIR.value, '--workdir')
    with agreement.agreed():
        command_line.check_config(base.check, CONFIG.value)
        check_run(CONFIG.value, workdir)
    if PROFILE.value:
        logging.info('\n%s', profile(CONFIG.value, workdir, PROFILE.value))
        return
    if REPLAY.value is not None:
        logging.info('\n%s', replay(CONFIG.value, workdir, REPLAY.value))
        return
    with agreement.agreed():
        validation = open_validation(CONFIG.value)
    if validation is None:
        train(CONFIG.value, workdir)
    else:
        train(CONFIG.value, workdir, validation.evaluate, validation.measured_on)


if __name__ == '__main__':
    command_line.run(main)
