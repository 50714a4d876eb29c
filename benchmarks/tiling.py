"""What each tiling costs in decibels and seconds, with trained networks on real images.

    python -m benchmarks.tiling --checkpoints=runs/gray25 --datasets=set12 --levels=25 --tiles=48,96 --overlaps=8,16 \\
        --output=tiling.json

Only images that are large enough for the authors' rule are used. The tilings take turns in restoring all of them: twice
to be compiled and scored, then `--rounds` times to be timed.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags, logging

from benchmarks import report
from benchmarks.timing import Candidate, take_turns
from nsr_jax import command_line
from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.protocols import score
from nsr_jax.inference.prediction import predict
from nsr_jax.inference.tiling import SMALLEST_SIDE, Tiling
from nsr_jax.metrics import find_metrics
from nsr_jax.models.build import Network, build_network
from nsr_jax.tasks import find_degradations, find_protocols, find_task
from nsr_jax.tasks.task import Protocol
from nsr_jax.trained import load_model

METRICS = find_metrics(['psnr', 'ssim'])
COLUMNS = {
    'tiling': lambda row: row['candidate'],
    'PSNR (dB)': lambda row: f'{row["psnr"]:.3f}',
    'against whole': lambda row: f'{row["psnr_gain"]:+.3f}',
    'SSIM': lambda row: f'{row["ssim"]:.4f}',
    'compile (s)': lambda row: f'{row["compile_seconds"]:.2f}',
    'all images, median (s)': lambda row: f'{row["time"]["median"]:.2f}',
}


def parse_tilings(tiles: Sequence[str], overlaps: Sequence[str]) -> list[Tiling]:
    """The tilings to compare: whole, authors', and feathered with each size and each overlap that fits it.

    Raises:
        UserError: a size is not a number.
    """
    try:
        pairs = [(int(tile), int(overlap)) for tile, overlap in itertools.product(tiles, overlaps)]
    except ValueError as error:
        raise UserError(f'--tiles and --overlaps take whole numbers: {error}') from error
    feathered = [Tiling('feathered', tile, overlap) for tile, overlap in pairs if overlap <= tile // 2]
    return [Tiling('whole'), Tiling('authors'), *feathered]


def measure(
    network: Network, params: Any, examples: Sequence[tuple[np.ndarray, np.ndarray]], protocol: Protocol,
    tilings: Sequence[Tiling], options: flags.FlagValues,
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of a table: scores and times of each tiling over all images (input, truth).

    Raises:
        UserError: a tiling fails.
    """
    scores: dict[str, list[dict[str, float]]] = {}

    def candidate(tiling: Tiling) -> Candidate:
        def restore(images: Sequence[np.ndarray]) -> list[np.ndarray]:
            return [predict(network, params, image, tiling=tiling, tile_batch=options.tile_batch) for image in images]

        def keep_scores(predictions: Sequence[np.ndarray]) -> float:
            pairs = zip(predictions, examples, strict=True)
            scores[str(tiling)] = [
                score(protocol, restored, truth, network.scale, METRICS) for restored, (_, truth) in pairs
            ]
            return 0.0

        images = [image for image, _ in examples]
        return Candidate(
            str(tiling), 'tiling', prepare=lambda seed: images, run=restore, wait=lambda _: None, check=keep_scores
        )

    measurements = take_turns([candidate(tiling) for tiling in tilings], options.rounds)
    if failures := [f'{each.candidate.name}: {each.failure}' for each in measurements if each.failure]:
        raise UserError(failures[0])
    rows = report.section('', measurements, measurements[0], None)['rows']
    for row in rows:
        for name in METRICS:
            row[name] = float(np.mean([each[name] for each in scores[row['candidate']]]))
        row['psnr_gain'] = row['psnr'] - rows[0]['psnr']
    return rows


def main(argv: Sequence[str]) -> int:
    """Measure all checkpoints on all datasets."""
    options = flags.FLAGS
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    tilings = parse_tilings(options.tiles, options.overlaps)
    written = report.Report(options.output, 'float32')
    for checkpoint in options.checkpoints:
        model = load_model(checkpoint)
        network, params = build_network(model.config.model), jax.device_put(model.params)
        task = model.config.task
        (protocol,) = find_protocols(task, [options.protocol or model.config.evaluation.protocol])
        degradations = find_degradations(task, network.scale, options.levels)
        for dataset, degradation in itertools.product(options.datasets, degradations):
            source = open_source(
                dataset,
                '',
                network.scale,
                data_dir=options.data_dir,
                tfds_dir=options.tfds_dir,
                inputs=find_task(task).inputs,
            )
            examples = []
            for example in itertools.islice(source, options.images or None):
                image = protocol.network_input(example, degradation.level)
                if min(image.shape[:2]) >= SMALLEST_SIDE:
                    examples.append((image, example.hr))
            if not examples:
                raise UserError(f'{dataset}: no image has {SMALLEST_SIDE} input pixels in both sides')
            logging.info('%s on %s: %d images of %d', checkpoint, source.name, len(examples), len(source))
            megapixels = sum(image.shape[0] * image.shape[1] for image, _ in examples) / 1e6
            title = (
                f'{checkpoint} on {source.name}, {degradation}: {len(examples)} images, {megapixels:.2f} megapixels '
                f'of input, {protocol.name}'
            )
            rows = measure(network, params, examples, protocol, tilings, options)
            written.add({'title': title, 'rows': rows}, COLUMNS)
    return written.exit_code


if __name__ == '__main__':
    flags.DEFINE_list('checkpoints', None, 'Workdirs, or folders of one checkpoint each.')
    flags.DEFINE_list('datasets', None, 'Names or folders.')
    flags.DEFINE_string('protocol', '', "How to score; '' = what each checkpoint's config says.")
    flags.DEFINE_list('levels', [], 'Sigmas or JPEG qualities; not for super-resolution.')
    flags.DEFINE_list('tiles', ['48', '64', '96', '128', '192'], 'Sides of feathered tiles, in input pixels.')
    flags.DEFINE_list('overlaps', ['8', '16', '32'], 'Overlaps; those above half a tile are skipped.')
    flags.DEFINE_integer('images', 0, 'How many of the first images of each dataset are used; 0 = all.', lower_bound=0)
    flags.DEFINE_integer('rounds', 3, 'How often each tiling is timed.', lower_bound=3)
    flags.DEFINE_integer('tile_batch', None, 'Tiles that are restored at once; default: as in predict.')
    flags.DEFINE_string('data_dir', '', "Folder of the image sets; '' = $NSR_DATA_DIR.")
    flags.DEFINE_string('tfds_dir', '', "Where prepared datasets are kept; '' = TFDS's default.")
    flags.DEFINE_string('output', None, 'JSON file for every time; the tables are written beside it as .md.')
    flags.mark_flags_as_required(['checkpoints', 'datasets'])
    command_line.run(main)
