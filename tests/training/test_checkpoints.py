import contextlib
import hashlib
import json

import jax
import numpy as np
import pytest

from nsr_jax.errors import UserError
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.trained import load_model
from nsr_jax.training import checkpoints as module
from nsr_jax.training.checkpoints import Checkpoints, save_model


@pytest.fixture
def params(config):
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda s: generator.normal(size=s.shape).astype('f'), parameter_shapes(build_network(config.model))
    )


def plus(params, number):
    return jax.tree.map(lambda leaf: leaf + np.float32(number), params)


def test_the_last_ones_and_the_best_one_are_kept(tmp_path, config, params, caplog):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, psnr in ((1, 30.0), (2, 32.0), (3, None), (4, 31.0), (5, None)):
        checkpoints.save(step, config, plus(params, step), merit=psnr)
    assert checkpoints.steps[-1] == 5
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / 'checkpoints').iterdir()) == ['2', '4', '5']

    caplog.set_level('INFO', logger='absl')
    best = load_model(tmp_path)
    assert best.step == 2
    assert load_model(tmp_path, which='last').step == 5
    with pytest.raises(UserError, match="which checkpoint must be best or last, not 'first'"):
        load_model(tmp_path, which='first')
    taken = [
        f'{tmp_path}: taking its {which}' for which in ('best checkpoint, of step 2', 'last checkpoint, of step 5')
    ]
    assert [line for line in caplog.messages if 'taking' in line] == taken
    assert best.config.to_dict() == config.to_dict()  # tuples too, which become lists in JSON
    expected = plus(params, 2)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), best.params, expected))
    assert load_model(tmp_path / 'checkpoints' / '5', which='best').step == 5


def test_without_scores_the_last_one_is_loaded(tmp_path, config, params, caplog):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (9, 10):
        checkpoints.save(step, config, params)
    checkpoints.close()
    caplog.set_level('INFO', logger='absl')
    assert load_model(tmp_path).step == 10
    assert f'{tmp_path}: taking its last checkpoint (none was scored), of step 10' in caplog.messages


def test_a_step_is_saved_once(tmp_path, config, params):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, config, params)
    checkpoints.save(1, config, plus(params, 1))
    checkpoints.close()
    loaded = load_model(tmp_path).params
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), loaded, params))


def test_weights_alone_are_not_trained_on(tmp_path, config, params):
    save_model(tmp_path, params, config, step=3)
    checkpoints = Checkpoints(tmp_path, keep=1)
    with pytest.raises(UserError, match='checkpoints/3 holds weights alone'):
        checkpoints.restore(3, params, {})
    checkpoints.close()


def test_the_moving_average_is_kept_beside_the_weights_and_loaded_instead(tmp_path, config, params):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(1, config, params, {'count': np.zeros(2, 'f')}, averages={'ema': plus(params, 1)})
        checkpoints.save(2, config, params, {'count': np.zeros(2, 'f')})
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
        optimizer = {'count': jax.ShapeDtypeStruct((2,), 'f')}
        raw, _, ema = checkpoints.restore(1, shapes, optimizer, shapes)
        assert same(raw, params) and same(ema, plus(params, 1))
        assert checkpoints.restore(2, shapes, optimizer)[2] is None
        with pytest.raises(UserError, match='checkpoints/2 holds no moving average of the weights: continue with'):
            checkpoints.restore(2, shapes, optimizer, shapes)
    averaged, plain = (load_model(tmp_path / 'checkpoints' / str(step)) for step in (1, 2))
    assert same(averaged.params, plus(params, 1)) and same(plain.params, params)
    assert (averaged.origin, plain.origin) == ('step 1, EMA', 'step 2')


def same(tree, other):
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), tree, other))


def test_a_score_that_is_no_number_is_never_the_best(tmp_path, config, params):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, psnr in ((1, 30.0), (2, float('nan')), (3, 20.0)):
        checkpoints.save(step, config, params, merit=psnr)
    checkpoints.close()
    assert load_model(tmp_path).step == 1


