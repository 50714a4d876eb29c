"""Cells of a sweep: scored once, kept, and identified by everything that they depend on."""

import dataclasses
import hashlib
import importlib
import json
import os
import shutil
import sys

import jax
import numpy as np
import pytest

from nsr_jax.atomic_files import TEMPORARY
from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.cells import (
    Contender,
    Sweep,
    baseline_contenders,
    network_contenders,
    parse_ensembles,
    run_sweep,
)
from nsr_jax.evaluation.scoring import evaluate
from nsr_jax.evaluation.tables import from_json, read_models
from nsr_jax.images.writing import write_image
from nsr_jax.inference.tiling import Tiling
from nsr_jax.metrics import METRICS, Metric, find_metrics
from nsr_jax.models.residual import RestorationNetwork
from nsr_jax.tasks import Degradation, find_protocols

SIGMAS = [Degradation('denoise', sigma) for sigma in (15, 25)]
DENOISE = find_protocols('denoise', ['denoise'])
USUAL = find_metrics(['psnr', 'ssim'])


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Two small images."""
    folder = tmp_path_factory.mktemp('folder') / 'photos'
    for seed in range(2):
        write_image(folder / f'{seed}.png', np.random.default_rng(seed).integers(0, 256, (24, 20, 3), np.uint8))
    return open_source(folder, '', 1, tfds_dir=tmp_path_factory.mktemp('tfds'))


class Killed(BaseException):
    """Stands for a kill: no handler of errors catches it."""


def counting(calls, name, identity, *, dies_at=None):
    def predictor(image):
        calls.append(name)
        if len(calls) == dies_at:
            raise Killed
        return image

    return Contender(name, identity, lambda degradation: [predictor])


def scored(photos, output, sigma=SIGMAS[0], *, calls=None, identity='1', protocols=DENOISE, metrics=USUAL):
    """Score one contender at one level; `calls` gets an entry for each predicted image."""
    contender = counting([] if calls is None else calls, 'a', identity)
    return run_sweep(Sweep([contender], [photos], protocols, [sigma], metrics), output)


def test_a_killed_sweep_goes_on_where_it_was(photos, tmp_path):
    calls = []
    with pytest.raises(Killed):  # in the second image of the third of four cells
        contenders = [counting(calls, 'a', '1', dies_at=6), counting(calls, 'b', '1', dies_at=6)]
        run_sweep(Sweep(contenders, [photos], DENOISE, SIGMAS, USUAL), tmp_path)
    assert len(list((tmp_path / 'cells').iterdir())) == 2
    done = from_json((tmp_path / 'scores.json').read_text())
    assert len(done) == 4

    calls.clear()
    contenders = [counting(calls, 'a', '1'), counting(calls, 'b', '1')]
    scores = run_sweep(Sweep(contenders, [photos], DENOISE, SIGMAS, USUAL), tmp_path)
    assert calls == ['a', 'a', 'b', 'b']  # the unfinished cells, from their beginning
    assert scores[:4] == done
    assert from_json((tmp_path / 'scores.json').read_text()) == scores
    assert len({(each.model, each.degradation, each.image) for each in scores}) == 8


def test_a_cell_is_scored_again_when_what_it_depends_on_changes(photos, tmp_path):
    calls = []
    for identity, protocols, expected in (
        ('1', DENOISE, 2),
        ('1', DENOISE, 0),
        ('2', DENOISE, 2),  # other weights under the same name
        ('2', find_protocols('denoise', ['denoise', 'denoise-authors']), 4),
    ):
        calls.clear()
        scored(photos, tmp_path, calls=calls, identity=identity, protocols=protocols)
        assert len(calls) == expected


def test_a_changed_dataset_is_scored_again(photos, tmp_path):
    calls, fingerprint = [], photos.fingerprint
    assert fingerprint
    try:
        for changed, expected in (('', 2), ('', 0), ('other files', 2)):
            photos.fingerprint = fingerprint + changed
            calls.clear()
            scored(photos, tmp_path, calls=calls)
            assert len(calls) == expected
    finally:
        photos.fingerprint = fingerprint


def test_a_network_is_known_by_its_weights_and_the_way_it_is_applied():
    network = RestorationNetwork(scale=1, channels=1, num_blocks=1, features=4)
    params = jax.jit(network.init)(jax.random.key(0, impl='rbg'), np.zeros((1, 8, 8, 1), 'f'))['params']
    tilings = [Tiling('whole'), Tiling('feathered', 64, 8)]
    contenders = network_contenders('runs/a', network, params, 7, tilings, [1, 8])
    assert [each.name for each in contenders] == [
        'runs/a (tiling whole)', 'runs/a (tiling whole, x8 ensemble)',
        'runs/a (tiling feathered 64/8)', 'runs/a (tiling feathered 64/8, x8 ensemble)',
    ]  # fmt: skip
    assert [(each.applied['step'], each.applied['tiling'], each.applied['ensemble']) for each in contenders] == [
        (7, 'whole', 1), (7, 'whole', 8), (7, 'feathered 64/8', 1), (7, 'feathered 64/8', 8),
    ]  # fmt: skip
    assert len({each.identity for each in contenders}) == 4
    assert len({each.applied['weights'] for each in contenders}) == 1
    (again,) = network_contenders('runs/b', network, params, 7, tilings[:1], [1])
    assert again.identity == contenders[0].identity
    turned = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[::-1]), params)  # the same bytes
    for other in (jax.tree.map(lambda leaf: leaf * 1.0001, params), turned):
        (changed,) = network_contenders('runs/a', network, other, 7, tilings[:1], [1])
        assert changed.identity != again.identity
        assert changed.applied['weights'] != again.applied['weights']

    image = np.random.default_rng(0).random((20, 30, 1)).astype('f')
    alone, averaged = (each.predictors(SIGMAS[0])[0](image) for each in contenders[:2])
    assert np.abs(alone - averaged).max() > 1e-6


def test_mistakes(photos):
    with pytest.raises(UserError, match='two datasets are called photos'):
        Sweep(baseline_contenders(['degraded'], SIGMAS), [photos, photos], DENOISE, SIGMAS, USUAL)
    with pytest.raises(UserError, match='two models are called degraded'):
        Sweep(baseline_contenders(['degraded'] * 2, SIGMAS), [photos], DENOISE, SIGMAS, USUAL)
    with pytest.raises(UserError, match="unknown baseline 'bicubic': for denoise there is degraded"):
        baseline_contenders(['bicubic'], SIGMAS)
    with pytest.raises(UserError, match="1 or 8 orientations, not '4'"):
        parse_ensembles(['1', '4'])


def test_a_damaged_cell_is_refused_in_one_line(photos, tmp_path):
    scores = scored(photos, tmp_path)
    (cell,) = (tmp_path / 'cells').iterdir()
    whole = cell.read_bytes()
    places = range(0, len(whole), len(whole) // 40)
    damaged = [whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :] for place in places for bit in (1, 128)]
    damaged += [
        b'',
        b'{',
        b'null',
        b'[]',
        b'{"sha256": 5}',
        whole[:-3],
        b'[' * 100_000,
        whole.replace(b'"key"', b'"kez"'),
    ]
    for contents in damaged:
        cell.write_bytes(contents)
        with pytest.raises(UserError, match=f'{cell.name}: .*; remove it to score this cell again') as caught:
            scored(photos, tmp_path)
        assert '\n' not in str(caught.value)
    cell.unlink()
    cell.mkdir()
    with pytest.raises(UserError, match=f'{cell.name}: cannot be read: Is a directory'):
        scored(photos, tmp_path)
    cell.rmdir()
    assert scored(photos, tmp_path) == scores
    assert cell.read_bytes() == whole


def test_a_cell_in_the_place_of_another_is_refused(photos, tmp_path):
    for sigma, folder in zip(SIGMAS, ('a', 'b'), strict=True):
        (tmp_path / folder).mkdir()
        scored(photos, tmp_path / folder, sigma)
    (mine,), (other,) = ((tmp_path / folder / 'cells').iterdir() for folder in ('a', 'b'))
    shutil.copy(other, mine)
    with pytest.raises(UserError, match=f'{mine.name}: the cell of another score, with another degradation; rem'):
        scored(photos, tmp_path / 'a')


def test_levels_that_print_alike_are_scored_apart(photos, tmp_path):
    for sigma in (25.0000001, 25.0000002):
        scored(photos, tmp_path, Degradation('denoise', sigma))
    assert len(list((tmp_path / 'cells').iterdir())) == 2


def test_a_folder_with_the_names_sizes_and_times_of_another_has_its_own_scores(tmp_path):
    psnr = []
    for seed in (0, 1):
        path = tmp_path / str(seed) / 'train' / 'a.png'
        write_image(path, np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8))
        path.write_bytes(path.read_bytes().ljust(6000, b'\0'))
        os.utime(path, (1_700_000_000, 1_700_000_000))
        source = open_source(path.parent, '', 2, tfds_dir=tmp_path / 'tfds')
        bicubic = baseline_contenders(['bicubic'], [Degradation('sr', 2)])
        sr = find_protocols('sr', ['sr-rgb'])
        x2 = Degradation('sr', 2)
        psnr += [score.values['psnr'] for score in run_sweep(Sweep(bicubic, [source], sr, [x2], USUAL), tmp_path)]
        expected = evaluate(bicubic[0].predictors(x2), source, sr, x2, USUAL, model='bicubic')
        assert psnr[-1] == expected[0].values['psnr']
    assert psnr[0] != psnr[1]


def test_what_a_killed_sweep_has_left_is_removed(photos, tmp_path):
    (tmp_path / 'cells').mkdir()
    (tmp_path / 'cells' / f'{TEMPORARY}0123').write_text('half')
    scored(photos, tmp_path)
    assert [path.suffix for path in (tmp_path / 'cells').iterdir()] == ['.json']


def test_only_metrics_that_are_missing_are_computed_and_none_is_lost(photos, tmp_path):
    counts = dict.fromkeys(METRICS, 0)

    def counted(name):
        def function(a, b):
            counts[name] += 1
            return METRICS[name].function(a, b)

        return dataclasses.replace(METRICS[name], function=function)

    def score(*names):
        calls = []
        counts.update(dict.fromkeys(counts, 0))
        scores = scored(photos, tmp_path, calls=calls, metrics={name: counted(name) for name in names})
        assert [list(each.values) for each in scores] == [list(names)] * 2
        assert from_json((tmp_path / 'scores.json').read_text()) == scores
        return [each.values for each in scores], len(calls), {name: count for name, count in counts.items() if count}

    first, calls, computed = score('psnr')
    assert (calls, computed) == (2, {'psnr': 2})
    both, calls, computed = score('mae', 'psnr')
    assert (calls, computed) == (2, {'mae': 2})
    assert [each['psnr'] for each in both] == [each['psnr'] for each in first]
    for names in (('psnr',), ('mae',), ('psnr', 'mae')):
        again, calls, computed = score(*names)
        assert (calls, computed) == (0, {})
        assert again == [{name: each[name] for name in names} for each in both]
    assert len(list((tmp_path / 'cells').iterdir())) == 1


def test_a_metric_whose_code_changes_is_computed_again(photos, tmp_path, monkeypatch):
    module = tmp_path / 'mine.py'
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, 'mine', None)  # no other test finds it afterwards
    values = []
    for number in (1, 1, 2):
        module.write_text(f'def mine(a, b):\n    return {number}.0\n')
        del sys.modules['mine']
        importlib.invalidate_caches()
        monkeypatch.setitem(METRICS, 'mine', Metric(importlib.import_module('mine').mine, 'Mine'))
        calls = []
        scores = scored(photos, tmp_path, calls=calls, metrics=find_metrics(['psnr', 'mine']))
        values.append((scores[0].values['mine'], len(calls)))
        module.unlink()
        shutil.rmtree(tmp_path / '__pycache__', ignore_errors=True)
    assert values == [(1.0, 2), (1.0, 0), (2.0, 2)]


def test_cells_of_an_older_version_are_left_alone(photos, tmp_path):
    """Cells of version 0.1 held PSNR and SSIM without naming them."""
    scored(photos, tmp_path)
    (cell,) = (tmp_path / 'cells').iterdir()
    old = json.loads(cell.read_text())
    del old['metrics'], old['sha256']
    old['key']['nsr_jax_version'] = old['key'].pop('version')
    old['scores'] = [score | {'psnr': 99.0} for score in old['scores']]

    def digest(value):
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    cell.unlink()
    path = cell.with_name(f'{digest(old["key"])[:24]}.json')
    path.write_text(json.dumps(old | {'sha256': digest(old)}))
    assert all(score.values['psnr'] < 99 for score in scored(photos, tmp_path))
    assert path.exists() and cell.exists()


def test_the_file_says_which_weights_each_model_has(photos, tmp_path):
    applied = {'weights': 'ab', 'step': 7, 'tiling': 'whole', 'ensemble': 1}
    network = dataclasses.replace(counting([], 'net (tiling whole)', '1'), network=(None, {}), applied=applied)
    sweep = Sweep([*baseline_contenders(['degraded'], SIGMAS), network], [photos], DENOISE, SIGMAS[:1], USUAL)
    assert sweep.networks == [network]
    run_sweep(sweep, tmp_path)
    models = read_models((tmp_path / 'scores.json').read_text())
    assert models == {'degraded': {}, 'net (tiling whole)': applied}
