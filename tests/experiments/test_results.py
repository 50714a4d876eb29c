"""The page of results: nothing on it that was not run, and nothing missing that was."""

import dataclasses
import importlib
import json
import pathlib

import pytest
from nsr_jax.evaluation.degradation import find_degradations

from experiments import archives, prove, results
from experiments.comparisons import find_comparison
from nsr_jax import shipped
from nsr_jax.data.benchmark_sets import find_benchmark
from nsr_jax.errors import UserError
from nsr_jax.evaluation.largest_gains import check_architectures
from nsr_jax.evaluation.protocols import find_protocols
from nsr_jax.evaluation.scoring import Score
from nsr_jax.evaluation.tables import to_json

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def cards():
    return [shipped.read_card(name) for name in shipped.shipped_names()]


def test_the_page_is_what_its_command_writes(cards):
    records = results.read_records(ROOT / results.RECORDS)
    short_runs = prove.read_records(ROOT / prove.RECORDS)
    page = results.to_page(records, cards, short_runs)
    assert (ROOT / results.PAGE).read_text(encoding='utf-8') == page, 'run python -m experiments.results'
    stems = {path.stem for path in (ROOT / results.RECORDS).glob('*.json')}
    assert stems - {prove.RECORDS.stem} == records.keys()


def test_without_records_every_run_says_so_and_shipped_scores_are_the_cards(cards):
    page = results.to_page({}, cards, {})
    lines = page.splitlines()
    assert sum('| not run yet | not run yet |' in line for line in lines) == 18
    assert '| sr_x2_nsr | not run yet |  |  |  |' in lines
    assert '| DRRN (*published*, 91 + 200 images) | `sr-luma` | 37.74 | 33.23 | 32.05 |' in lines
    assert '| ARCNN (*published*, BSDS500, 400 images) | `jpeg-y` | 33.63 | 33.34 |' in lines
    for card in cards:
        for score in card.scores:
            if score['model'].startswith(card.name):
                assert f'{score["psnr"]:.2f} / {score["ssim"]:.4f}' in page
    assert '![' not in page
    assert 'they prove that the configs run, not what they reach' in page
    assert page.count('Not run yet.') == 1


def test_each_shipped_score_has_the_command_that_makes_it_again(cards):
    lines = results.to_page({}, cards, {}).splitlines()
    gray = next(card for card in cards if card.name == 'denoise_gray')
    expected = (
        'python eval.py --config=configs/shipped.py:model=denoise_gray --shipped=denoise_gray --datasets=set12,bsd68 '
        '--protocol=denoise --levels=15,25,50 --tiling=feathered --output=runs/shipped/denoise_gray'
    )
    assert results.score_command(gray) == expected
    for card in cards:
        assert f'- {card.name} (shipped): `{results.score_command(card)}`' in lines
        row = next(line for line in lines if line.startswith(f'|  | {card.name} (shipped) |'))
        assert '| 0 |' in row and '| not kept |' in row
    # Of weights from elsewhere: their config, float32, and every way in which they were applied.
    scores = [score | {'model': f'{gray.name} (tiling {way})'} for way in ('whole', 'whole, x8 ensemble') for score in
              gray.scores[:1]]  # fmt: skip
    other = dataclasses.replace(
        gray, config=dict(gray.config) | {'compute_dtype': 'bfloat16'}, scores=scores, hardware='a GPU, 24 minutes',
        command='python train.py --config=configs/same_data/denoise.py:sigma=25 --workdir=runs/x',
    )  # fmt: skip
    assert results.score_command(other) == (
        'python eval.py --config=configs/same_data/denoise.py:sigma=25 --config.compute_dtype=float32 '
        '--shipped=denoise_gray --datasets=set12 --protocol=denoise --levels=15 --tiling=whole --ensemble=1,8 '
        '--output=runs/shipped/denoise_gray'
    )
    assert '| a GPU, 24 minutes | 24 min |' in results.to_page({}, [other], {})


def test_score_commands_can_be_run(cards):
    """Their configs are there and describe the shipped networks; datasets, levels and protocols are known."""
    for card in cards:
        given = dict(word[2:].split('=', 1) for word in results.score_command(card).split()[2:])
        path, _, argument = given['config'].partition(':')
        config = importlib.import_module(path.removesuffix('.py').replace('/', '.')).get_config(argument)
        check_architectures(config.model, {card.name: card.config['model']})
        (protocol,) = find_protocols(given['protocol'].split(','))
        levels = given['levels'].split(',') if 'levels' in given else ()
        degradations = find_degradations(protocol.task, config.model.scale, levels)
        assert {str(each) for each in degradations} == {score['degradation'] for score in card.scores}
        assert {find_benchmark(name).name for name in given['datasets'].split(',')} == {
            score['dataset'] for score in card.scores
        }


@pytest.fixture
def evaluated(tmp_path, make_run):
    workdir, _ = make_run(tmp_path / 'there', exit_code=0)
    archives.write_results(workdir, tmp_path, 'python train.py --config=c')
    workdir = archives.read_results(tmp_path / 'denoise_25.zip', tmp_path)
    scores = [
        Score('Set12', 'sigma 25', 'denoise_25, step 30, tiling whole', 'denoise', f'{index}.png', 29 + index, 0.75)
        for index in range(2)
    ]
    (workdir / 'eval').mkdir()
    (workdir / 'eval' / 'scores.json').write_text(to_json(scores))
    return workdir


def test_a_run_with_scores_gets_its_rows_and_its_curve(evaluated, tmp_path, cards):
    record = json.loads(json.dumps(results.make_record(evaluated)))
    page = results.to_page({'denoise_25': record}, cards, {})
    assert '| denoise_25 | `denoise` | 29.50 / 0.7500 |  |' in page
    assert '| 2 | denoise_25 | train400 (400) | 30 x 32 of 48² | 0 | a machine | 2.0 min | ' in page
    assert '- denoise_25: `python train.py --config=c`' in page
    again = ' '.join(find_comparison('denoise_25').evaluate_arguments(30))
    assert f'- denoise_25: `python {again}`' in page
    assert '| denoise_25 | not run yet' not in page
    assert record['curve'] == {'of': 'Set12/psnr', 'points': [[15, 28.0], [30, 29.0]]}
    assert f'({results.CURVES.name})' in page
    results.plot_curves({'denoise_25': record}, tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').read_bytes().startswith(b'\x89PNG')


def test_scores_of_another_step_and_runs_that_are_not_done_are_refused(evaluated):
    path = evaluated / 'eval' / 'scores.json'
    path.write_text(path.read_text(encoding='utf-8').replace('step 30', 'step 20'))
    with pytest.raises(UserError, match=r'scores of .*step 20.*, but the run ends at step 30'):
        results.make_record(evaluated)
    run = json.loads((evaluated / archives.RUN).read_text(encoding='utf-8'))
    (evaluated / archives.RUN).write_text(json.dumps(run | {'finished': False}))
    with pytest.raises(UserError, match='the run is not done, or not scored'):
        results.make_record(evaluated)
    path.unlink()
    with pytest.raises(UserError, match='not an evaluated run'):
        results.make_record(evaluated)
