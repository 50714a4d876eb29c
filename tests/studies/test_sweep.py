"""The command: a real sweep of tiny networks, one of which diverges, and the line that a mistake gets."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nsr_jax.evaluation.scores import means
from nsr_jax.evaluation.scoring import device_predictors, evaluate
from nsr_jax.evaluation.validation import open_held_out
from nsr_jax.images.writing import write_image
from nsr_jax.inference.tiling import Tiling
from nsr_jax.metrics import find_metrics
from nsr_jax.models.build import build_network
from nsr_jax.studies.one_run import read_result, train_and_score
from nsr_jax.studies.study import read_study
from nsr_jax.tasks import find_degradations, find_protocols
from nsr_jax.trained import load_model

ROOT = pathlib.Path(__file__).parents[2]
TINY = """
from configs.base import check
CONFIG = 'configs/sr.py'
SEEDS = (3,)
SHARED = {{
    'model.num_blocks': 1, 'model.features': 4, 'model.groups': 2, 'model.cardinality': 2,
    'data.source': {images!r}, 'data.tfds_dir': {datasets!r}, 'data.patch_size': 8, 'batch_size': 2,
    'num_steps': 2, 'log_every_steps': 1, 'stop_after_skipped': 1, 'validation.images': ('0.png', '1.png'),
    'evaluation.metrics': 'psnr', 'evaluation.tile': 24, 'evaluation.overlap': 8,
}}
def get_members():
    return [('paper', {{}}), ('diverges', {{'learning_rate': 1e38}})]
