"""The plan for many devices: bytes and times by hand, and the command, which compares its bytes with compiled ones."""

import json
import math
import subprocess
import sys
import types

import pytest

from benchmarks import scaling
from benchmarks.scaling import Collective, predict
from nsr_jax.errors import UserError
from nsr_jax.models.cost import count_parameters
from nsr_jax.models.residual import RestorationNetwork

PLAIN = RestorationNetwork(scale=2, channels=3, num_blocks=1, features=8)
SPARSE = RestorationNetwork(scale=2, channels=3, num_blocks=1, features=64, groups=4, cardinality=16)

OPTIONS = types.SimpleNamespace(
    batch_size=16, patch_size=48, devices_per_host=8, host_bandwidth=400.0, bandwidth=50.0, devices=['1', '8'], fsdp=4
)


def test_data_parallel_devices_sum_every_gradient_once():
    found = list(predict(PLAIN, 4, 1))
    assert {(each.kind, each.devices) for each in found} == {('all-reduce', 4)}
    assert sum(each.sent for each in found) == 2 * 3 / 4 * 4 * count_parameters(PLAIN)
    assert list(predict(PLAIN, 1, 1)) == []


def test_devices_that_split_parameters_gather_them_and_keep_their_part_of_the_sums():
    found = list(predict(SPARSE, 2, 4))
    whole = 4 * count_parameters(SPARSE)  # 64, 16, 12 or 4 is a multiple of 4 in the shape of each parameter
    by_kind = {(each.kind, each.axes, each.devices): 0 for each in found}
    for each in found:
        by_kind[each.kind, each.axes, each.devices] += each.nbytes
    assert by_kind == {
        ('all-gather', ('fsdp',), 4): whole,
        ('reduce-scatter', ('fsdp',), 4): whole,
        ('all-reduce', ('data',), 2): whole / 4,
    }
    # No more bytes than where every device holds all parameters.
    assert sum(each.sent for each in found) == sum(each.sent for each in predict(SPARSE, 8, 1))
    # 1/256 of no axis of these kernels is a whole number: nothing is split.
    assert [each[:3] for each in predict(SPARSE, 1, 256)] == [each[:3] for each in predict(SPARSE, 256, 1)]


def test_a_ring_between_hosts_uses_the_ports_of_all_its_devices_there(monkeypatch):
    def bandwidth(devices, axes, mesh):
        """GB/s, where this is all that devices send."""
        monkeypatch.setattr(scaling, 'predict', lambda *asked: [Collective('all-reduce', 2**30, devices, axes)])
        row = scaling.plan(PLAIN, mesh, None, OPTIONS)
        return pytest.approx(row['sent_bytes'] / row['communication_seconds'] / 1e9)

    assert bandwidth(8, ('data', 'fsdp'), (8, 1)) == 400
    assert bandwidth(8, ('fsdp',), (8, 8)) == 400
    assert bandwidth(8, ('data',), (8, 8)) == 50  # one device in each host
    assert bandwidth(16, ('data',), (16, 4)) == 100  # two in each
    assert bandwidth(2, ('data',), (2, 4)) == 400  # the only host
    assert bandwidth(64, ('data', 'fsdp'), (8, 8)) == 400
    assert bandwidth(16, ('fsdp',), (1, 16)) == 400


def test_a_step_is_computation_and_then_communication():
    row = scaling.plan(PLAIN, (8, 1), 0.5, OPTIONS)
    waiting = 2 * 7 / 8 * 4 * count_parameters(PLAIN) / 400e9
    assert row['batch_size'] == 128
    assert row['communication_seconds'] == pytest.approx(waiting)
    assert row['step_seconds'] == pytest.approx(0.5 + waiting)
    assert row['efficiency'] == pytest.approx(0.5 / (0.5 + waiting))
    assert row['images_per_second'] == pytest.approx(128 / (0.5 + waiting))
    assert scaling.plan(PLAIN, (1, 1), 0.5, OPTIONS)['efficiency'] == 1
    assert 'step_seconds' not in scaling.plan(PLAIN, (8, 1), None, OPTIONS)


def test_a_model_that_is_off_is_a_failure(monkeypatch):
    def compiled(network, data, fsdp):
        floats = count_parameters(network) + (400 if fsdp == 2 else 4)
        groups = f'[1,{data * fsdp}]<=[{data * fsdp}]'
        return f'ENTRY %main () -> f32[] {{\n  %r = f32[{floats}]{{0}} all-reduce(%a), replica_groups={groups}\n}}'

    monkeypatch.setattr(scaling, 'compiled_step', compiled)
    monkeypatch.setattr(scaling, 'predict', lambda network, data, fsdp: predict(network, data * fsdp, 1))
    right, wrong = scaling.check(PLAIN, [(4, 1), (2, 2)])
    assert right['failure'] == '' and right['compiled'] == pytest.approx(right['model'], rel=1e-2)
    expected = count_parameters(PLAIN) / (count_parameters(PLAIN) + 400) - 1
    assert wrong['failure'] == f'the model is off by {expected:+.1%}'


