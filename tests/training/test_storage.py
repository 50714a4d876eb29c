"""Disks that corrupt files, fill up or are shared: the last good checkpoint stays, and an error names the fault."""

import ctypes
import errno
import fcntl
import json
import os
import resource
import shutil

import jax
import pytest

from nsr_jax.errors import UserError
from nsr_jax.trained import load_model
from nsr_jax.training.loop import train


@pytest.fixture
def workdir(tmp_path, finished):
    shutil.copytree(finished, tmp_path / 'run')
    return tmp_path / 'run'


def largest_of_arrays(item):
    """The largest file with arrays of an item: a save spreads them anew, maybe over files smaller than all others."""
    return max(item.glob('ocdbt.process_0/d/*'), key=lambda path: path.stat().st_size)


def truncate(checkpoint):
    path = largest_of_arrays(checkpoint / 'params')
    os.truncate(path, path.stat().st_size // 2)


def flip_bit_of_weights(checkpoint):
    flip_bit(largest_of_arrays(checkpoint / 'params'))


def flip_bit_of_moments(checkpoint):
    flip_bit(largest_of_arrays(checkpoint / 'optimizer'))


def flip_bit(path):
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 16
    path.write_bytes(contents)


def change_step(checkpoint):
    path = checkpoint / 'metadata' / 'metadata'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'step': 11}))


def lose_metadata(checkpoint):
    shutil.rmtree(checkpoint / 'metadata')


def lose_moments(checkpoint):
    shutil.rmtree(checkpoint / 'optimizer')


def lose_everything(checkpoint):
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


DAMAGES = [
    truncate, flip_bit_of_weights, flip_bit_of_moments, change_step, lose_metadata, lose_moments, lose_everything,
]  # fmt: skip


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_broken_checkpoint_is_set_aside_and_its_steps_are_taken_again(
    workdir, finished, config, metrics_of, caplog, damage
):
    damage(workdir / 'checkpoints' / '12')
    train(config, workdir)
    assert metrics_of(workdir) == metrics_of(finished)
    again, before = (load_model(path / 'checkpoints' / '12') for path in (workdir, finished))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again.params, before.params))
    assert [path.name for path in (workdir / 'broken_checkpoints').iterdir()] == ['12_1']
    assert f'{workdir}/checkpoints/12' in caplog.text
    assert 'continuing from an older checkpoint' in caplog.text


def test_two_broken_ones_leave_the_third(workdir, config, metrics_of, finished):
    flip_bit_of_weights(workdir / 'checkpoints' / '12')
    truncate(workdir / 'checkpoints' / '10')
    train(config, workdir)
    assert metrics_of(workdir) == metrics_of(finished)


def test_where_all_are_broken_nothing_starts_anew(workdir, config):
    before = (workdir / 'metrics.jsonl').read_bytes()
    for step in ('5', '10', '12'):
        flip_bit_of_weights(workdir / 'checkpoints' / step)
    with pytest.raises(UserError, match=r'no checkpoint can be read: .*checkpoints/12.*; .*checkpoints/5'):
        train(config, workdir)
    assert (workdir / 'metrics.jsonl').read_bytes() == before
    assert sorted(path.name for path in (workdir / 'checkpoints').iterdir()) == ['10', '12', '5']


@pytest.mark.parametrize('damage', [truncate, flip_bit_of_weights, change_step, lose_metadata, lose_everything])
def test_broken_weights_are_not_evaluated(workdir, damage):
    damage(workdir / 'checkpoints' / '12')
    with pytest.raises(UserError, match='checkpoints/12'):
        load_model(workdir)


def test_what_a_killed_save_leaves_is_removed(workdir, config, finished, metrics_of):
    """Also that of a step that is not saved a second time."""
    for left in ('11.orbax-checkpoint-tmp', '12.orbax-checkpoint-tmp'):
        shutil.copytree(workdir / 'checkpoints' / '12', workdir / 'checkpoints' / left)
        shutil.rmtree(workdir / 'checkpoints' / left / 'params')
    shutil.rmtree(workdir / 'checkpoints' / '12')
    train(config, workdir)
    assert metrics_of(workdir) == metrics_of(finished)
    assert sorted(path.name for path in (workdir / 'checkpoints').iterdir()) == ['10', '12', '5']


def test_what_may_be_another_jobs_is_not_removed(workdir, config, monkeypatch):
    left = workdir / 'checkpoints' / '11.orbax-checkpoint-tmp'
    left.mkdir()

    def no_locks(*_):
        raise OSError(errno.ENOTSUP, 'Operation not supported')

    monkeypatch.setattr(fcntl, 'flock', no_locks)
    train(config, workdir)
    assert left.exists()


def test_one_job_at_a_time(workdir, config):
    with (workdir / '.lock').open('a+') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write('process 1 on a_machine\n')
        file.flush()
        with pytest.raises(UserError, match=r'another job trains in .*: process 1 on a_machine'):
            train(config, workdir)
    train(config, workdir)  # the process that held it is gone


def test_a_disk_without_space_costs_no_checkpoint(workdir, config, job, finished, metrics_of):
    """A limit on the size of files, below one of each checkpoint, acts like a full disk."""
    shutil.rmtree(workdir / 'checkpoints' / '12')
    # This file keeps its size from save to save.
    limit = (workdir / 'checkpoints' / '10' / 'optimizer' / '_METADATA').stat().st_size // 2
    code, error = job.run(config, workdir, prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert code == 2, error
    last = error.splitlines()[-1].lstrip()  # of a line that another thread had begun to write
    assert last.startswith(f'error: a checkpoint cannot be written into {workdir}/checkpoints: ')
    assert last.endswith('complete there are those of steps: 5, 10')
    train(config, workdir)
    assert metrics_of(workdir) == metrics_of(finished)


def without_rights_of_root():
    """Make the permissions of files apply to root, too."""
    drop_from_bounding_set, may_write_everywhere = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(drop_from_bounding_set, may_write_everywhere, 0, 0, 0):
        raise OSError('prctl')


def test_a_folder_that_became_read_only_costs_no_checkpoint(workdir, config, job, finished, metrics_of):
    checkpoints = workdir / 'checkpoints'
    shutil.rmtree(checkpoints / '12')
    before = metrics_of(workdir)
    checkpoints.chmod(0o555)
    try:
        code, error = job.run(config, workdir, prepare=without_rights_of_root)
    finally:
        checkpoints.chmod(0o755)
    assert code == 2, error
    # The error comes before the first step, not at the next checkpoint.
    assert error.splitlines()[-1] == f'error: folder {checkpoints} cannot be written into: Permission denied'
    assert metrics_of(workdir) == before
    train(config, workdir)
    assert metrics_of(workdir) == metrics_of(finished)