"""


def start(*arguments):
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1'}
    command = [sys.executable, '-m', 'nsr_jax.sweep', *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sweep')
    (folder / 'images').mkdir()
    random = np.random.default_rng(0)
    for index in range(4):
        write_image(folder / 'images' / f'{index}.png', random.integers(0, 256, (48, 48, 3), np.uint8))
    text = TINY.format(images=str(folder / 'images'), datasets=str(folder / 'datasets'))
    (folder / 'tiny.py').write_text(text)
    return folder


@pytest.fixture(scope='module')
def swept(folder):
    """The exit code and standard error of the whole sweep, and its workdir."""
    process = start(folder / 'tiny.py', f'--workdir={folder}/run', '--set=learning_rate_factor=0.5', '--jobs=2')
    error = process.communicate(timeout=900)[1]
    return process.returncode, error, folder / 'run'


def test_a_sweep_goes_on_after_a_member_that_diverges(swept):
    code, error, workdir = swept
    assert code == 1, error
    assert 'Traceback' not in error
    assert 'diverges, seed 3: the loss or its gradient was not finite' in error
    table = (workdir / 'table.md').read_text(encoding='utf-8')
    assert '| diverges, seed 3 | failed: the loss or its gradient was not finite' in table
    assert table in error
    assert json.loads((workdir / 'paper' / 'seed_3' / 'config.json').read_text())['learning_rate_factor'] == 0.5
    assert not (workdir / 'diverges' / 'seed_3' / 'result.json').exists()


def test_its_scores_are_those_of_the_validation(swept):
    folder = swept[2] / 'paper' / 'seed_3'
    scores = json.loads((folder / 'result.json').read_text())['scores']
    last = json.loads((folder / 'metrics.jsonl').read_text().splitlines()[-1])
    assert scores['sr-y/x2/psnr'] == pytest.approx(last['validation/sr-y/x2/psnr'], abs=1e-6)
    model = load_model(folder)
    assert model.step == 2
    for gate in ('uniform', 'hard'):
        section = model.config.model.copy_and_resolve_references()
        section.gate = gate
        predictors = device_predictors(build_network(section), model.params, Tiling('feathered', 24, 8))
        scored = evaluate(
            predictors,
            open_held_out(model.config),
            find_protocols('sr', ['sr-y']),
            find_degradations('sr', 2, ())[0],
            find_metrics(['psnr']),
            model=gate,
        )
        assert scores[f'{gate}/sr-y/x2/psnr'] == pytest.approx(means(scored)[0].values['psnr'], abs=1e-6)
    assert len({scores[f'{name}sr-y/x2/psnr'] for name in ('', 'uniform/', 'hard/')}) == 3
    assert 0 < scores['gates/entropy'] < 1 and scores['gates/deviation'] > 0


STOPPED_WHILE_SCORING = """
import os, signal
from nsr_jax import sweep
from nsr_jax.studies import one_run
one_run.measure_gates = lambda *arguments: os.kill(os.getpid(), signal.SIGTERM)
sweep.start()
"""


def test_sigterm_while_a_run_is_scored_ends_it_with_75(swept, folder):
    result = swept[2] / 'paper' / 'seed_3' / 'result.json'
    before = result.read_bytes()
    result.unlink()
    options = [str(folder / 'tiny.py'), f'--workdir={swept[2]}', '--set=learning_rate_factor=0.5', '--index=0']
    process = subprocess.run(
        [sys.executable, '-c', STOPPED_WHILE_SCORING, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 75, process.stderr
    assert 'stopped: as asked to before or after training' in process.stderr
    assert not result.exists()
    result.write_bytes(before)


def test_a_run_that_was_killed_before_its_result_is_not_trained_again(swept, folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    result, metrics = (swept[2] / 'paper' / 'seed_3' / name for name in ('result.json', 'metrics.jsonl'))
    before = json.loads(result.read_text()), metrics.read_bytes()
    result.unlink()
    run = read_study(folder / 'tiny.py', changes=['learning_rate_factor=0.5']).runs[0]
    train_and_score(run, swept[2])
    after = json.loads(result.read_text())
    assert after['scores'] == pytest.approx(before[0]['scores'], abs=1e-4)
    assert metrics.read_bytes() == before[1]


def test_members_that_differ_in_their_evaluation_alone_share_a_training(swept, folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (folder / 'tiny.py').read_text()
    (folder / 'tiled.py').write_text(text.replace("('diverges'", "('small', {'evaluation.tile': 16}), ('diverges'"))
    study = read_study(folder / 'tiled.py', changes=['learning_rate_factor=0.5'])
    paper, small, _ = study.runs
    assert [study.trained_like(run) for run in study.runs] == [[small], [paper], []]
    train_and_score(small, swept[2], trained_like=study.trained_like(small))
    large, found = (read_result(run.folder(swept[2])) for run in (paper, small))
    assert not (small.folder(swept[2]) / 'checkpoints').exists()
    assert large['parameters'] == found['parameters']
    assert large['scores']['sr-y/x2/psnr'] != found['scores']['sr-y/x2/psnr']  # gates see less
    train_and_score(small, folder / 'alone', trained_like=study.trained_like(small))
    alone = read_result(small.folder(folder / 'alone'))
    assert alone['scores'] == pytest.approx(found['scores'], abs=1e-4)


def test_only_a_run_that_was_trained_by_the_same_config_lends_its_weights(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (folder / 'tiny.py').read_text()
    members = ''.join(f"('tile_{tile}', {{'evaluation.tile': {tile}}}), " for tile in (16, 20))
    (folder / 'three.py').write_text(text.replace("('diverges'", f"{members}('diverges'"))
    study = read_study(folder / 'three.py')
    paper, first, second, _ = study.runs
    for run in (first, paper, second):  # so the first member, scored by the weights of another, comes before that one
        train_and_score(run, tmp_path, trained_like=study.trained_like(run))
    trained = [path.parent.parent.name for path in tmp_path.glob('*/seed_3/checkpoints')]
    assert trained == ['tile_16']
    (second.folder(tmp_path) / 'result.json').unlink()
    config = json.loads((first.folder(tmp_path) / 'config.json').read_text())
    (first.folder(tmp_path) / 'config.json').write_text(json.dumps(config | {'learning_rate': 0.5}))
    train_and_score(second, tmp_path, trained_like=study.trained_like(second))
    assert (second.folder(tmp_path) / 'checkpoints').is_dir()


def test_mistakes_get_one_line_each_before_anything_starts(commands, folder):
    sweep, new = folder / 'tiny.py', f'--workdir={folder}/new'
    cases = {
        (sweep, new, '--index=2'): '--index=2: the runs of this sweep are 0 to 1',
        (sweep,): '--workdir must be given',
        (sweep, new, '--list', '--collect'): 'exclude one another',
        (sweep, new, '--timed'): '--timed needs --list',
        (sweep, new, '--set=batch_size=0'): 'member paper: config.batch_size must be a whole number from 1',
        (sweep, new, '--set=data.source=nowhere'): 'nowhere',
    }
    for case, message in cases.items():
        code, error, _ = commands('nsr_jax.sweep', *case)
        assert code == 2, (case, error)
        (line,) = (line for line in error.splitlines() if line.startswith('error: '))
        assert message in line
    assert not (folder / 'new').exists()


@pytest.mark.slow
def test_a_search_trains_its_trials_and_goes_on(folder):
    sweep, workdir = folder / 'search.py', folder / 'searched'
    text = (folder / 'tiny.py').read_text().replace("('diverges', {'learning_rate': 1e38})", '')
    sweep.write_text(text + "RANGES = {'learning_rate': ('choice', 1e-3, 1e38), 'model.features': ('choice', 4, 8)}\n")
    for trials in (1, 4):
        process = start(sweep, f'--workdir={workdir}', '--search=random', f'--trials={trials}', '--jobs=2')
        error = process.communicate(timeout=900)[1]
        assert process.returncode == 0, error
    assert (workdir / 'table.md').read_text(encoding='utf-8') in error
    trials = json.loads((workdir / 'table.json').read_text())['trials']
    assert {each['trial'] for each in trials} == {f'trial_{number}' for number in range(4)}
    assert len({each['values']['learning_rate'] for each in trials}) == 2
    for each in trials:
        if each['values']['learning_rate'] == 1e38:
            assert each['outcome'] == 'failed'
            assert 'diverged' in each['reason'] or 'not finite' in each['reason']
        else:
            result = json.loads((workdir / each['trial'] / 'seed_3' / 'result.json').read_text())
            assert each['outcome'] == 'done' and each['merit'] == result['merit'] == result['scores']['sr-y/x2/psnr']
            assert each['scores'] == result['scores']
