"""Cells of a sweep: scored once, kept, and known by all that they depend on."""

import jax
import numpy as np
import pytest

from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.degradation import Degradation
from nsr_jax.evaluation.protocols import find_protocols
from nsr_jax.evaluation.sweep import Contender, baseline_contenders, network_contenders, parse_ensembles, run_sweep
from nsr_jax.evaluation.tables import from_json
from nsr_jax.evaluation.tiling import Tiling
from nsr_jax.models.network import RestorationNetwork

SIGMAS = [Degradation('denoise', sigma) for sigma in (15, 25)]
DENOISE = find_protocols(['denoise'])


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return open_source('photos', '', 1, tfds_dir=tmp_path_factory.mktemp('tfds'))


class Killed(BaseException):
    """Stands for a signal: no handler of errors sees it."""


def counting(calls, name, identity, *, dies_at=None):
    def predictor(image):
        calls.append(name)
        if len(calls) == dies_at:
            raise Killed
        return image

    return Contender(name, identity, lambda degradation: [predictor])


def test_a_killed_sweep_goes_on_where_it_was(photos, tmp_path):
    calls = []
    with pytest.raises(Killed):  # in the second image of the third of four cells
        run_sweep(
            [counting(calls, 'a', '1', dies_at=6), counting(calls, 'b', '1', dies_at=6)],
            [photos], DENOISE, SIGMAS, tmp_path,
        )  # fmt: skip
    assert len(list((tmp_path / 'cells').iterdir())) == 2
    done = from_json((tmp_path / 'scores.json').read_text())
    assert len(done) == 4

    calls.clear()
    scores = run_sweep([counting(calls, 'a', '1'), counting(calls, 'b', '1')], [photos], DENOISE, SIGMAS, tmp_path)
    assert calls == ['a', 'a', 'b', 'b']  # the cells that were not done, from their start
    assert scores[:4] == done
    assert from_json((tmp_path / 'scores.json').read_text()) == scores
    assert len({(each.model, each.degradation, each.image) for each in scores}) == 8


def test_a_cell_is_scored_again_when_what_it_depends_on_changes(photos, tmp_path):
    calls = []
    for identity, protocols, expected in (
        ('1', DENOISE, 2),
        ('1', DENOISE, 0),
        ('2', DENOISE, 2),  # other weights under the same name
        ('2', find_protocols(['denoise', 'denoise-authors']), 4),
    ):
        calls.clear()
        run_sweep([counting(calls, 'a', identity)], [photos], protocols, SIGMAS[:1], tmp_path)
        assert len(calls) == expected


def test_a_changed_dataset_is_scored_again(photos, tmp_path):
    calls, fingerprint = [], photos.fingerprint
    assert fingerprint
    try:
        for changed, expected in (('', 2), ('', 0), ('other files', 2)):
            photos.fingerprint = fingerprint + changed
            calls.clear()
            run_sweep([counting(calls, 'a', '1')], [photos], DENOISE, SIGMAS[:1], tmp_path)
            assert len(calls) == expected
    finally:
        photos.fingerprint = fingerprint


def test_a_network_is_known_by_its_weights_and_the_way_it_is_applied():
    network = RestorationNetwork(scale=1, channels=1, num_blocks=1, features=4)
    params = jax.jit(network.init)(jax.random.key(0, impl='rbg'), np.zeros((1, 8, 8, 1), 'f'))['params']
    tilings = [Tiling('whole'), Tiling('feathered', 64, 8)]
    contenders = network_contenders('runs/a', network, params, tilings, [False, True])
    assert [each.name for each in contenders] == [
        'runs/a, tiling whole', 'runs/a, tiling whole, x8 ensemble',
        'runs/a, tiling feathered 64/8', 'runs/a, tiling feathered 64/8, x8 ensemble',
    ]  # fmt: skip
    assert len({each.identity for each in contenders}) == 4
    (named,) = network_contenders('sr_x2', network, params, tilings[:1], [False], form='{} ({})')
    assert named.name == 'sr_x2 (tiling whole)'
    assert named.identity == contenders[0].identity
    (again,) = network_contenders('runs/a', network, params, tilings[:1], [False])
    assert again.identity == contenders[0].identity
    other = jax.tree.map(lambda leaf: leaf * 1.0001, params)
    (changed,) = network_contenders('runs/a', network, other, tilings[:1], [False])
    assert changed.identity != again.identity

    image = np.random.default_rng(0).random((20, 30, 1)).astype('f')
    alone, averaged = (each.predictors(SIGMAS[0])[0](image) for each in contenders[:2])
    assert np.abs(alone - averaged).max() > 1e-6


def test_mistakes(photos, tmp_path):
    with pytest.raises(UserError, match='two datasets are called photos'):
        run_sweep(baseline_contenders(['degraded'], SIGMAS), [photos, photos], DENOISE, SIGMAS, tmp_path)
    with pytest.raises(UserError, match='two models are called degraded'):
        run_sweep(baseline_contenders(['degraded'] * 2, SIGMAS), [photos], DENOISE, SIGMAS, tmp_path)
    with pytest.raises(UserError, match='bicubic is for sr'):
        baseline_contenders(['bicubic'], SIGMAS)
    with pytest.raises(UserError, match="1 or 8 orientations, not '4'"):
        parse_ensembles(['1', '4'])
    assert not list(tmp_path.iterdir())
    run_sweep(baseline_contenders(['degraded'], SIGMAS), [photos], DENOISE, SIGMAS[:1], tmp_path)
    (cell,) = (tmp_path / 'cells').iterdir()
    cell.write_text('{')
    with pytest.raises(UserError, match=f'{cell.name}: .*remove it'):
        run_sweep(baseline_contenders(['degraded'], SIGMAS), [photos], DENOISE, SIGMAS[:1], tmp_path)
