"""The parts of a train step: that wrong losses, gradients and updates are found out, and what compiling tells."""

import json
import types

import jax
import numpy as np
import pytest

from benchmarks import train_step
from benchmarks.report import Report
from benchmarks.timing import MATMUL, Candidate, Measurement, matmul_candidate
from benchmarks.train_step import GRADIENT, OPTIMIZER, SAMPLING, WHOLE, Training, compile_step, preset_config
from nsr_jax.errors import UserError
from nsr_jax.models.cost import count_parameters

SIZES = {'scale': 2, 'num_blocks': 1, 'batch_size': 2, 'patch_size': 4}


@pytest.fixture(scope='module')
def training():
    """One whose candidates, of two calls, are compiled once."""
    training = Training('resnet', preset_config('resnet', **SIZES), 'float32')
    candidates = training.candidates(2)
    training.candidates = lambda calls: candidates
    return training


@pytest.mark.slow
def test_tables(training, tmp_path, monkeypatch):
    monkeypatch.setattr(train_step, 'matmul_candidate', lambda dtype: matmul_candidate(dtype, 64))
    options = types.SimpleNamespace(dtype='float32', calls=2, rounds=3, num_blocks=1, batch_size=2, patch_size=4)
    written = Report(str(tmp_path / 'out.json'), 'float32')
    train_step.measure([training], [], options, written)
    assert written.exit_code == 0
    _, whole, gradient, parts = json.loads((tmp_path / 'out.json').read_text(encoding='utf-8'))['tables']
    assert whole['title'] == 'whole step, batch 2, patches 4x4, 1 blocks, float32'
    assert [row['candidate'] for row in whole['rows']] == ['resnet whole step']
    assert [row['candidate'] for row in gradient['rows']] == ['resnet forward + backward']
    assert [row['group'] for row in parts['rows']] == [WHOLE, GRADIENT, OPTIMIZER, SAMPLING]
    assert parts['peak_memory']['bytes'] > 1e7
    for row in parts['rows']:
        assert len(row['seconds']) == 3
        assert row['per_second']['images'] == pytest.approx(2 * row['per_second']['steps'])
        assert (row['error'] is None) == (row['group'] == SAMPLING)
        assert row['error'] is None or row['error'] < 1e-4
    assert 'Most memory of the process' in (tmp_path / 'out.md').read_text(encoding='utf-8')


def test_ratios_are_to_the_first_preset_and_to_the_fastest_peer():
    def measured(name, group, seconds):
        candidate = Candidate(name, group, prepare=None, run=None, wait=None, flops=1e9)
        return Measurement(candidate, first_seconds=9.0, seconds=seconds)

    seconds = {'plain': [1.0, 2.0, 4.0], 'gated': [2.0, 3.0, 8.0]}
    measurements = [measured('64 x 64 x 64', MATMUL, [1.0, 0.5, 2.0])]
    for preset, each in seconds.items():
        measurements += [measured(f'{preset} {group}', group, each) for group in (WHOLE, GRADIENT)]
        measurements += [measured(f'{preset} {group}', group, [0.1] * 3) for group in (OPTIMIZER, SAMPLING)]
        for variant, slower in (('eager', 4), ('compile', 2)):
            name, times = f'{preset} {WHOLE}, PyTorch {variant}', [slower * value for value in each]
            measurements.append(measured(name, WHOLE, times))
    trainings = [types.SimpleNamespace(preset=preset, batch_size=16, dtype='float32') for preset in seconds]
    peak, whole, gradient, plain, gated = train_step.compare(measurements, trainings, 'setting')
    assert peak['peak_flops_per_second'] == 2e9
    ratios = {row['candidate']: row['ratio'] for row in whole['rows']}
    assert ratios['gated whole step'] == {'median': 2, 'lowest': 1.5, 'highest': 2}
    assert ratios['plain whole step, PyTorch eager']['median'] == 4
    assert len(ratios) == 6 and len(gradient['rows']) == 2
    assert 'gated whole step takes 0.50 (0.50–0.50) of the time of gated whole step, PyTorch compile' in whole['note']
    assert next(row['per_second'] for row in whole['rows'] if row['candidate'] == 'gated whole step') == {
        'steps': pytest.approx(1 / 3),
        'images': pytest.approx(16 / 3),
    }
    assert plain['floor'] == 'plain whole step'
    assert [row['ratio']['median'] for row in gated['rows'][:2]] == [1, 1]
    assert gated['rows'][2]['ratio']['lowest'] == 0.1 / 8


