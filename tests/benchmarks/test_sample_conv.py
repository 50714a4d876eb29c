"""The benchmark of the sparse convolution: that it checks what it times, and finds the floor."""

from typing import get_args

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks import sample_conv
from benchmarks.timing import MATMUL, Measurement, matmul_candidate, peak_of, take_turns
from nsr_jax.errors import UserError
from nsr_jax.ops.conv import Implementation, sparse_conv

SHAPE = (2, 5, 6, 4, 2, 2)


def by_name(dtype='float32'):
    """Measurements of all candidates but the matrix product, by group and name."""
    candidates = [each for each in sample_conv.candidates(SHAPE, dtype, 1) if each.group != MATMUL]
    return {(each.candidate.group, each.candidate.name): each for each in take_turns(candidates, 1)}


def only(monkeypatch, **convolutions):
    monkeypatch.setattr(sample_conv, 'convolutions', lambda: convolutions)


def test_every_implementation_takes_part(monkeypatch):
    found = sample_conv.convolutions()
    assert {'static, XLA', 'static, ours', *get_args(Implementation)} - found.keys() == {'pallas'}
    monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
    assert sample_conv.convolutions().keys() - found.keys() == {'pallas', 'pallas, one kernel'}
    monkeypatch.undo()
    assert 'vmap' in found
    assert len({each.name for each in sample_conv.candidates(SHAPE, 'float32', 1) if each.group == 'forward'}) == len(
        found
    )


@pytest.mark.slow
def test_wrong_implementations_are_found_out(monkeypatch):
    def exchanged(x, bank, bias, gamma):
        return sparse_conv(x, bank, bias, gamma[::-1])

    def without_gradient(x, bank, bias, gamma):
        return sparse_conv(x, bank, bias, lax.stop_gradient(gamma))

    named = {'exchanged': exchanged, 'without_gradient': without_gradient, 'right': sparse_conv}
    only(monkeypatch, **{name: ('sparse', function) for name, function in named.items()})
    found = by_name()
    for group in sample_conv.PASSES:
        assert 'output by' in found[group, 'exchanged'].failure
        assert not found[group, 'exchanged'].seconds
        assert not found[group, 'right'].failure
        assert found[group, 'right'].error < 1e-6
    assert not found['forward', 'without_gradient'].failure
    assert 'oracle: gamma by 1.0e+00 of' in found['forward + backward', 'without_gradient'].failure


def test_static_candidates_share_one_kernel_and_a_wrong_one_is_found_out(monkeypatch):
    def slightly_off(x, kernel, bias):
        assert kernel.shape == (3, 3, 4, 4)
        return 1.001 * sample_conv.static_by_xla(x, kernel, bias)

    static = sample_conv.static_by_us
    only(monkeypatch, ours=('static', static), shared=('shared', sparse_conv), off=('static', slightly_off))
    found = by_name()
    for group in sample_conv.PASSES:
        assert not found[group, 'ours'].failure
        assert not found[group, 'shared'].failure
        assert 'output by 1.0e-03' in found[group, 'off'].failure


def test_inputs_are_fresh(monkeypatch):
    only(monkeypatch, right=('sparse', sparse_conv))
    candidate = sample_conv.candidates(SHAPE, 'bfloat16', 3)[0]
    seen = [float(x[0, 0, 0, 0]) for seed in range(4) for (x, *_), _ in candidate.prepare(seed)]
    assert len(set(seen)) == 12
    assert {array.dtype for (x, *_), gradient in candidate.prepare(1) for array in (x, gradient)} == {
        jnp.dtype(jnp.bfloat16)
    }


def test_one_timing_makes_enough_calls_to_be_long():
    shapes = [(16, 48, 48, 128, 4, 16), (16, 48, 48, 64, 4, 16), SHAPE]
    assert sorted(sample_conv.default_calls(shape) for shape in shapes) == [
        sample_conv.default_calls(shape) for shape in shapes
    ]  # the less there is to do, the more calls
    calls = {each.name: each.calls for each in sample_conv.candidates(SHAPE, 'float32', 3)}
    assert (calls['loop'], calls['vmap']) == (3, 1)
    assert len(sample_conv.candidates(SHAPE, 'float32', 3)[0].prepare(0)) == 3


def test_the_floor_is_the_fastest_static_one(monkeypatch):
    names = {'static, XLA': 'static', 'loop, one kernel': 'shared', 'loop': 'sparse'}
    only(monkeypatch, **{name: (kind, sparse_conv) for name, kind in names.items()})
    seconds = {'static, XLA': 4.0, 'loop, one kernel': 2.0, 'loop': 1.0}
    measurements = [
        Measurement(each, seconds=[seconds.get(each.name, 0.5)] * 3)
        for each in sample_conv.candidates(SHAPE, 'float32', 1)
    ]
    peak, *passes = sample_conv.compare(SHAPE, 'float32', measurements)
    assert peak['peak_flops_per_second'] == pytest.approx(2 * 2048**3 / 0.5)
    for table, worth in zip(passes, (1, 3), strict=True):
        assert table['floor'] == 'loop, one kernel'
        assert (table['shape'], table['dtype']) == (list(SHAPE), 'float32')
        ratios = {row['candidate']: row['ratio']['median'] for row in table['rows']}
        assert ratios == {'static, XLA': 2, 'loop, one kernel': 1, 'loop': 0.5}
        share = worth * 2 * (2 * 5 * 6) * 9 * 4 * 4 / 1.0 / peak['peak_flops_per_second']
        assert table['rows'][2]['share_of_peak'] == pytest.approx(share)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_peak_is_the_fastest_round_of_a_checked_product(monkeypatch, dtype):
    (measured,) = take_turns([matmul_candidate(dtype, 64)], 3)
    assert not measured.failure
    measured.seconds = [0.5, 0.25, 1.0]
    assert peak_of([measured]) == 2 * 64**3 / 0.25
    monkeypatch.setattr(jax.numpy, 'matmul', lambda a, b: a @ b.T)
    (wrong,) = take_turns([matmul_candidate(dtype, 64)], 3)
    assert 'first row by' in wrong.failure
    assert peak_of([wrong]) is None


@pytest.mark.parametrize('text', ['16,48,48,64,4', '16,48,48,64,4,x', '16,48,48,64,4,0', '16,48,48,64,4,48', ''])
def test_shapes_that_are_none(text):
    with pytest.raises(UserError, match=f"B,H,W,C,k,d.*'{text}'"):
        sample_conv.parse_shape(text)
    assert sample_conv.parse_shape('16,48,48,64,4,16') == sample_conv.SHAPES[0]
