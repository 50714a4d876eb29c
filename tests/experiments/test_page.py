"""The page of results: nothing on it that was not run, and nothing missing that was."""

import dataclasses
import importlib
import json

import ml_collections
import pytest

from experiments import page, same_data
from experiments.runs import RUNS
from nsr_jax import shipped
from nsr_jax.data.benchmark_sets import find_benchmark
from nsr_jax.models.build import check_same_network
from nsr_jax.tasks import find_degradations, find_protocols


@pytest.fixture(scope='module')
def cards():
    return [shipped.read_card(name) for name in shipped.shipped_names()]


def test_the_page_is_what_its_command_writes(tmp_path):
    copy = tmp_path / 'results.md'
    copy.write_bytes(page.PAGE.read_bytes())
    page.write(same_data.read_records(), copy)
    assert copy.read_text(encoding='utf-8') == page.PAGE.read_text(encoding='utf-8'), (
        'run python -m experiments.same_data'
    )


def test_what_gates_are_worth_is_of_the_weights_in_the_package(cards):
    records = page.read_gates()
    known = {card.name: card.sha256 for card in cards}
    assert records and {name: record['sha256'] for name, record in records.items()}.items() <= known.items(), (
        'run python -m experiments.shipped_gates'
    )
    (row,) = [line for line in page.generate({}, cards).splitlines() if line.startswith('| sr_x2 (shipped) | rms')]
    found = records['sr_x2']
    assert f'| {found["own"]:.2f} | {found["entropy"]:.2f} of 2 |' in row
    assert row.endswith(f'| {found["own"] - found["uniform"]:.2f} | {found["own"] - found["hard"]:.2f} |')


def test_gates_of_other_weights_are_not_shown(cards):
    card = next(card for card in cards if card.name == 'sr_x2')
    assert '| sr_x2 (shipped) | rms' not in page.generate({}, [dataclasses.replace(card, sha256='0' * 64)])


def test_what_stands_above_stays(tmp_path):
    copy = tmp_path / 'results.md'
    copy.write_text(f'mine\n{page.MARK}old\n')
    page.write({}, copy)
    text = copy.read_text(encoding='utf-8')
    assert text.startswith(f'mine\n{page.MARK}\n## Scores')
    assert 'old\n' not in text


def test_shipped_and_published_scores_are_there(cards):
    text = page.generate({}, cards)
    assert '| DRRN (*published*, 91 + 200 images) | `sr-luma` | 37.74 | 33.23 | 32.05 |' in text
    for card in cards:
        for score in card.scores:
            if score['model'] != 'bicubic':
                assert f'{score["psnr"]:.2f} / {score["ssim"]:.4f}' in text


def test_a_run_is_shown_once_it_is_scored(cards):
    score = {'dataset': 'Set12', 'degradation': 'sigma 25', 'model': 'denoise_25', 'protocol': 'denoise'}
    record = {
        'config': json.loads(RUNS['denoise_25'].config(30).to_json()),
        'scores': [score | {'psnr': 29.5, 'ssim': 0.75, 'images': 12}],
        'pieces': [{'seconds': 60, 'hardware': 'a machine'}, {'seconds': 90, 'hardware': 'a machine'}],
    }
    before, after = (page.generate(records, cards) for records in ({}, {'denoise_25': record}))
    for line in (
        '| denoise_25 | `denoise` | 29.50 / 0.7500 |  |  |',
        '| denoise_25 | train400 (400) | 30 x 32 of 48² | 0 | a machine, 2.5 min | 593,538 | 544.1 |',
    ):
        assert line in after and line not in before
    commands = [' '.join(['python', *make(page.WORKDIR, 30)]) for make in
                (RUNS['denoise_25'].train_arguments, RUNS['denoise_25'].score_arguments)]  # fmt: skip
    assert f'- denoise_25: `{commands[0]}`, then `{commands[1]}`' in after
    missing = [text.rpartition('## Not run yet\n\n')[2].strip().split(', ') for text in (before, after)]
    assert missing == [list(RUNS), [name for name in RUNS if name != 'denoise_25']]


def test_the_command_of_a_score_says_all_that_it_depends_on(cards):
    gray = next(card for card in cards if card.name == 'denoise_gray')
    scores = [gray.scores[0] | {'tiling': 'whole', 'ensemble': number} for number in (8, 1)]
    other = dataclasses.replace(
        gray, config=dict(gray.config) | {'compute_dtype': 'bfloat16'}, scores=scores,
        command='python train.py --config=configs/same_data/denoise.py:sigma=25 --workdir=runs/x',
    )  # fmt: skip
    assert page.score_command(other) == (
        'python eval.py --config=configs/same_data/denoise.py:sigma=25 --config.compute_dtype=float32 '
        '--shipped=denoise_gray --datasets=set12 --protocol=denoise --levels=15 --tiling=whole --ensemble=1,8 '
        '--output=runs/shipped/denoise_gray'
    )


def test_score_commands_can_be_run(cards):
    """Their configs are there and describe the shipped networks; datasets, levels and protocols are known."""
    for card in cards:
        given = dict(word[2:].split('=', 1) for word in page.score_command(card).split()[2:])
        path, _, argument = given['config'].partition(':')
        config = importlib.import_module(path.removesuffix('.py').replace('/', '.')).get_config(argument)
        check_same_network(config.model, {card.name: ml_collections.ConfigDict(card.config['model'])})
        (_protocol,) = find_protocols(config.task, given['protocol'].split(','))
        levels = given['levels'].split(',') if 'levels' in given else ()
        degradations = find_degradations(config.task, config.model.scale, levels)
        assert {str(each) for each in degradations} == {score['degradation'] for score in card.scores}
        assert {find_benchmark(name).name for name in given['datasets'].split(',')} == {
            score['dataset'] for score in card.scores
        }
