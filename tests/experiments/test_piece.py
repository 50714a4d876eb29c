"""Pieces of training: one run after another within a time, and on from where the last piece stopped."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from experiments import archives, piece
from experiments.comparisons import FOLDER, find_comparison

ROOT = pathlib.Path(__file__).parents[2]

# Stands for train.py: counts 50 steps in the workdir, and goes on from them. One that is held has used up its time at
# step 7 and waits for the signal; a deaf one has then used up the time to stop in, too.
TRAIN = """
import pathlib, signal, sys, time
workdir = pathlib.Path(next(each.split('=')[1] for each in sys.argv if each.startswith('--workdir')))
stops, late = [], pathlib.Path('late')
signal.signal(signal.SIGTERM, lambda *_: late.touch() if '--deaf' in sys.argv else stops.append(1))
path = workdir / 'steps'
steps = int(path.read_text(encoding='utf-8')) if path.exists() else 0
sys.stderr.write(f'from {steps}\\n')
if '--fails' in sys.argv:
    sys.exit('a defect')
while steps < 50 and not stops:
    steps += 1
    path.write_text(str(steps))
    if steps == 7 and '--held' in sys.argv:
        late.touch()
        while not stops:
            time.sleep(0.01)
sys.exit(75 if stops else 0)
"""


class Process(subprocess.Popen):
    """Its times are over when it says so, not when the clock does."""

    times = []  # noqa: RUF012  (of all processes of a test)

    def wait(self, timeout=None):
        if timeout is None:
            return super().wait()
        self.times.append(timeout)
        while self.poll() is None:
            if pathlib.Path('late').exists():
                pathlib.Path('late').unlink()
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return self.returncode


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'train.py').write_text(TRAIN)
    monkeypatch.setattr(subprocess, 'Popen', Process)
    monkeypatch.setattr(Process, 'times', [])
    written = []
    monkeypatch.setattr(archives, 'write_results', lambda workdir, output, command: written.append(workdir.name))
    return written


def train_all(names, seconds, *extra, state=False):
    runs = [find_comparison(name) for name in names]
    return piece.train_all(runs, seconds, pathlib.Path('out'), steps=None, state=state, extra=extra)


def steps_of(name):
    return int(pathlib.Path(FOLDER, name, 'steps').read_text(encoding='utf-8'))


def log_of(name):
    return pathlib.Path(FOLDER, name, archives.LOG).read_text(encoding='utf-8')


def test_pieces_end_in_time_and_go_on(folder):
    pathlib.Path('out').mkdir()
    assert train_all(['sr_x2_nsr', 'sr_x2'], 500, '--held', state=True) == 75
    given, patience = Process.times
    assert (400 < given <= 500, patience) == (True, piece.PATIENCE_SECONDS)
    assert steps_of('sr_x2_nsr') == 7
    assert not pathlib.Path(FOLDER, 'sr_x2').exists()
    assert [path.name for path in pathlib.Path('out').iterdir()] == ['sr_x2_nsr.state.0']
    assert train_all(['sr_x2_nsr', 'sr_x2'], 500) == 0
    assert (steps_of('sr_x2_nsr'), steps_of('sr_x2')) == (50, 50)
    assert log_of('sr_x2_nsr') == 'from 0\nfrom 7\n'
    pieces = archives.read_pieces(pathlib.Path(FOLDER, 'sr_x2_nsr'))
    assert [each['exit_code'] for each in pieces] == [75, 0]
    assert pieces[0]['seconds'] >= 0
    assert {'hardware', 'jax', 'python'} <= pieces[0].keys()
    assert folder == ['sr_x2_nsr', 'sr_x2_nsr', 'sr_x2']
    assert train_all(['sr_x2_nsr', 'sr_x2'], 500) == 0  # nothing is left to do
    assert len(folder) == 3


def test_who_does_not_stop_is_killed_and_goes_on(folder):
    assert train_all(['sr_x2'], 500, '--held', '--deaf') == 75
    assert archives.read_pieces(pathlib.Path(FOLDER, 'sr_x2'))[-1]['exit_code'] == -9
    assert train_all(['sr_x2'], 500) == 0


def test_a_run_that_fails_ends_the_command_with_its_log(folder, capsys):
    assert train_all(['sr_x2', 'sr_x2_nsr'], 500, '--fails') == 1
    assert 'a defect' in capsys.readouterr().out
    assert folder == ['sr_x2']


def test_no_run_is_started_for_less_than_it_takes_to_start(folder):
    assert train_all(['sr_x2'], 10) == 75
    assert not pathlib.Path(FOLDER).exists()


def test_a_fresh_machine_goes_on_from_a_carried_state(folder, tmp_path, monkeypatch, make_run):
    workdir, _ = make_run(tmp_path / 'elsewhere', exit_code=75)
    pathlib.Path(piece.STATE).mkdir(parents=True)
    archives.write_state(workdir, pathlib.Path(piece.STATE))
    assert train_all(['denoise_25'], 500) == 0
    assert archives.last_checkpoint(pathlib.Path(FOLDER, 'denoise_25')).name == '30'
    assert [each['exit_code'] for each in archives.read_pieces(pathlib.Path(FOLDER, 'denoise_25'))] == [75, 75, 0]


TINY = (
    '--config.model.num_blocks=1', '--config.model.features=8', '--config.model.cardinality=4',
    '--config.batch_size=2', '--config.data.patch_size=16', '--config.evaluation.tile=48',
)  # fmt: skip


@pytest.mark.slow
def test_real_pieces_end_as_one_uninterrupted_run(tmp_path, data_dir):
    """As on a machine with a GPU: packed, trained in pieces by the script, and carried to a fresh folder in between."""

    def start(folder, *arguments):
        environment = os.environ | {
            'PACK': str(tmp_path / 'pack'), 'OUT': str(folder / 'out'), 'PYTHON': sys.executable,
            'SITE': str(tmp_path / 'site'), 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1',
        }  # fmt: skip
        command = [folder / 'experiments' / 'on_gpu.sh', '--runs=denoise_25_efficient', *arguments, '--', *TINY]
        return subprocess.run(command, env=environment, check=False).returncode

    folders = [tmp_path / name for name in ('pieces', 'fresh', 'whole', 'rates')]
    for folder in folders:
        folder.mkdir()
        for name in ('experiments', 'configs', 'nsr_jax', 'train.py'):
            (folder / name).symlink_to(ROOT / name)
    pack = [sys.executable, '-m', 'experiments.pack', '--runs=denoise_25_efficient', f'--output={tmp_path / "pack"}']
    subprocess.run([*pack, '--nowheels'], cwd=ROOT, env=os.environ | {'NSR_DATA_DIR': str(data_dir)}, check=True)

    pieces, fresh, whole, rates = folders
    assert start(pieces, '--steps=80000', '--seconds=40') == 75
    (fresh / FOLDER).mkdir(parents=True)
    (pieces / 'out').rename(fresh / FOLDER / 'state')
    codes = [start(fresh, '--steps=80000', '--seconds=40')]
    while codes[-1] == 75:
        codes.append(start(fresh, '--steps=80000', '--seconds=60'))
    assert codes[-1] == 0
    assert start(whole, '--steps=80000', '--seconds=600') == 0

    for folder in (fresh, whole):
        archives.read_results(folder / 'out' / 'denoise_25_efficient.zip', folder / 'unpacked')
    run = json.loads((fresh / 'unpacked' / 'denoise_25_efficient' / archives.RUN).read_text(encoding='utf-8'))
    assert [each['exit_code'] for each in run['pieces']] == [75, *codes]
    metrics = [
        (folder / 'unpacked' / 'denoise_25_efficient' / archives.METRICS).read_text(encoding='utf-8').splitlines()
        for folder in (fresh, whole)
    ]
    scores = [[line for line in lines if 'Set12' in line] for lines in metrics]
    assert len(scores[0]) == 10
    assert scores[0] == scores[1]
    packed = [(folder / FOLDER / 'denoise_25_efficient' / 'checkpoints' / '80000') for folder in (fresh, whole)]
    fingerprints = [
        json.loads((path / 'metadata' / 'metadata').read_text(encoding='utf-8'))['fingerprints'] for path in packed
    ]
    assert fingerprints[0] == fingerprints[1]

    assert start(rates, '--measure=150') == 0
    found = json.loads((rates / 'out' / 'rates.json').read_text(encoding='utf-8'))['runs']['denoise_25_efficient']
    assert found['steps_in_25_minutes'] == int(found['steps_per_second'] * 1500)
