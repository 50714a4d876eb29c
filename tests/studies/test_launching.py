"""The processes of a sweep, with short programs in the place of training runs."""

import json
import pathlib
import subprocess
import sys
import time

import ml_collections
import pytest

from nsr_jax.errors import UserError
from nsr_jax.studies.launching import run_all
from nsr_jax.studies.one_run import RESULT
from nsr_jax.studies.study import StudyRun

ROOT = pathlib.Path(__file__).parents[2]
DONE = f"""
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
with (folder.parents[1] / 'order').open('a') as file:
    file.write(folder.parent.name + ' ')
(folder / {RESULT!r}).write_text(json.dumps({{'parameters': 1, 'multi_adds': 2, 'steps': 3, 'scores': {{'psnr': 30}}}}))
"""
FAILS = 'import pathlib, sys; pathlib.Path(sys.argv[1], "failure.txt").write_text("it diverged"); sys.exit(2)'
CRASHES = 'import os; print("so long", flush=True); os.abort()'
# Says where it stands; saves and ends with 75 at the first SIGTERM.
SAVES = """
import pathlib, signal, sys
folder = pathlib.Path(sys.argv[1])
def stop(number, frame):
    (folder / 'saved').touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
(folder / 'ready').touch()
while True:
    signal.pause()
"""
# Goes on at the first one, and ends at the next.
HEARS = "signal.signal(number, signal.SIG_DFL)\n    (folder / 'heard').touch()"
IS_BUSY = SAVES.replace("(folder / 'saved').touch()\n    sys.exit(75)", HEARS)


def runs_of(*members):
    return [StudyRun(index, name, 0, ml_collections.ConfigDict({'num_steps': 5})) for index, name in enumerate(members)]


def launch(workdir, programs, **options):
    """Run one program for each member, which is given its folder."""
    runs, workdir = runs_of(*programs), pathlib.Path(workdir)

    def command(run):
        return [sys.executable, '-c', programs[run.member], str(run.folder(workdir))]

    return run_all(runs, workdir, command, **options)


def launch_in_a_process(workdir, programs):
    code = """
import json, sys
from tests.studies.test_launching import launch
from nsr_jax.errors import StoppedError
try:
    launch(sys.argv[1], json.loads(sys.argv[2]), jobs=2)
except StoppedError as error:
    sys.exit(75)
"""
    return subprocess.Popen([sys.executable, '-c', code, workdir, json.dumps(programs)], cwd=ROOT)


def wait_for(*paths):
    for path in paths:
        while not path.exists():
            time.sleep(0.01)


def test_runs_one_after_another_and_never_twice(tmp_path):
    assert launch(tmp_path, {'a': DONE, 'b': DONE, 'c': DONE}) == []
    assert (tmp_path / 'order').read_text() == 'a b c '
    assert launch(tmp_path, {'a': DONE, 'd': DONE, 'c': DONE}) == []
    assert (tmp_path / 'order').read_text() == 'a b c d '


def test_a_failure_does_not_end_the_others(tmp_path):
    failures = launch(tmp_path, {'a': FAILS, 'b': CRASHES, 'c': DONE})
    assert failures[0] == 'a, seed 0: it diverged'
    log = tmp_path / 'b' / 'seed_0' / 'log.txt'
    assert failures[1] == f'b, seed 0: it ended with exit code -6; {log} says more'
    assert log.read_text().startswith('so long')
    assert len(failures) == 2
    assert (tmp_path / 'order').read_text() == 'c '
    assert launch(tmp_path, {'a': DONE, 'b': FAILS, 'c': DONE}) == ['b, seed 0: it diverged']
    assert not (tmp_path / 'a' / 'seed_0' / 'failure.txt').exists()


def test_a_run_that_ends_well_without_a_result_has_failed(tmp_path):
    assert 'exit code 0' in launch(tmp_path, {'a': 'pass'})[0]


def test_a_run_that_is_stopped_alone_is_not_done(tmp_path):
    failures = launch(tmp_path, {'a': 'raise SystemExit(75)', 'b': DONE})
    assert failures == ['a, seed 0: it was stopped alone; the same command resumes it']
    assert not (tmp_path / 'a' / 'seed_0' / 'failure.txt').exists()


def test_several_at_a_time_share_the_cores(tmp_path, monkeypatch):
    """Each waits for the other, so that one after the other would never end."""
    monkeypatch.delenv('JAX_NUM_CPU_DEVICES', raising=False)
    monkeypatch.setattr('nsr_jax.studies.launching.count_cores', lambda: 6)
    waits = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / 'ready').write_text(os.environ['JAX_NUM_CPU_DEVICES'])
while len(list(folder.parents[1].glob('*/*/ready'))) < 2:
    time.sleep(0.01)
"""
    assert launch(tmp_path, {'a': waits + DONE, 'b': waits + DONE}, jobs=2) == []
    assert (tmp_path / 'a' / 'seed_0' / 'ready').read_text() == '3'


def test_sigterm_reaches_every_run(tmp_path):
    process = launch_in_a_process(tmp_path, {'a': SAVES, 'b': SAVES, 'c': DONE})
    try:
        wait_for(tmp_path / 'a' / 'seed_0' / 'ready', tmp_path / 'b' / 'seed_0' / 'ready')
        process.terminate()
        assert process.wait(timeout=300) == 75
    finally:
        process.kill()
    assert {path.parts[-3] for path in tmp_path.glob('*/*/saved')} == {'a', 'b'}
    assert not list(tmp_path.glob('*/*/failure.txt'))
    assert not (tmp_path / 'order').exists()  # c has not been started
    assert launch(tmp_path, {'a': DONE, 'b': DONE, 'c': DONE}) == []


def test_a_second_sigterm_reaches_them_too(tmp_path):
    process = launch_in_a_process(tmp_path, {'a': IS_BUSY})
    try:
        wait_for(tmp_path / 'a' / 'seed_0' / 'ready')
        process.terminate()
        wait_for(tmp_path / 'a' / 'seed_0' / 'heard')
        process.terminate()
        assert process.wait(timeout=300) == 75
    finally:
        process.kill()


def test_a_damaged_result_is_named(tmp_path):
    assert launch(tmp_path, {'a': DONE}) == []
    (tmp_path / 'a' / 'seed_0' / RESULT).write_text('{"scores": 3}')
    with pytest.raises(UserError, match=r'result.json cannot be read as the result of a run'):
        launch(tmp_path, {'a': DONE})
