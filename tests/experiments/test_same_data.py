"""The comparisons: each makes sense before a machine is lent for it, and a command that was stopped goes on."""

import json
import pathlib
import subprocess
import sys
import types

import pytest

from configs.same_data import denoise, jpeg, sr
from experiments import same_data
from experiments.runs import RUNS
from nsr_jax.data.training_sets import find_training_set
from nsr_jax.errors import StoppedError, UserError
from nsr_jax.evaluation.scores import Score
from nsr_jax.evaluation.tables import to_json
from nsr_jax.tasks import TASKS, find_degradations
from nsr_jax.training.run import check_run

# The shorter side of each set's smallest image, in pixels; measured in tests/data/test_training_sets.py.
SMALLEST = {'t91_bsds200': 105, 'train400': 180, 'bsds400': 321}


@pytest.mark.parametrize('run', RUNS.values(), ids=RUNS)
def test_each_can_be_trained_and_has_a_rival(run, tmp_path):
    config = run.config()
    check_run(config, tmp_path)
    assert find_training_set(config.data.source)
    side = config.data.patch_size + 2 * config.data.margin
    if config.task == 'jpeg':
        side += 14  # a random position on JPEG's grid of 8x8, on both sides
    assert side <= SMALLEST[config.data.source] // config.model.scale
    short = run.config(7)
    assert (short.num_steps, short.checkpoint_every_steps) == (7, 1)
    for degradation in find_degradations(config.task, config.model.scale, config.evaluation.levels):
        rows = [row for task in TASKS.values() for row in task.published]
        found = [row for row in rows if row.model in run.rivals and row.degradation == str(degradation)]
        assert {row.dataset.lower() for row in found} >= set(run.datasets)


def test_patches_of_a_step_hold_about_as_many_pixels_at_each_scale():
    pixels = [side**2 * batch_size for side, _, batch_size in sr.PATCHES.values()]
    assert max(pixels) < 1.2 * min(pixels)


def test_a_run_begins_with_one_that_is_trained_before_and_has_its_network():
    names = list(RUNS)
    begun = [run for run in RUNS.values() if run.warm_start]
    assert begun
    for run in begun:
        first = RUNS[run.warm_start]
        assert names.index(first.name) < names.index(run.name)
        models = [each.config().model.to_dict() | {'scale': 0} for each in (first, run)]
        assert models[0] == models[1]
        assert f'--config.warm_start=folder/{first.name}' in run.train_arguments('folder')


@pytest.mark.parametrize(
    ('config', 'arg', 'message'),
    [
        (sr, 'scale=5', 'scale must be 2, 3 or 4, not 5'),
        (sr, 'network=vdsr', "network must be one of edsr_s, .*, not 'vdsr'"),
        (denoise, 'network=dncnn', "not 'dncnn'"),
        (denoise, 'sigma=low', 'sigma must be of type float'),
        (jpeg, 'quality=10', "'quality=10'.*network, steps"),
    ],
)
def test_wrong_arguments_are_named(config, arg, message):
    with pytest.raises(ValueError, match=message):
        config.get_config(arg)


@pytest.fixture
def scripts(monkeypatch):
    """What is started instead of train.py and eval.py: it leaves what they would. Its `codes` are train.py's."""

    def start(arguments):
        script, *options = arguments
        given = dict(option[2:].split('=', 1) for option in options)
        started.calls.append((script, given))
        if script == 'eval.py':
            folder = pathlib.Path(given['output'])
            folder.mkdir(exist_ok=True)
            scores = [
                Score('Set12', 'sigma 25', 'any', 'denoise', f'{i}.png', {'psnr': 29 + i, 'ssim': 0.75})
                for i in range(2)
            ]
            (folder / 'scores.json').write_text(to_json(scores, {}))
            return 0
        code = started.codes.pop(0)
        if code == 0:
            steps = given['config'].rpartition('steps=')[2]
            pathlib.Path(given['workdir'], 'checkpoints', steps).mkdir(parents=True)
        return code

    started = types.SimpleNamespace(calls=[], codes=[])
    monkeypatch.setattr(same_data, 'start', start)
    return started


