"""Write docs/results.md: what was run, what it scored, and what was published for the same training data.

    python -m experiments.results --add=sr_x2_nsr     # from runs/same_data/sr_x2_nsr, once it is evaluated
    python -m experiments.results                     # the page anew

A run that is added is kept as experiments/results/NAME.json; what is not there is "not run yet".
"""

import functools
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags
from nsr_jax.evaluation.published import PUBLISHED

from experiments import archives, prove
from experiments.comparisons import COMPARISONS, FOLDER, Comparison, find_comparison
from nsr_jax import command_line, shipped
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.data.benchmark_sets import find_benchmark
from nsr_jax.data.training_sets import find_training_set
from nsr_jax.errors import UserError
from nsr_jax.evaluation.protocols import PROTOCOLS
from nsr_jax.evaluation.scoring import means
from nsr_jax.evaluation.tables import from_json
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import count_multi_adds, count_parameters

RECORDS = pathlib.Path('experiments/results')
PAGE, CURVES = pathlib.Path('docs/results.md'), pathlib.Path('docs/results_curves.png')
NOT_RUN, NOT_KEPT = 'not run yet', 'not kept'
_INTRODUCTION = """# Results

What the networks of this project score, beside what was published for networks that were trained on the same images.
Written by `python -m experiments.results`, never by hand. Rows marked *published* are numbers of papers. Ours are those
of the last step, never of the step that scored best, and of the weights in half precision as they are kept;
"not run yet" means just that, "not kept" that it was not written down. Multi-Adds are counted for an output of
1280x720; FLOPs are twice as many.
"""
_COMMANDS = """
## Commands

`NSR_DATA_DIR` names the folder of image sets; a CPU does as well as a GPU. The seeds of training stand in the table of
runs. Noise to be removed is drawn by NumPy's seed 0 for each image, so scores do not change from call to call. Those of
shipped networks are made again from the weights in the package itself; the last digit printed may differ by one: the
order of sums depends on the machine, and a card may be scored before half precision rounds the weights.
"""
_SHORT_RUNS = """
## Short runs on a CPU: they prove that the configs run, not what they reach

By `python -m experiments.prove`: each command of above with another number of steps, without scores on the way and
with other periods of log and checkpoint; then `eval.py` in float32 on one small dataset at one level. The networks of
x3 and x4 begin with the short run of x2. The loss is the mean over a quarter of the steps, the first and the last.
After so few steps a network may well score below its input (bicubic enlargement, or the degraded image itself), whose
scores stand beside its own. Seconds include Python's start and compilation. `experiments/results/short_runs.json`
holds the commands, both of each run.

"""
_HOW = """
## Running them

```
NSR_DATA_DIR=... python -m experiments.pack --runs=NAME,NAME                 # images, and wheels for Python 3.12
experiments/on_gpu.sh --runs=NAME,NAME --measure=300                         # there: steps a second
experiments/on_gpu.sh --runs=NAME,NAME --steps=N --seconds=500               # there; exit code 75: the same again
python -m experiments.unpack --input=FOLDER                                  # what $OUT held; prints the next command
python eval.py --config=... --checkpoint=runs/same_data/NAME ...             # as it was printed; float32, on a CPU too
python -m experiments.results --add=NAME
```

`PACK` and `OUT` name the packed folder and the one for what comes back; Python there needs JAX with CUDA, Flax, Optax,
Orbax, SciPy, Pillow and safetensors. Pieces of a run end with the very weights of a run that was never stopped.
"""


