"""Generate docs/results.md: scores beside published ones, their commands, and the runs that are not done yet."""

import functools
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from experiments.runs import RUNS, Run
from nsr_jax import markdown, shipped
from nsr_jax.atomic_files import write_atomically
from nsr_jax.data.benchmark_sets import find_benchmark
from nsr_jax.data.training_sets import find_training_set
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import count_multi_adds, count_parameters
from nsr_jax.tasks import TASKS, all_protocols, find_degradations

PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'results.md'
GATES = pathlib.Path(__file__).parent / 'shipped_gates.json'
MARK = '<!-- All below is written by python -m experiments.same_data, never by hand. -->\n'
WORKDIR = '../same_data'  # in the commands on the page

Record = Mapping[str, Any]  # as same_data.complete returns it


def write(records: Mapping[str, Record], path: pathlib.Path = PAGE) -> None:
    """Replace the part of the page below `MARK`; `records` are those of the finished runs, by name."""
    cards = [shipped.read_card(name) for name in shipped.shipped_names()]
    above = path.read_text(encoding='utf-8').partition(MARK)[0]
    write_atomically(path, above + MARK + generate(records, cards))


def generate(records: Mapping[str, Record], cards: Sequence[shipped.Card]) -> str:
    """The page below `MARK`, made from these records and the cards of the networks in the package."""
    missing = ', '.join(name for name in RUNS if name not in records)
    parts = [
        '\n## Scores\n',
        *_score_tables(records, cards),
        '\n## Networks\n\n',
        _network_table(records, cards),
        '\n## Gates\n\n',
        _gate_table(cards, read_gates()),
        '\n## The commands of these scores\n\n',
        *(_commands(RUNS[name], records[name]) for name in RUNS if name in records),
        *(f'- {card.name} (shipped): `{card.command}`, then `{score_command(card)}`\n' for card in cards),
    ]
    return ''.join([*parts, f'\n## Not run yet\n\n{missing}\n' if missing else ''])


def read_gates() -> dict[str, Record]:
    """What the gates of networks in the package are worth, by name, as experiments/shipped_gates.py measured it."""
    return json.loads(GATES.read_text(encoding='utf-8')) if GATES.exists() else {}


def _gate_table(cards: Sequence[shipped.Card], records: Mapping[str, Record]) -> str:
    """A row for each network whose weights are those that were measured."""
    rows = []
    for card in cards:
        found = records.get(card.name, {})
        if found.get('sha256') != card.sha256:
            continue
        model = card.config['model']
        gate = f'{model.get("gate_pooling", "mean")}, logits x {model.get("gate_scale", 1.0):g}'
        most = math.log2(model['groups'])
        lost = [f'{found["own"] - found[gate]:.2f}' for gate in ('uniform', 'hard')]
        selective = f'{found["entropy"]:.2f} of {most:g}', f'{found["deviation"]:.3f}'
        rows.append([f'{card.name} (shipped)', gate, f'`{found["score"]}`', f'{found["own"]:.2f}', *selective, *lost])
    head = ['network', 'input of the gates', 'score', 'dB', 'entropy, bits', 'deviation of gamma']
    return (
        'On the training images that were held out: how selective the gates are, and what is lost if each is replaced '
        'by a uniform one or by its largest group alone (`python -m experiments.shipped_gates`). '
        'Networks that are not in the table were not measured. [Studies](studies.md) tells what makes gates choose.\n\n'
    ) + markdown.table([*head, 'lost by uniform gates, dB', 'by hard ones, dB'], rows, left=3)


def _commands(run: Run, record: Record) -> str:
    steps = record['config']['num_steps']
    steps = None if steps == run.config().num_steps else steps
    train, score = (' '.join(['python', *make(WORKDIR, steps)]) for make in (run.train_arguments, run.score_arguments))
    return f'- {run.name}: `{train}`, then `{score}`\n'


def score_command(card: shipped.Card) -> str:
    """The command that reproduces the scores on a card from the weights that come with the package."""
    scores = _own_scores(card)
    levels = dict.fromkeys(str(each['degradation']).partition(' ')[2] for each in scores)
    tilings = dict.fromkeys(each['tiling'].partition(' ')[0] for each in scores)
    ensembles = sorted({each['ensemble'] for each in scores})
    arguments = [
        re.search(r'--config=\S+', card.command)[0],
        *(['--config.compute_dtype=float32'] if card.config['compute_dtype'] != 'float32' else []),
        f'--shipped={card.name}',
        f'--datasets={",".join(dict.fromkeys(each["dataset"].lower() for each in scores))}',
        f'--protocol={",".join(dict.fromkeys(each["protocol"] for each in scores))}',
        *([f'--levels={",".join(levels)}'] if any(levels) else []),
        f'--tiling={",".join(tilings)}',
        *([f'--ensemble={",".join(map(str, ensembles))}'] if ensembles != [1] else []),
        f'--output=runs/shipped/{card.name}',
    ]
    return ' '.join(['python', 'eval.py', *arguments])


