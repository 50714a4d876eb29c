"""What each tiling costs in decibels and in seconds, for trained networks on real images.

    python -m benchmarks.tiling --checkpoints=runs/gray25 --datasets=set12 --levels=25 --tiles=48,96 --overlaps=8,16 \
        --output=tiling.json

Of each dataset the images count that are large enough for the authors' rule. Every image is restored once by each
tiling to be scored, which compiles what there is to compile; then all are restored again `--repeats` times, the
tilings taking turns image by image, so that what else the machine does falls on all of them. Prints a Markdown table.
"""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags, logging

from nsr_jax import command_line
from nsr_jax.atomic_files import write_atomically
from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.protocols import score
from nsr_jax.inference.prediction import predict
from nsr_jax.inference.tiling import SMALLEST_SIDE, Tiling
from nsr_jax.models.build import build_network
from nsr_jax.tasks import find_degradations, find_protocols
from nsr_jax.trained import load_model

CHECKPOINTS = flags.DEFINE_list('checkpoints', None, 'Workdirs, or folders of one checkpoint each.')
DATASETS = flags.DEFINE_list('datasets', None, 'Names or folders.')
PROTOCOL = flags.DEFINE_string('protocol', '', "How to score; '' = what each checkpoint's config says.")
LEVELS = flags.DEFINE_list('levels', [], 'Sigmas or JPEG qualities; not for super-resolution.')
TILES = flags.DEFINE_list('tiles', ['48', '64', '96', '128', '192'], 'Sides of feathered tiles, in input pixels.')
OVERLAPS = flags.DEFINE_list('overlaps', ['8', '16', '32'], 'Overlaps; those above half a tile are passed over.')
IMAGES = flags.DEFINE_integer('images', 0, 'The first so many images of each dataset; 0 = all.', lower_bound=0)
REPEATS = flags.DEFINE_integer('repeats', 3, 'Timed passes over the images.', lower_bound=1)
TILE_BATCH = flags.DEFINE_integer('tile_batch', None, 'Tiles that run at once; default: what predict does.')
DATA_DIR = flags.DEFINE_string('data_dir', '', "Folder of the image sets; '' = $NSR_DATA_DIR.")
TFDS_DIR = flags.DEFINE_string('tfds_dir', '', "Where prepared datasets are kept; '' = TFDS's default.")
OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write the numbers to.')
flags.mark_flags_as_required(['checkpoints', 'datasets'])


def parse_tilings(tiles: Sequence[str], overlaps: Sequence[str]) -> list[Tiling]:
    """Whole, authors', and feathered of each size and overlap that fit one another.

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
    network, params, images: Sequence[np.ndarray], truths: Sequence[np.ndarray], protocol, tilings: Sequence[Tiling]
) -> list[dict[str, object]]:
    """Scores and times of each tiling over all images: one record each."""

    def restore(tiling: Tiling, image: np.ndarray) -> tuple[np.ndarray, float]:
        start = time.perf_counter()
        prediction = predict(network, params, image, tiling=tiling, tile_batch=TILE_BATCH.value)
        return prediction, time.perf_counter() - start

    first = dict.fromkeys(tilings, 0.0)
    scores: dict[Tiling, list[tuple[float, float]]] = {tiling: [] for tiling in tilings}
    for tiling in tilings:
        for image, truth in zip(images, truths, strict=True):
            prediction, seconds = restore(tiling, image)
            first[tiling] += seconds
            scores[tiling].append(score(protocol, prediction, truth, network.scale))
    passes: dict[Tiling, list[float]] = {tiling: [] for tiling in tilings}
    for number in range(REPEATS.value):
        spent = dict.fromkeys(tilings, 0.0)
        for image in images:
            for tiling in tilings if number % 2 == 0 else reversed(tilings):
                spent[tiling] += restore(tiling, image)[1]
        for tiling in tilings:
            passes[tiling].append(spent[tiling])
    records = []
    for tiling in tilings:
        psnr, ssim = np.mean(scores[tiling], axis=0)
        records.append(
            {
                'tiling': str(tiling),
                'images': len(images),
                'megapixels': sum(image.shape[0] * image.shape[1] for image in images) / 1e6,
                'psnr': float(psnr),
                'ssim': float(ssim),
                'first_seconds': first[tiling],
                'seconds': passes[tiling],
            }
        )
    return records


def to_table(records: Sequence[dict]) -> str:
    """A Markdown table for each checkpoint and dataset."""
    lines = []
    for (checkpoint, dataset), group in itertools.groupby(records, lambda each: (each['checkpoint'], each['dataset'])):
        group = list(group)
        whole = group[0]
        lines += [
            f'{checkpoint} on {dataset}: {whole["images"]} images, {whole["megapixels"]:.2f} megapixels of input, '
            f'{whole["protocol"]}, {whole["device"]}',
            '',
            '| tiling | PSNR (dB) | against whole | SSIM | first pass (s) | later passes, median (s) |',
            '| --- | --- | --- | --- | --- | --- |',
        ]
        lines += [
            f'| {each["tiling"]} | {each["psnr"]:.3f} | {each["psnr"] - whole["psnr"]:+.3f} | {each["ssim"]:.4f} '
            f'| {each["first_seconds"]:.2f} | {statistics.median(each["seconds"]):.2f} |'
            for each in group
        ]
        lines.append('')
    return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
    """Measure all checkpoints on all datasets."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    tilings = parse_tilings(TILES.value, OVERLAPS.value)
    records = []
    for checkpoint in CHECKPOINTS.value:
        model = load_model(checkpoint)
        network = build_network(model.config.model)
        params = jax.device_put(model.params)
        (protocol,) = find_protocols([PROTOCOL.value or model.config.evaluation.protocol])
        degradations = find_degradations(protocol.task, network.scale, LEVELS.value)
        for dataset, degradation in itertools.product(DATASETS.value, degradations):
            source = open_source(dataset, '', network.scale, data_dir=DATA_DIR.value, tfds_dir=TFDS_DIR.value)
            images, truths = [], []
            for example in itertools.islice(source, IMAGES.value or None):
                image = protocol.network_input(source.name, example, degradation.level)
                if min(image.shape[:2]) >= SMALLEST_SIDE:
                    images.append(image)
                    truths.append(example.hr)
            if not images:
                raise UserError(f'{dataset}: no image has {SMALLEST_SIDE} input pixels in both sides')
            logging.info('%s on %s: %d images of %d', checkpoint, source.name, len(images), len(source))
            shared = {
                'checkpoint': checkpoint,
                'dataset': f'{source.name}, {degradation}',
                'protocol': protocol.name,
                'device': jax.devices()[0].device_kind,
            }
            records += [shared | each for each in measure(network, params, images, truths, protocol, tilings)]
            if OUTPUT.value:
                write_atomically(OUTPUT.value, json.dumps(records, indent=1))
    sys.stdout.write(to_table(records) + '\n')


if __name__ == '__main__':
    command_line.run(main)