SCORED = [(1, 40.0, ''), (2, 36.0, 'a'), (3, 35.0, 'a'), (4, None, 'b'), (5, 30.0, 'b'), (6, 29.0, 'b')]


@pytest.mark.parametrize(('until', 'kept', 'best'), [(1, {1}, 1), (4, {2, 4}, 2), (5, {5}, 5), (6, {5, 6}, 5)])
def test_scores_on_other_images_do_not_compete(tmp_path, config, params, until, kept, best):
    """An older version saved the first scores without the images on which they were measured."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step, psnr, images in SCORED[:until]:
        measured_on = {'images': images, 'protocol': 'sr-y'} if images else {}
        checkpoints.save(step, config, params, merit=psnr, images='c', measured_on=measured_on)
    checkpoints.close()
    assert checkpoints.read_origin(until) == ('c', measured_on)
    assert {int(path.name) for path in (tmp_path / 'checkpoints').iterdir()} == kept
    assert load_model(tmp_path).step == best


def test_a_checkpoint_of_an_older_version_is_read(tmp_path, config, params):
    """It holds only the PSNR, without the images on which it was measured."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, psnr in ((1, 31.0), (2, 30.0)):
        checkpoints.save(step, config, params, merit=psnr)
    checkpoints.close()
    for step, psnr in ((1, 31.0), (2, 30.0)):
        folder = tmp_path / 'checkpoints' / str(step)
        (folder / 'metrics' / 'metrics').write_text(json.dumps({'psnr': psnr}))
        metadata = json.loads((folder / 'metadata' / 'metadata').read_text())
        old = {name: metadata[name] for name in ('config', 'step', 'nsr_jax_version', 'fingerprints')}
        digest = hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()
        (folder / 'metadata' / 'metadata').write_text(json.dumps(old | {'sha256': digest}))
    assert load_model(tmp_path).step == 1
    with contextlib.closing(Checkpoints(tmp_path, keep=2)) as checkpoints:
        assert checkpoints.read_origin(2) == ('', {})
        checkpoints.save(3, config, params, merit=29.0, measured_on={'images': 'a'})
    assert load_model(tmp_path).step == 3


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path, config, params):
    config.model.features = 16
    with pytest.raises(UserError, match='the first checkpoint was written, but cannot be read back: '):
        save_model(tmp_path, params, config)
    with pytest.raises(UserError, match='cannot be read'):
        load_model(tmp_path)


def test_a_folder_that_orbax_takes_for_a_pattern_is_refused(tmp_path, config, params):
    with pytest.raises(UserError, match=r"run\[1\] has '\[' in it, which libraries"):
        save_model(tmp_path / 'run[1]', params, config)
    assert not (tmp_path / 'run[1]').exists()


def test_the_first_checkpoint_is_read_back(tmp_path, config, params, monkeypatch):
    """Orbax loses a checkpoint in such a folder without an error."""
    monkeypatch.setattr(module, 'check_for_libraries', lambda *_: None)
    checkpoints = Checkpoints(tmp_path / 'run[1]', keep=1)
    with pytest.raises(UserError, match=r'the first checkpoint was written, but cannot be read back: .*NOT_FOUND'):
        checkpoints.save(1, config, params)
    checkpoints.close()


def test_a_checkpoint_is_read_wherever_it_was_copied_to(tmp_path, config, params):
    save_model(tmp_path / 'run', params, config, step=3)
    (tmp_path / 'run').rename(tmp_path / 'old [1]*')
    assert load_model(tmp_path / 'old [1]*').step == 3


@pytest.mark.parametrize('kind', ['file', 'link to nowhere'])
def test_what_is_no_folder_of_checkpoints_is_named(tmp_path, kind):
    path = tmp_path / 'checkpoints'
    path.write_text('') if kind == 'file' else path.symlink_to('/nowhere/x')
    with pytest.raises(UserError, match='checkpoints cannot be written into: '):
        Checkpoints(tmp_path, keep=1)