def _own_scores(card: shipped.Card) -> list[Record]:
    """The scores on a card without those of the baselines."""
    return [score for score in card.scores if 'tiling' in score]


def _network_table(records: Mapping[str, Record], cards: Sequence[shipped.Card]) -> str:
    rows = []
    for name in RUNS:
        if name in records:
            config, pieces = ml_collections.ConfigDict(records[name]['config']), records[name]['pieces']
            begin = f', from {RUNS[name].warm_start}' if RUNS[name].warm_start else ''
            hardware = ', '.join(dict.fromkeys(piece['hardware'] for piece in pieces))
            minutes = sum(piece['seconds'] for piece in pieces) / 60
            rows.append([name + begin, *_training(config), f'{hardware}, {minutes:.1f} min', *_size(config)])
    for card in cards:
        config = ml_collections.ConfigDict(card.config)
        rows.append([f'{card.name} (shipped)', *_training(config), card.hardware, *_size(config)])
    head = ['network', 'training images', 'steps x patches', 'seed', 'hardware', 'parameters', 'G Multi-Adds']
    return markdown.table(head, rows, left=5)


def _training(config: ml_collections.ConfigDict) -> tuple[str, str, int]:
    known = find_training_set(config.data.source)
    images = f'{known.name} ({known.images})' if known else config.data.source
    return images, f'{config.num_steps:,} x {config.batch_size} of {config.data.patch_size}²', config.seed


def _size(config: ml_collections.ConfigDict) -> tuple[str, str]:
    return _counted(config.model.to_json())


@functools.cache  # several runs share a network
def _counted(model: str) -> tuple[str, str]:
    network = build_network(ml_collections.ConfigDict(json.loads(model)))
    return f'{count_parameters(network):,}', f'{count_multi_adds(network).total / 1e9:.1f}'


def _score_tables(records: Mapping[str, Record], cards: Sequence[shipped.Card]) -> list[str]:
    """A table for each degradation with our runs, shipped networks and published ones; then the protocols in words."""
    groups: dict[str, list[Run]] = {}
    for run in RUNS.values():
        config = run.config()
        for each in find_degradations(config.task, config.model.scale, config.evaluation.levels):
            groups.setdefault(str(each), []).append(run)
    tasks = list(dict.fromkeys(run.file for run in RUNS.values()))
    parts, used = [], {}
    for degradation, runs in sorted(groups.items(), key=lambda item: (tasks.index(item[1][0].file), item[0])):
        scored = {run.name: records[run.name]['scores'] for run in runs if run.name in records}
        for card in cards:
            images = '' if find_training_set(card.config['data']['source']) else ', other images'
            scored[f'{card.name} (shipped{images})'] = _own_scores(card)
        cells: dict[tuple[str, str], dict[str, str]] = {}
        for name, scores in scored.items():
            for score in (score for score in scores if score['degradation'] == degradation):
                row = cells.setdefault((name, score['protocol']), {})
                row[score['dataset']] = f'{score["psnr"]:.2f} / {score["ssim"]:.4f}'
        for row in (row for task in TASKS.values() for row in task.published):
            if row.degradation == degradation and row.model in runs[0].rivals:
                label = f'{row.model} (*published*, {row.training})'
                text = f'{row.psnr:.2f}' + (f' / {row.ssim:.4f}' if row.ssim else '')
                cells.setdefault((label, row.protocol), {})[row.dataset] = text
        datasets = [find_benchmark(name).name for name in runs[0].datasets]
        ours = [dataset for (name, _), row in cells.items() if name in scored for dataset in row]
        datasets = list(dict.fromkeys([*datasets, *ours]))
        rows = [
            [name, f'`{protocol}`', *(row.get(each, '') for each in datasets)]
            for (name, protocol), row in cells.items()
        ]
        used |= dict.fromkeys(protocol for _, protocol in cells)
        parts.append(f'\n### {degradation}\n\n{markdown.table(["network", "protocol", *datasets], rows, left=2)}')
    parts.append(
        '\nPSNR in dB / SSIM (Wang et al., 11x11 Gaussian window, as scikit-image computes it). Protocols:\n\n'
    )
    parts += [f'- `{name}`: {all_protocols()[name].description}\n' for name in used]
    return [*parts, '\nPublished SSIMs of JPEG restoration mix two implementations and are left out.\n']