@pytest.mark.slow
def test_wrong_losses_and_gradients_are_found_out(training):
    gradient_of = training.candidates(2)[1]
    loss, gradient = gradient_of.run(gradient_of.prepare(0))[0]
    assert training.check(loss, gradient) < 1e-5
    with pytest.raises(ArithmeticError, match='loss by'):
        training.check(1.001 * loss, gradient)
    with pytest.raises(ArithmeticError, match=r'gradient by 1\.0e-02'):
        training.check(loss, jax.tree.map(lambda leaf: 1.01 * leaf, gradient))
    with pytest.raises(ArithmeticError):
        training.check(*gradient_of.run(gradient_of.prepare(1))[0])


@pytest.mark.slow
def test_every_whole_step_draws_its_batch_and_a_wrong_update_is_found_out(training):
    whole, _, optimizer, _ = training.candidates(2)
    first = float(whole.run(whole.prepare(0))['loss'])
    assert whole.prepare(1) == 2
    two = float(whole.run(whole.prepare(1))['loss'])
    assert abs(two / 2 - first) > 1e-6
    assert float(whole.run(whole.prepare(0))['loss']) == first  # seed 0 starts over
    params = optimizer.run(optimizer.prepare(0))
    assert optimizer.check(params) < 1e-3
    half = jax.tree.map(lambda new, old: (new + old) / 2, params, training.initial.params)
    with pytest.raises(ArithmeticError, match=r'change by 5\.0e-01'):
        optimizer.check(half)


@pytest.mark.slow
def test_memory_of_the_compiled_step(training):
    row = compile_step(training)
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(training.initial))
    assert row['parameters'] == count_parameters(training.network)
    assert row['argument_bytes'] >= state + training.store.nbytes
    assert row['alias_bytes'] >= 0.9 * state  # the state is updated in place
    assert row['temporary_bytes'] > 0
    assert row['peak_bytes'] >= row['argument_bytes'] + row['temporary_bytes']
    assert row['compile_seconds'] > 0
    assert train_step.MEMORY_COLUMNS['arguments (MB)'](row) == f'{row["argument_bytes"] / 1e6:.1f}'


def test_presets():
    assert preset_config('edsr_s_nsr', **SIZES | {'num_blocks': 0}).model.num_blocks == 16
    config = preset_config('wdsr_s', **SIZES | {'scale': 3})
    assert (config.task, config.model.scale, config.model.num_blocks, config.batch_size) == ('sr', 3, 1, 2)
    assert preset_config('resnet_nsr_capacity', **SIZES).task == 'denoise'
    with pytest.raises(UserError, match="'vdsr': one of edsr_s"):
        preset_config('vdsr', **SIZES)
    with pytest.raises(UserError, match='5'):
        preset_config('edsr_s', **SIZES | {'scale': 5})


def test_super_resolution_has_a_store_of_both_sizes():
    training = Training('edsr_s_nsr', preset_config('edsr_s_nsr', **SIZES), 'float32')
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), training.abstract_store())
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), training.store)
    assert training.store.targets.shape[1] == 2 * training.store.inputs.shape[1]
    inputs, targets = training.batch(3)
    assert (inputs.shape, targets.shape) == ((2, 4, 4, 3), (2, 8, 8, 3))
    assert np.ptp(np.asarray(inputs)) > 0.9
    assert training.flops == pytest.approx(6 * 2 * 16 * 1.9e5, rel=0.5)