def make_record(workdir: pathlib.Path) -> dict[str, Any]:
    """All that is reported of a run.

    Args:
        workdir: what `experiments.unpack` made, with the scores of `eval.py` in eval/.

    Raises:
        UserError: something of it is missing, or the scores are of another step.
    """
    try:
        run = json.loads((workdir / archives.RUN).read_text(encoding='utf-8'))
        scores = means(from_json((workdir / 'eval' / 'scores.json').read_text(encoding='utf-8')))
        lines = [json.loads(line) for line in (workdir / archives.METRICS).read_text(encoding='utf-8').splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f'{workdir}: not an evaluated run: {error}') from error
    if not run['finished'] or not scores:
        raise UserError(f'{workdir}: the run is not done, or not scored')
    if wrong := [mean.model for mean in scores if f', step {run["step"]}, ' not in mean.model]:
        raise UserError(f'{workdir / "eval"}: scores of {wrong[0]!r}, but the run ends at step {run["step"]}')
    curve_name = next(name for line in lines for name in line if name.endswith('/psnr'))
    return run | {
        'scores': [{**vars(mean), 'model': run['name']} for mean in scores],
        'curve': {
            'of': curve_name,
            'points': [[line['step'], line[curve_name]] for line in lines if curve_name in line],
        },
    }


