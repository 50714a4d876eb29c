"""Score trained networks and baselines on image sets; write tables, pictures and a report.

    python eval.py --checkpoint=runs/x2 --datasets=set5,set14,bsd100 --baselines=bicubic --output=runs/x2/eval --report

Several of each make a sweep; scores of an earlier call with the same --output are not computed again. Networks are
those that their checkpoints or cards describe. The first one's config also gives the task and the defaults of the
flags; a --config replaces it, must not contradict it, and is needed where there is no network.
"""

from collections.abc import Mapping, Sequence

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from configs import base
from configs.listing import list_configs
from nsr_jax import agreement, command_line
from nsr_jax.atomic_files import make_output_folder
from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.cells import Sweep, baseline_contenders, network_contenders, parse_ensembles, run_sweep
from nsr_jax.evaluation.gate_maps import check_gates
from nsr_jax.evaluation.largest_gains import show
from nsr_jax.evaluation.scoring import check_images
from nsr_jax.evaluation.tables import to_markdown
from nsr_jax.inference.tiling import Tiling
from nsr_jax.metrics import find_metrics
from nsr_jax.models.build import build_network, check_same_network
from nsr_jax.paths import local_path
from nsr_jax.shipped import load_named
from nsr_jax.tasks import find_degradations, find_protocols, find_task
from nsr_jax.trained import WHICH, LoadedModel

CONFIG = config_flags.DEFINE_config_file('config', help_string='A file in configs/, with its argument.')
CHECKPOINT = flags.DEFINE_list('checkpoint', [], 'Workdirs, checkpoint folders or folders from a model hub.')
WHICH_ONE = flags.DEFINE_enum('which', 'best', WHICH, "Of each workdir's checkpoints to take.")
SHIPPED = flags.DEFINE_list('shipped', [], 'Networks that come with the package, by name: sr_x2, denoise_gray.')
OUTPUT = flags.DEFINE_string('output', None, 'Folder for scores.{json,csv,md}, pictures/ and index.html.')
DATASETS = flags.DEFINE_list('datasets', None, 'Names or folders; default: config.evaluation.datasets.')
SPLIT = flags.DEFINE_string('split', '', "Split of the datasets; '' = each one's own for evaluation.")
BASELINES = flags.DEFINE_list('baselines', [], 'Models without a checkpoint to score, too: bicubic, degraded, bm3d.')
PROTOCOL = flags.DEFINE_list('protocol', None, 'One or more protocols; default: config.evaluation.protocol.')
METRICS = flags.DEFINE_list('metrics', None, 'psnr, ssim, ms_ssim, mae, …; default: config.evaluation.metrics.')
LEVELS = flags.DEFINE_list('levels', None, 'Sigmas or JPEG qualities; default: config.evaluation.levels.')
TILING = flags.DEFINE_list('tiling', None, 'whole, authors or feathered; default: config.evaluation.tiling.')
TILE = flags.DEFINE_integer('tile', None, 'Side of a feathered tile; default: config.evaluation.tile.', lower_bound=1)
OVERLAP = flags.DEFINE_integer('overlap', None, 'Pixels that tiles share; default: config.evaluation.overlap.')
DATA_DIR = flags.DEFINE_string('data_dir', None, 'Folder of image sets; default: config.data.data_dir, $NSR_DATA_DIR.')
TFDS_DIR = flags.DEFINE_string('tfds_dir', None, 'Folder of prepared datasets; default: config.data.tfds_dir.')
ENSEMBLE = flags.DEFINE_list('ensemble', ['1'], 'Over how many orientations predictions are averaged: 1, 8 or both.')
PICTURES = flags.DEFINE_integer('pictures', 1, 'Pictures of each dataset, of the largest gains.', lower_bound=0)
GATES = flags.DEFINE_list('gate_maps', [], 'Gates of the first network to map over each picture: block_00/conv_1.')
REPORT = flags.DEFINE_bool('report', False, 'Write index.html, an offline page of tables, pictures and curves.')
flags.mark_flag_as_required('output')


def main(argv: Sequence[str]) -> None:
    """Check the flags, the config and all images, then evaluate."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    with agreement.agreed():
        if not (CHECKPOINT.value or SHIPPED.value or BASELINES.value):
            raise UserError('nothing to score: give --checkpoint, --shipped=sr_x2, --baselines=bicubic, or several')
        if CONFIG.value is not None:
            command_line.check_config(base.check, CONFIG.value)
        models = load_named(CHECKPOINT.value, SHIPPED.value, WHICH_ONE.value)
        config = CONFIG.value if CONFIG.value is not None else _config_of(models)
        asked, output = config.evaluation, local_path(OUTPUT.value or '', '--output')
        protocols = find_protocols(config.task, PROTOCOL.value or [asked.protocol])
        metrics = find_metrics(METRICS.value or asked.metrics.split(','))
        tile = asked.tile if TILE.value is None else TILE.value
        overlap = asked.overlap if OVERLAP.value is None else OVERLAP.value
        tilings = [Tiling(name, tile, overlap) for name in TILING.value or [asked.tiling]]
        degradations = find_degradations(config.task, config.model.scale, LEVELS.value or asked.levels)
        baselines = baseline_contenders(BASELINES.value, degradations)
        check_same_network(config.model, {name: model.config.model for name, model in models.items()})
        ensembles, datasets = parse_ensembles(ENSEMBLE.value), DATASETS.value or asked.datasets.split(',')
        data_dir = config.data.data_dir if DATA_DIR.value is None else DATA_DIR.value
        tfds_dir = config.data.tfds_dir if TFDS_DIR.value is None else TFDS_DIR.value
        inputs = find_task(config.task).inputs
        sources = [
            open_source(name, SPLIT.value, config.model.scale, inputs=inputs, data_dir=data_dir, tfds_dir=tfds_dir)
            for name in datasets
        ]
        channels = {model.config.model.channels for model in models.values()}
        check_images(sources, protocols, degradations[0], metrics, channels)
        networks, output = [], make_output_folder(output)
        for name, model in models.items():
            network = build_network(model.config.model, config.compute_dtype)
            if GATES.value:
                check_gates(network, GATES.value)
            networks += network_contenders(name, network, model.params, model.step, tilings, ensembles, model.label)
        sweep = Sweep([*baselines, *networks], sources, protocols, degradations, metrics)
    scores = run_sweep(sweep, output)
    show(
        sweep,
        scores,
        output,
        workdirs=CHECKPOINT.value,
        pictures=PICTURES.value,
        gates=GATES.value,
        report=REPORT.value,
    )
    logging.info('written to %s\n\n%s', output, to_markdown(scores))


def _config_of(models: Mapping[str, LoadedModel]) -> ConfigDict:
    """The config of the first network, with defaults for fields that its library did not know yet.

    The folders of its training are left out: they may be those of another machine.
    """
    if not models:
        raise UserError(f'--baselines alone need a config: --config={" or --config=".join(list_configs())}')
    config = base.complete(next(iter(models.values())).config)
    config.data.update(data_dir='', tfds_dir='')
    command_line.check_config(base.check, config)
    return config.lock()


if __name__ == '__main__':
    command_line.run(main)
