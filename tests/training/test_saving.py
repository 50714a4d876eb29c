"""A workdir that is lost during a run, and images that have changed before a run resumes."""

import functools
import shutil

import jax
import numpy as np
import optax
import pytest

from nsr_jax.errors import UserError
from nsr_jax.images.writing import write_image
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.trained import load_model
from nsr_jax.training.history import config_at, find_differences, read_changes, write_config
from nsr_jax.training.loop import train
from nsr_jax.training.saving import Saver
from nsr_jax.training.state import TrainState
from nsr_jax.training.workdir import lock_workdir


@pytest.fixture
def state(config):
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, 'f'), parameter_shapes(build_network(config.model)))
    return TrainState(np.int32(7), params, optax.scale_by_adam().init(params), np.int32(0))


def remove(workdir):
    shutil.rmtree(workdir)


def move(workdir):
    workdir.rename(workdir.with_name('moved'))


def exchange(workdir):
    """Put the folder of another run in its place."""
    move(workdir)
    (workdir / 'checkpoints' / '5').mkdir(parents=True)
    (workdir / '.lock').write_text('process 1 on a_machine\n')


def remove_checkpoints(workdir):
    shutil.rmtree(workdir / 'checkpoints')


def exchange_checkpoints(workdir):
    (workdir / 'checkpoints').rename(workdir / 'old')
    (workdir / 'checkpoints').mkdir()


def remove_lock(workdir):
    (workdir / '.lock').unlink()


def exchange_lock(workdir):
    remove_lock(workdir)
    (workdir / '.lock').write_text('process 1 on a_machine\n')


LOSSES = {
    remove: ' was removed or replaced',
    move: ' was moved to {}/moved ',
    exchange: ' was moved to {}/moved ',
    remove_checkpoints: '/checkpoints was removed or replaced',
    exchange_checkpoints: '/checkpoints was moved to {}/run/old ',
    remove_lock: '/.lock was removed or replaced',
    exchange_lock: '/.lock was removed or replaced',
}


@pytest.mark.parametrize('lose', LOSSES, ids=lambda lose: lose.__name__)
def test_a_lost_workdir_is_noticed_and_the_state_saved_beside_it(tmp_path, config, state, lose):
    workdir = tmp_path / 'run'
    workdir.mkdir()
    write_config(workdir, config)
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), (state.params, state.optimizer)
    )
    with lock_workdir(workdir), pytest.raises(UserError) as error, Saver(workdir, config, 'images', {}) as saver:
        saver.save(5, state, None)
        saver.checkpoints.restore(5, *abstract)  # waits for it
        saver.changes = [{'step': 5, 'changes': {'learning_rate': {'from': 0.01, 'to': config.learning_rate}}}]
        lose(workdir)
        left = {path: path.lstat().st_mtime_ns for path in [*workdir.rglob('*')]}
        saver.save(7, state, None)
    assert {path: path.lstat().st_mtime_ns for path in [*workdir.rglob('*')]} == left
    (rescued,) = tmp_path.glob('run.rescued.*')
    message = str(error.value)
    assert message.startswith(f'{workdir}{LOSSES[lose].format(tmp_path)}')
    assert message.endswith(f'the state of step 7 is saved in {rescued}: continue from it with --workdir={rescued}')
    assert load_model(rescued).step == 7
    assert find_differences(rescued, config) == {}
    assert config_at(config, read_changes(rescued), 4).learning_rate == 0.01
    assert workdir.exists() == (lose not in (remove, move))


def test_where_nothing_can_be_saved_the_state_is_said_to_be_lost(tmp_path, config, state):
    workdir = tmp_path / 'folder' / 'run'
    workdir.mkdir(parents=True)
    with lock_workdir(workdir), pytest.raises(UserError) as error, Saver(workdir, config, '', {}) as saver:
        remove(workdir.parent)
        saver.check(7, state)
    assert 'the state of step 7 is lost: ' in str(error.value)
    assert not workdir.parent.exists()


def test_the_error_names_the_lost_workdir_and_not_what_fails_after_it(tmp_path, config, state, monkeypatch):
    """When the folder is lost, writing in the background fails too, with an error that says less."""

    def close(self):
        closed.append(self)
        raise UserError('a checkpoint cannot be written')

    closed = []
    workdir = tmp_path / 'run'
    workdir.mkdir()
    removed = pytest.raises(UserError, match='removed or replaced')
    with lock_workdir(workdir), removed, Saver(workdir, config, '', {}) as saver:
        remove(workdir)
        monkeypatch.setattr(saver.checkpoints, 'close', functools.partial(close, saver.checkpoints))
        saver.check(7, state)
    assert closed == [saver.checkpoints]


def test_a_run_ends_whose_workdir_is_moved_and_goes_on_exactly(tmp_path, config, metrics_of):
    def evaluate(params):
        if (tmp_path / 'run').exists():
            move(tmp_path / 'run')
        return 30.0, {'psnr': 30.0}

    with pytest.raises(UserError, match=r'run was moved to .*; the state of step 8 is saved in'):
        train(config, tmp_path / 'run', evaluate)
    assert not (tmp_path / 'run').exists()
    assert [line['step'] for line in metrics_of(tmp_path / 'moved')] == [3, 5, 6, 8, 8]
    (rescued,) = tmp_path.glob('run.rescued.*')
    train(config, rescued, evaluate)
    train(config, tmp_path / 'moved', evaluate)  # from step 5
    assert metrics_of(rescued) == metrics_of(tmp_path / 'moved')[5:]
    whole, parts = (load_model(folder / 'checkpoints' / '12') for folder in (tmp_path / 'moved', rescued))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), whole.params, parts.params))


def test_other_images_are_said_when_a_run_goes_on(tmp_path, config, image_folder, caplog):
    shutil.copytree(image_folder, tmp_path / 'images')
    config.data.source = str(tmp_path / 'images')
    config.update(num_steps=2)
    measured_on = {'images': 'a', 'protocol': 'sr-y'}
    train(config, tmp_path / 'run', lambda params: (30.0, {'psnr': 30.0}), measured_on)
    train(config, tmp_path / 'run', lambda params: (30.0, {'psnr': 30.0}), measured_on)
    assert 'are not those of' not in caplog.text and 'no longer measured' not in caplog.text

    write_image(tmp_path / 'images' / '0.png', np.zeros((90, 60, 3), np.uint8))
    train(config, tmp_path / 'run', lambda params: (30.0, {'psnr': 30.0}), measured_on | {'images': 'b'})
    assert 'the training images are not those of step 2 (4 images images_' in caplog.text
    assert 'scores are no longer measured as at step 2 (images a then, b now): the best checkpoint is' in caplog.text
