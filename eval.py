"""Score a trained network and baselines on image sets; write tables and pictures.

    python eval.py --config=configs/sr.py:scale=2,preset=edsr_s_nsr --checkpoint=runs/x2 \
        --datasets=set5,set14,bsd100 --baselines=bicubic --output=runs/x2/eval

Without --checkpoint the baselines alone are scored. The network is the one that the checkpoint's own config describes;
--config must not contradict it, and gives the data folders and what is not given as a flag.
"""

import pathlib
from collections.abc import Sequence

from absl import flags, logging
from ml_collections import config_flags

from nsr_jax import command
from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.comparison import check_architecture, compare
from nsr_jax.evaluation.evaluate import find_baselines, network_predictor
from nsr_jax.evaluation.inference import check_tiling
from nsr_jax.evaluation.pictures import plot_losses
from nsr_jax.evaluation.protocols import find_protocols
from nsr_jax.evaluation.tables import to_markdown
from nsr_jax.files import make_output_folder
from nsr_jax.models.build import build_network
from nsr_jax.training.checkpoints import load_model

CONFIG = config_flags.DEFINE_config_file('config', help_string='A file in configs/, with its argument.')
CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'A workdir or one checkpoint folder; none: baselines alone.')
OUTPUT = flags.DEFINE_string('output', None, 'Folder for scores.{json,csv,md}, pictures/ and the loss curve.')
DATASETS = flags.DEFINE_list('datasets', None, 'Names or folders; default: config.evaluation.datasets.')
SPLIT = flags.DEFINE_string('split', '', "Split of the datasets; '' = each one's own for evaluation.")
BASELINES = flags.DEFINE_list('baselines', [], 'Models without a checkpoint to score beside it: bicubic.')
PROTOCOL = flags.DEFINE_list('protocol', None, 'How to score, one or more; default: config.evaluation.protocol.')
TILING = flags.DEFINE_string('tiling', None, 'whole or authors; default: config.evaluation.tiling.')
PICTURES = flags.DEFINE_integer('pictures', 1, 'Pictures of each dataset, of the largest gains.', lower_bound=0)
flags.mark_flags_as_required(['config', 'output'])


def main(argv: Sequence[str]) -> None:
    """Check everything that was asked for, then evaluate."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    config = CONFIG.value
    scale = config.model.scale
    protocols = find_protocols(PROTOCOL.value or [config.evaluation.protocol])
    tiling = check_tiling(TILING.value or config.evaluation.tiling)
    baselines = find_baselines(BASELINES.value, scale)
    if not (CHECKPOINT.value or baselines):
        raise UserError('nothing to score: give --checkpoint, --baselines=bicubic, or both')

    network = None
    if CHECKPOINT.value:
        model = load_model(CHECKPOINT.value)
        check_architecture(config.model.to_dict(), model.config.model.to_dict(), model.path)
        predictor = network_predictor(build_network(model.config.model, config.compute_dtype), model.params, tiling)
        network = f'{CHECKPOINT.value.rstrip("/")}, step {model.step}, tiling {tiling}', predictor
    folders = {'data_dir': config.data.data_dir, 'tfds_dir': config.data.tfds_dir}
    names = DATASETS.value or config.evaluation.datasets
    output = make_output_folder(OUTPUT.value)
    sources = [open_source(name, SPLIT.value, scale, **folders) for name in names]

    scores = compare(network, baselines, sources, protocols, scale, output, PICTURES.value)
    if CHECKPOINT.value and (metrics := pathlib.Path(CHECKPOINT.value) / 'metrics.jsonl').exists():
        plot_losses(metrics, output / 'losses.png')
    logging.info('written to %s\n\n%s', output, to_markdown(scores))


if __name__ == '__main__':
    command.run(main)
