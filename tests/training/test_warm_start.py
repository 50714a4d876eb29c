"""Runs that begin with the weights of another run: which are taken, which are new, and which are refused."""

import logging as standard_logging
import shutil

import jax
import numpy as np
import pytest

from nsr_jax.errors import UserError
from nsr_jax.models.build import build_network
from nsr_jax.optimizers import adam
from nsr_jax.trained import load_model
from nsr_jax.training.checkpoints import Checkpoints, save_model
from nsr_jax.training.loop import first_state, train
from nsr_jax.training.run import check_run, prepare_run
from nsr_jax.training.sharding import make_mesh
from nsr_jax.training.state import averages_of, create_state
from nsr_jax.training.warm_start import begin_with, check_warm_start

ADAM = adam(lambda step: 1e-3)
CHAIN = {'kernel_sizes': (3, 3), 'features': (4,), 'adds_input': True}


@pytest.fixture(scope='module')
def other_run(tmp_path_factory, make_config):
    """A workdir with weights of scale 2, from another seed than that of the runs that begin with them."""
    workdir = tmp_path_factory.mktemp('other')
    config = make_config()
    params = create_state(build_network(config.model), ADAM, make_mesh(-1, 1, 4), seed=7).params
    save_model(workdir, jax.tree.map(np.asarray, params), config, step=5)
    return workdir


def assert_same(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for leaf, wanted in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(leaf, wanted)


def state_and_log(config, workdir, caplog):
    check_run(config, workdir)
    run, checkpoints = prepare_run(config), Checkpoints(workdir, 1)
    caplog.set_level(standard_logging.INFO, 'absl')  # set only now, because preparing images sets absl's own level
    try:
        return first_state(config, run, checkpoints), caplog.text
    finally:
        checkpoints.close()


def test_another_scale_takes_head_and_blocks(config, other_run, tmp_path, caplog):
    config.model.scale = 3
    config.warm_start = str(other_run)
    state, log = state_and_log(config, tmp_path, caplog)
    taken = load_model(other_run).params
    new = create_state(build_network(config.model), ADAM, make_mesh(-1, 1, 4), seed=0)
    for name in ('head', 'block_00'):
        assert_same(state.params[name], taken[name])
    for name in ('tail', 'skip'):
        assert_same(state.params[name], new.params[name])
    assert list(state.params) == list(new.params)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == jax.tree.map(lambda leaf: leaf.sharding, new)
    assert_same((state.step, state.optimizer), (new.step, new.optimizer))
    line = 'step 5: head, 1 blocks taken; tail and skip new, for scale 3 and not 2'
    assert f'beginning with the weights of {other_run / "checkpoints" / "5"}, {line}' in log


def test_the_same_network_takes_everything(config, other_run, tmp_path, caplog):
    config.warm_start = str(other_run / 'checkpoints' / '5')
    state, log = state_and_log(config, tmp_path, caplog)
    assert_same(state.params, load_model(other_run).params)
    assert 'head, skip, tail, 1 blocks taken\n' in log


def test_the_moving_average_of_another_run_is_taken_and_begins_that_of_this_run(config, other_run, tmp_path, caplog):
    weights = load_model(other_run).params
    ema = jax.tree.map(lambda leaf: leaf + 1, weights)
    with Checkpoints(tmp_path / 'averaged', 1) as checkpoints:
        checkpoints.save(5, config, weights, averages={'ema': ema})
    config.warm_start, config.ema_decay, config.model.scale = str(tmp_path / 'averaged'), 0.9, 3
    state, log = state_and_log(config, tmp_path / 'run', caplog)
    for tree in (state.params, state.ema):
        assert_same(tree['head'], ema['head'])
    assert_same(state.ema, state.params)
    assert 'step 5, EMA: head, 1 blocks taken; ' in log


def test_the_average_of_schedule_free_begins_with_the_weights_too(config, other_run, tmp_path, caplog):
    config.warm_start, config.optimizer.name = str(other_run), 'schedule_free'
    state, _ = state_and_log(config, tmp_path, caplog)
    for leaf, wanted in zip(*map(jax.tree.leaves, (averages_of(state), load_model(other_run).params)), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-5, atol=1e-7)


def test_a_chain_of_another_scale_takes_everything(config, tmp_path):
    config.model = {'architecture': 'chain', 'scale': 2, 'channels': 1, **CHAIN}
    params = create_state(build_network(config.model), ADAM, make_mesh(-1, 1, 4), seed=7).params
    save_model(tmp_path, jax.tree.map(np.asarray, params), config)
    config.model.scale = 4
    config.warm_start = str(tmp_path)
    state = begin_with(create_state(build_network(config.model), ADAM, make_mesh(-1, 1, 4), seed=0), config)
    assert_same(state.params, params)


@pytest.mark.parametrize(
    ('changes', 'difference'),
    [
        ({'features': 12}, 'features 12 here, 8 there'),
        ({'groups': 4, 'num_blocks': 2}, 'num_blocks 2 here, 1 there; groups 4 here, 2 there'),
        ({'gate': 'sigmoid', 'scale': 3}, 'gate sigmoid here, softmax there'),
    ],
)
def test_another_network_is_refused_before_anything_is_written(config, other_run, tmp_path, changes, difference):
    config.model.update(changes)
    config.warm_start = str(other_run)
    with pytest.raises(UserError, match=rf'^config.warm_start: .*5 is of another network: {difference}$'):
        train(config, tmp_path / 'run')
    assert not list((tmp_path / 'run').iterdir())


def test_another_task_and_a_missing_run_are_refused(config, other_run, tmp_path):
    config.warm_start = str(other_run)
    config.task = 'denoise'
    with pytest.raises(UserError, match=r'task denoise here, sr there$'):
        check_warm_start(config, tmp_path)
    config.warm_start = str(tmp_path / 'nothing')
    with pytest.raises(UserError, match=r'^config.warm_start: no checkpoint at .*nothing: there is no such folder'):
        check_warm_start(config, tmp_path)


def test_a_run_that_goes_on_does_not_read_them_again(config, other_run, tmp_path, metrics_of):
    """A run that resumes without the other run's folder has the numbers of a run that was never stopped."""
    there = shutil.copytree(other_run, tmp_path / 'there')
    config.update(num_steps=4, checkpoint_every_steps=2, log_every_steps=1, warm_start=str(there))
    train(config, tmp_path / 'whole')
    (tmp_path / 'whole' / 'checkpoints' / '4').rename(tmp_path / 'last')
    there.rename(tmp_path / 'elsewhere')
    before = metrics_of(tmp_path / 'whole')
    train(config, tmp_path / 'whole')
    assert metrics_of(tmp_path / 'whole') == before
    assert_same(load_model(tmp_path / 'whole').params, load_model(tmp_path / 'last').params)
