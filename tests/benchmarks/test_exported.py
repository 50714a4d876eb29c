"""The benchmark of exported networks: each file is run and checked, and a wrong one is named."""

from importlib import util

import pytest

from benchmarks import exported
from nsr_jax.errors import UserError
from tests.exporting.networks import GATED, make_network


def test_each_file_has_its_size_and_time():
    _, network, params = make_network(GATED | {'num_blocks': 1})
    rows = exported.measure(network, params, (2, 9, 12), 3)
    names = list(exported.RUNTIMES)[: 3 if util.find_spec('torch') else 2]
    assert [row['candidate'] for row in rows] == names
    assert all(row['bytes'] > 10_000 and row['error'] < 1e-5 and len(row['seconds']) == 3 for row in rows)
    assert [exported.COLUMNS['file, runtime'](rows[1]), exported.COLUMNS['MB'](rows[1])] == [
        'ONNX, ONNX Runtime',
        f'{rows[1]["bytes"] / 1e6:.2f}',
    ]
    assert all(cell(rows[0]) for cell in exported.COLUMNS.values())


def test_a_wrong_result_is_named(monkeypatch):
    _, network, params = make_network(GATED | {'num_blocks': 1})
    right = exported.run_onnx
    wrong = '.onnx', lambda *given: lambda images: right(*given)(images) + 1
    monkeypatch.setattr(exported, 'RUNTIMES', {'ONNX': wrong})
    with pytest.raises(UserError, match='ONNX: ArithmeticError: wrong: differs from the oracle'):
        exported.measure(network, params, (1, 6, 6), 3)