def read_records(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """What was added so far, by the run's name."""
    paths = {run.name: folder / f'{run.name}.json' for run in COMPARISONS}
    return {name: json.loads(path.read_text(encoding='utf-8')) for name, path in paths.items() if path.exists()}


def to_page(
    records: Mapping[str, Mapping[str, Any]],
    cards: Sequence[shipped.Card],
    short_runs: Mapping[str, Mapping[str, Any]],
) -> str:
    """The whole page.

    Args:
        records: by the run's name, of `make_record`.
        cards: of the networks that come with the package.
        short_runs: by the run's name, of `experiments.prove`.
    """
    parts = [_INTRODUCTION, '\n## Runs, in the order of their worth\n\n', _runs_table(records, cards)]
    if records:
        parts.append(f'\n![PSNR over the steps]({CURVES.name})\n')
    parts += ['\n## Scores\n', *_score_tables(records, cards), _COMMANDS, '\n### That make the scores again\n\n']
    for run in COMPARISONS:
        if run.name in records:
            again = ' '.join(['python', *run.evaluate_arguments(records[run.name]['step'])])
            parts.append(f'- {run.name}: `{again}`\n')
    parts += [f'- {card.name} (shipped): `{score_command(card)}`\n' for card in cards]
    parts.append('\n### That train\n\n')
    for run in COMPARISONS:
        command_line = (
            records[run.name]['command'] if run.name in records else ' '.join(['python', *run.train_arguments()])
        )
        parts.append(f'- {run.name}: `{command_line}`\n')
    parts += [f'- {card.name} (shipped): `{card.command}`\n' for card in cards]
    return ''.join(parts) + _short_runs_section(short_runs) + _HOW


def score_command(card: shipped.Card) -> str:
    """The command that makes the scores on a card again, from the weights that come with the package."""
    scores = [each for each in card.scores if each['model'].startswith(f'{card.name} (')]
    levels = dict.fromkeys(str(each['degradation']).partition(' ')[2] for each in scores)
    ways = {each['model'] for each in scores}
    tilings = dict.fromkeys(re.search(r'tiling (\w+)', way)[1] for way in sorted(ways))
    eight = [('x8 ensemble' in way) for way in sorted(ways)]
    arguments = [
        re.search(r'--config=\S+', card.command)[0],
        *(['--config.compute_dtype=float32'] if card.config['compute_dtype'] != 'float32' else []),
        f'--shipped={card.name}',
        f'--datasets={",".join(dict.fromkeys(each["dataset"].lower() for each in scores))}',
        f'--protocol={",".join(dict.fromkeys(each["protocol"] for each in scores))}',
        *([f'--levels={",".join(levels)}'] if any(levels) else []),
        f'--tiling={",".join(tilings)}',
        *([f'--ensemble={"1,8" if not all(eight) else "8"}'] if any(eight) else []),
        f'--output=runs/shipped/{card.name}',
    ]
    return ' '.join(['python', 'eval.py', *arguments])


def _short_runs_section(short_runs: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [['run', 'steps', 'L1 at first', 'L1 at last', 'scored on', 'network', 'its input', 'train', 'score', 'on']]
    for record in short_runs.values():
        (first, loss), (last, last_loss) = record['losses']
        given, made = sorted(record['scores'], key=lambda score: 'step' in score['model'])
        where = f'{made["dataset"]}, {made["degradation"]}, `{made["protocol"]}`'
        cells = [f'{score["psnr"]:.2f} / {score["ssim"]:.4f}' for score in (made, given)]
        seconds = [f'{each:.0f} s' for each in record['seconds'].values()]
        losses = f'{loss:.4f} (step {first})', f'{last_loss:.4f} (step {last})'
        rows.append(
            [record['name'], record['steps'], *losses, where, *cells, *seconds, record['environment']['processor']]
        )
    table = _table(rows, '--- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---')
    return _SHORT_RUNS + (table if short_runs else f'{NOT_RUN.capitalize()}.\n')


def _runs_table(records: Mapping[str, Mapping[str, Any]], cards: Sequence[shipped.Card]) -> str:
    rows = [['rank', 'run', 'training images', 'steps x patches', 'seed', 'hardware', 'wall time', 'parameters']]
    rows[0].append('G Multi-Adds')
    for run in COMPARISONS:
        record = records.get(run.name)
        config = ml_collections.ConfigDict(record['config']) if record else run.config()
        seconds = sum(piece['seconds'] for piece in record['pieces']) if record else None
        hardware = ', '.join(dict.fromkeys(piece['hardware'] for piece in record['pieces'])) if record else NOT_RUN
        begin = f', from {run.warm_start}' if run.warm_start else ''
        row = [run.rank, run.name + begin, _images(config), _length(config), config.seed, hardware]
        rows.append([*row, NOT_RUN if seconds is None else f'{seconds / 60:.1f} min', *_size(config)])
    for card in cards:
        config = ml_collections.ConfigDict(card.config)
        row = ['', f'{card.name} (shipped)', _images(config), _length(config), config.seed, card.hardware]
        minutes = re.search(r'[\d.]+ min', card.hardware)
        rows.append([*row, minutes[0] if minutes else NOT_KEPT, *_size(config)])
    return _table(rows, '---: | --- | --- | --- | ---: | --- | ---: | ---: | ---:')


def _images(config: ml_collections.ConfigDict) -> str:
    known = find_training_set(config.data.source)
    return f'{known.name} ({known.images})' if known else config.data.source


def _length(config: ml_collections.ConfigDict) -> str:
    return f'{config.num_steps:,} x {config.batch_size} of {config.data.patch_size}²'


def _size(config: ml_collections.ConfigDict) -> tuple[str, str]:
    return _counted(config.model.to_json())


@functools.cache  # for several runs share a network
def _counted(model: str) -> tuple[str, str]:
    network = build_network(ml_collections.ConfigDict(json.loads(model)))
    return f'{count_parameters(network):,}', f'{count_multi_adds(network).total / 1e9:.1f}'


def _score_tables(records: Mapping[str, Mapping[str, Any]], cards: Sequence[shipped.Card]) -> list[str]:
    """A table for each degradation: our runs and protocols, shipped networks, published ones."""
    parts = []
    groups: dict[str, list[Comparison]] = {}
    for run in COMPARISONS:
        for degradation in _degradations(run):
            groups.setdefault(degradation, []).append(run)
    files = [run.file for run in COMPARISONS]
    for degradation, runs in sorted(groups.items(), key=lambda item: (files.index(item[1][0].file), item[0])):
        known = {card.name: find_training_set(card.config['data']['source']) for card in cards}
        shipped = {card.name: _own_scores(card, degradation) for card in cards}
        datasets = [find_benchmark(name).name for name in runs[0].datasets]
        datasets = list(
            dict.fromkeys([*datasets, *(each['dataset'] for scores in shipped.values() for each in scores)])
        )
        rows = [['network', 'protocol', *datasets]]
        for run in runs:
            scores = [
                each for each in records.get(run.name, {}).get('scores', []) if each['degradation'] == degradation
            ]
            rows += _rows_of(run.name, scores, datasets) or [[run.name, NOT_RUN, *[''] * len(datasets)]]
        for name, scores in shipped.items():
            rows += _rows_of(f'{name} (shipped{"" if known[name] else ", other images"})', scores, datasets)
        for rival in runs[0].rivals:
            found = [row for row in PUBLISHED if (row.model, row.degradation) == (rival, degradation)]
            cells = {row.dataset: f'{row.psnr:.2f}' + (f' / {row.ssim:.4f}' if row.ssim else '') for row in found}
            first = found[0]
            label = f'{rival} (*published*, {first.training})'
            rows.append([label, f'`{first.protocol}`', *(cells.get(name, '') for name in datasets)])
        parts.append(f'\n### {degradation}\n\n{_table(rows, " | ".join(["---", "---", *["---:"] * len(datasets)]))}')
    used = ('sr-y', 'sr-y-uint8', 'sr-luma', 'denoise', 'jpeg-y')
    parts.append(
        '\nPSNR in dB / SSIM (Wang et al., 11x11 Gaussian window, as scikit-image computes it). Protocols:\n\n'
    )
    parts += [f'- `{name}`: {PROTOCOLS[name].description}\n' for name in used]
    parts.append('\nPublished SSIMs of JPEG restoration mix two implementations and are left out.\n')
    return parts


def _own_scores(card: shipped.Card, degradation: str) -> list[dict[str, Any]]:
    """Of the network, not of the baselines beside it."""
    return [each for each in card.scores if each['degradation'] == degradation and each['model'].startswith(card.name)]


def _degradations(run: Comparison) -> list[str]:
    config = run.config()
    if run.file == 'sr':
        return [f'x{config.model.scale}']
    return [f'{"sigma" if run.file == "denoise" else "quality"} {level:g}' for level in config.evaluation.levels]


def _rows_of(name: str, scores: Sequence[Mapping[str, Any]], datasets: Sequence[str]) -> list[list[str]]:
    rows = []
    for protocol in dict.fromkeys(each['protocol'] for each in scores):
        cells = {
            each['dataset']: f'{each["psnr"]:.2f} / {each["ssim"]:.4f}'
            for each in scores
            if each['protocol'] == protocol
        }
        rows.append([name, f'`{protocol}`', *(cells.get(dataset, '') for dataset in datasets)])
    return rows


def _table(rows: Sequence[Sequence[object]], alignment: str) -> str:
    head, *others = (f'| {" | ".join(map(str, row))} |\n' for row in rows)
    return ''.join([head, f'| {alignment} |\n', *others])


def plot_curves(records: Mapping[str, Mapping[str, Any]], path: pathlib.Path) -> None:
    """Draw each run's PSNR over the steps, by the first dataset that it was scored on while it trained."""
    import matplotlib.figure  # not at the top: a page without runs needs none

    figure = matplotlib.figure.Figure(figsize=(8, 5), dpi=100, layout='constrained')
    axis = figure.subplots()
    for name, record in records.items():
        axis.plot(*zip(*record['curve']['points'], strict=True), marker='.', label=f'{name}, {record["curve"]["of"]}')
    axis.set(xlabel='step', ylabel='PSNR (dB)')
    axis.grid(visible=True, alpha=0.3)
    axis.legend(fontsize='small')
    figure.savefig(path)


def main(argv: Sequence[str]) -> None:
    """Add runs where asked to, and write the page."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    for name in flags.FLAGS.add:
        record = make_record(pathlib.Path(FOLDER) / find_comparison(name).name)
        write_atomically(make_output_folder(RECORDS) / f'{name}.json', json.dumps(record, indent=1) + '\n')
    records = read_records(RECORDS)
    if records:
        plot_curves(records, CURVES)
    cards = [shipped.read_card(name) for name in shipped.shipped_names()]
    write_atomically(PAGE, to_page(records, cards, prove.read_records()))


if __name__ == '__main__':
    flags.DEFINE_list('add', [], 'Runs to take from runs/same_data.')
    command_line.run(main)