def write_times(path, title='whole step, batch 16, patches 48x48, float32', device='1 x chip (gpu)', failure=''):
    rows = [{'candidate': 'edsr_s whole step', 'failure': '', 'time': {'median': 0.01}}]
    rows += [{'candidate': 'resnet whole step', 'failure': failure, 'time': {'median': 0.02}}]
    tables = [{'title': 'matrix product', 'rows': []}, {'title': title, 'rows': rows}]
    path.write_text(json.dumps({'environment': {'device': device}, 'tables': tables}))
    return str(path)


def test_measured_times(tmp_path):
    path = tmp_path / 'times.json'
    assert scaling.measured_seconds(write_times(path), 16, 48) == ({'edsr_s': 0.01, 'resnet': 0.02}, '1 x chip (gpu)')
    assert list(scaling.measured_seconds(write_times(path, failure='no'), 16, 48)[0]) == ['edsr_s']
    cores = scaling.measured_seconds(write_times(path, device='2 x cpu (cpu)'), 16, 48)
    assert cores[1] == 'a machine with 2 x cpu (cpu)'
    for wrong in ({'title': 'whole step, batch 8, patches 48x48, float32'}, {'device': '8 x chip (gpu)'}):
        with pytest.raises(UserError, match=r'batch 8|8 x chip'):
            scaling.measured_seconds(write_times(path, **wrong), 16, 48)
    with pytest.raises(UserError, match='4 blocks'):
        scaling.measured_seconds(write_times(path, 'whole step, batch 16, patches 48x48, 4 blocks, float32'), 16, 48)
    for text in ('{', '[]', '{"environment": {"device": "x"}, "tables": []}'):
        path.write_text(text)
        with pytest.raises(UserError, match='is not what'):
            scaling.measured_seconds(str(path), 16, 48)


@pytest.mark.slow
def test_the_command_agrees_with_what_is_compiled(tmp_path):
    output, times = tmp_path / 'scaling.json', write_times(tmp_path / 'times.json')
    command = [sys.executable, '-m', 'benchmarks.scaling', f'--output={output}', f'--step_times={times}', '--share=0.5']
    process = subprocess.run([*command, '--devices=1,256'], check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert output.with_suffix('.md').read_text(encoding='utf-8') == process.stdout
    sent, timed, checked = (table['rows'] for table in json.loads(output.read_text(encoding='utf-8'))['tables'])
    for row in sent + timed:
        assert list(row['meshes']) == ['(256, 1)', '(32, 8)']
    assert [row['mesh'] for row in checked] == [[8, 1], [2, 4], [1, 8]]
    for row in checked:
        assert row['failure'] == ''
        assert row['model'] == pytest.approx(row['compiled'], rel=0.001)
    assert checked[0]['arrays'].keys() == {'all-reduce'}
    assert checked[1]['arrays'].keys() == {'all-gather', 'reduce-scatter', 'all-reduce'}
    by_preset = {row['preset']: row for row in timed}
    assert by_preset.keys() == {row['preset'] for row in sent}
    assert by_preset['edsr_s']['from'] == 'measured on 1 x chip (gpu)'
    assert by_preset['edsr_s']['device_seconds'] == 0.01
    assumed = by_preset['edsr_l']
    assert assumed['from'] == 'assumed, 50% of 989 TFLOP/s'
    assert assumed['device_seconds'] == pytest.approx(assumed['flops'] / (989e12 * 0.5))
    assert math.isclose(by_preset['edsr_s']['parameters'], 1_193_460)
    assert f'{assumed["device_seconds"] * 1e3:.4g}*' in process.stdout


@pytest.mark.parametrize(
    ('argument', 'message'),
    [
        ('--devices=12', '12 is no multiple of --fsdp=8'),
        ('--devices=8,many', "not 'many'"),
        ('--presets=edsr', "'edsr'"),
    ],
)
def test_mistakes(argument, message, monkeypatch):
    options = types.SimpleNamespace(
        **vars(OPTIONS) | {'fsdp': 8, 'presets': ['edsr_s'], 'step_times': None, 'share': 0}
    )
    name, _, value = argument.removeprefix('--').partition('=')
    setattr(options, name, value.split(','))
    options.peak_tflops = 1.0
    monkeypatch.setattr(scaling.flags, 'FLAGS', options)
    with pytest.raises(UserError, match=message):
        scaling.main(['scaling'])