def test_a_run_that_stops_goes_on_and_is_scored_once_it_is_trained(scripts, tmp_path):
    run = RUNS['denoise_25']
    scripts.codes = [75, 0]
    with pytest.raises(StoppedError, match=r'train.py of denoise_25 stopped: the same command resumes'):
        same_data.complete(run, tmp_path, steps=30, stop_after=None)
    record = json.loads(json.dumps(same_data.complete(run, tmp_path, steps=30, stop_after=None)))
    assert [script for script, _ in scripts.calls] == ['train.py', 'train.py', 'eval.py']
    assert [piece['exit_code'] for piece in record['pieces']] == [75, 0]
    (score,) = record['scores']
    assert (score['model'], score['dataset'], score['psnr']) == ('denoise_25', 'Set12', 29.5)
    assert record['config']['num_steps'] == 30
    scored = scripts.calls[-1][1]
    assert scored['checkpoint'] == f'{tmp_path}/denoise_25'
    assert same_data.complete(run, tmp_path, steps=30, stop_after=None) == record  # nothing is trained again


def test_a_failure_of_a_script_is_one_line(scripts, tmp_path):
    scripts.codes = [2]
    with pytest.raises(UserError, match=r'^train.py of denoise_25 failed with exit code 2; its own message is above$'):
        same_data.complete(RUNS['denoise_25'], tmp_path, steps=30, stop_after=None)


def test_training_gets_what_is_left_of_the_time(scripts, tmp_path, monkeypatch):
    monkeypatch.setattr(same_data, 'seconds_since_start', lambda: 100.0)
    scripts.codes = [75]
    with pytest.raises(StoppedError):
        same_data.complete(RUNS['denoise_25'], tmp_path, steps=30, stop_after=540)
    assert scripts.calls[0][1]['stop_after'] == '440s'
    with pytest.raises(StoppedError, match='before denoise_25'):
        same_data.complete(RUNS['denoise_25'], tmp_path, steps=30, stop_after=100)
    assert len(scripts.calls) == 1


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The command with its flags, which keeps records in a folder of the test; and the records of each page written."""
    pages = []
    monkeypatch.setattr(same_data, 'RECORDS', tmp_path / 'records')
    monkeypatch.setattr(same_data.page, 'write', pages.append)

    def run(**given):
        options = {'workdir': str(tmp_path / 'runs'), 'runs': [], 'steps': None, 'stop_after': None}
        monkeypatch.setattr(same_data.flags, 'FLAGS', types.SimpleNamespace(**options | given))
        same_data.main(['same_data'])
        return [list(records) for records in pages]

    return run


def test_what_was_scored_is_kept_and_not_done_again(command, monkeypatch):
    completed = []
    monkeypatch.setattr(same_data, 'complete', lambda run, *_: completed.append(run.name) or {'name': run.name})
    assert command(runs=['jpeg', 'denoise_25'], steps=30) == [[]]  # a trial is kept nowhere
    assert command(runs=['jpeg', 'denoise_25'])[1:] == [[], ['jpeg'], ['denoise_25', 'jpeg']]
    assert completed == ['jpeg', 'denoise_25'] * 2
    assert command(runs=['jpeg'])[4:] == [['denoise_25', 'jpeg']]
    assert completed == ['jpeg', 'denoise_25'] * 2


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'runs': ['sr_x5']}, "--runs: unknown run 'sr_x5': one of sr_x2_nsr, sr_x2, "),
        ({'stop_after': '9'}, '--stop_after=9 must be a time'),
    ],
)
def test_mistakes(command, given, message):
    with pytest.raises(UserError, match=message):
        command(**given)


SIGNALS = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
os.kill(os.getppid(), signal.{name})
{then}
"""


@pytest.mark.parametrize(('name', 'then', 'code'), [('SIGTERM', 'signal.pause()', 75), ('SIGINT', 'os._exit(7)', 7)])
def test_a_signal_is_left_to_the_script_to_answer(name, then, code):
    assert same_data.start(['-c', SIGNALS.format(name=name, then=then)]) == code


@pytest.mark.slow
def test_the_command(data_dir, tmp_path):
    command = [sys.executable, '-m', 'experiments.same_data', f'--workdir={tmp_path}', '--runs=denoise_25_efficient']
    process = subprocess.run([*command, '--steps=2'], cwd=same_data.ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    scores = json.loads((tmp_path / 'denoise_25_efficient' / 'eval' / 'scores.json').read_text(encoding='utf-8'))
    assert {score['dataset'] for score in scores['means']} == {'Set12', 'BSD68'}
