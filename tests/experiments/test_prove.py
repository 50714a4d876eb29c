"""Short runs of the comparisons: one after another, each by the long run's own command, and kept."""

import functools
import json
import operator
import pathlib

import pytest

from experiments import archives, prove, results
from experiments.comparisons import COMPARISONS, find_comparison
from nsr_jax.errors import UserError

# Stands for train.py and eval.py: writes what they leave, and a line for each call.
COMMAND = """
import json, pathlib, sys
given = dict(each[2:].partition('=')[::2] for each in sys.argv[1:])
name = pathlib.Path(sys.argv[0]).stem
with open('calls', 'a') as file:
    file.write(f'{name} {given.get("workdir") or given["checkpoint"]} {given.get("config.warm_start", "")}\\n')
if pathlib.Path('fails').exists():
    sys.exit('a warning\\nerror: a defect\\n')
if name == 'train':
    workdir = pathlib.Path(given['workdir'])
    assert not (workdir / 'checkpoints').exists()
    (workdir / 'checkpoints' / '8').mkdir(parents=True)
    lines = [{'step': step, 'loss': 1 / step} for step in (2, 4, 6, 8)]
    (workdir / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\\n' for line in lines))
else:
    from nsr_jax.evaluation.scoring import Score
    from nsr_jax.evaluation.tables import to_json
    output = pathlib.Path(given['output'])
    output.mkdir()
    models = given['baselines'], f'{given["checkpoint"]}, step 8, tiling feathered 96/16'
    scores = [Score('Set5', 'x2', model, given['protocol'], 'a.png', 20.0 + len(model), 0.5) for model in models]
    (output / 'scores.json').write_text(to_json(scores))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(pathlib.Path(prove.__file__).parents[1]))
    for name in ('train.py', 'eval.py'):
        (tmp_path / name).write_text(COMMAND)
    return tmp_path


def calls(folder):
    lines = (folder / 'calls').read_text(encoding='utf-8').splitlines()
    (folder / 'calls').unlink()
    return [line.strip() for line in lines]


def test_runs_are_kept_one_by_one_and_not_run_again(folder):
    first, second = find_comparison('sr_x2'), find_comparison('sr_x4')
    prove.prove_all([first], 8, overwrite=False)
    assert calls(folder) == ['train runs/short/sr_x2', 'eval runs/short/sr_x2']
    prove.prove_all([first, second], 8, overwrite=False)
    assert calls(folder) == ['train runs/short/sr_x4 runs/short/sr_x2', 'eval runs/short/sr_x4']
    records = prove.read_records()
    assert list(records) == ['sr_x2', 'sr_x4']
    record = records['sr_x4']
    assert (record['steps'], record['losses']) == (8, [[2, 0.5], [8, 0.125]])
    assert {name: seconds >= 0 for name, seconds in record['seconds'].items()} == {'train.py': True, 'eval.py': True}
    assert 'cores' in record['environment']['processor'] and record['environment']['dtype'] == 'bfloat16'
    assert record['commands'][0].startswith(
        'python train.py --config=configs/same_data/sr.py:scale=4,network=edsr_s,steps=8 --workdir=runs/short/sr_x4 '
        '--config.warm_start=runs/short/sr_x2 '
    )
    page = results.to_page({}, [], records)
    row = next(line for line in page.splitlines() if line.startswith('| sr_x4 | 8 | 0.5000 (step 2) | 0.1250 (step 8)'))
    network, given = 20 + len('runs/short/sr_x4, step 8, tiling feathered 96/16'), 20 + len('bicubic')
    assert f'| Set5, x2, `sr-y` | {network:.2f} / 0.5000 | {given:.2f} / 0.5000 |' in row
    assert '| sr_x4 | not run yet' in page  # its scores stand in no other table
    prove.prove_all([first], 8, overwrite=True)
    assert calls(folder) == ['train runs/short/sr_x2', 'eval runs/short/sr_x2']


def test_what_a_run_begins_with_is_made_again_where_it_is_gone(folder):
    prove.prove(find_comparison('sr_x3_nsr'), 8)
    assert calls(folder) == [
        'train runs/short/sr_x2_nsr', 'train runs/short/sr_x3_nsr runs/short/sr_x2_nsr', 'eval runs/short/sr_x3_nsr'
    ]  # fmt: skip
    assert not prove.RECORDS.exists()


def test_a_run_that_fails_says_why_and_those_before_it_stay(folder):
    prove.prove_all([find_comparison('sr_x2')], 8, overwrite=False)
    (folder / 'fails').touch()
    with pytest.raises(UserError, match=r'^python train.py .*sr_x2_nsr.* fails with exit code 1: error: a defect$'):
        prove.prove_all([find_comparison('sr_x2_nsr')], 8, overwrite=False)
    assert list(prove.read_records()) == ['sr_x2']
    assert 'a warning' in (folder / prove.FOLDER / 'sr_x2_nsr' / archives.LOG).read_text(encoding='utf-8')


@pytest.mark.parametrize('run', COMPARISONS, ids=lambda run: run.name)
def test_commands_are_the_comparisons_own(run):
    train, evaluate = prove.train_arguments(run, 20), prove.evaluate_arguments(run, 20)
    assert train[1] == run.train_arguments(20)[1] == evaluate[1]
    config = run.config(20)
    for argument in (*train[2:], *evaluate[2:]):
        name, equals, _ = argument.partition('=')
        assert equals
        functools.reduce(operator.getitem, name.split('.')[1:], config)  # an override is of a field that there is
    assert f'--datasets={config.evaluation.datasets}' in evaluate
    assert sum(argument.startswith('--levels') for argument in evaluate) == (config.task != 'sr')


@pytest.mark.slow
def test_a_real_run(tmp_path, monkeypatch, data_dir):
    root = pathlib.Path(prove.__file__).parents[1]
    for name in ('configs', 'nsr_jax', 'train.py', 'eval.py'):
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.chdir(tmp_path)
    record = prove.prove(find_comparison('denoise_25_efficient'), 2)
    assert record['steps'] == 2 and 0 < record['losses'][0][1] < 10
    assert [score['images'] for score in record['scores']] == [12, 12]
    assert record['scores'][0]['psnr'] == pytest.approx(20.37, abs=0.01)  # noise of sigma 25, clipped
    assert json.loads(json.dumps(record)) == record
