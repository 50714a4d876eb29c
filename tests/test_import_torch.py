"""Reading PyTorch's files without PyTorch: what is read, and all that is refused."""

import collections
import io
import json
import math
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import jax
import ml_collections
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs import sr
from nsr_jax import import_torch
from nsr_jax.errors import UserError
from nsr_jax.import_torch import import_checkpoint
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.torch_file import read_torch_checkpoint
from nsr_jax.torch_layout import to_parameters
from nsr_jax.trained import load_model

REFERENCE = pathlib.Path(__file__).parent / 'reference'


# Stand-ins for PyTorch's names: pickled by reference, and renamed in the bytes of the pickle.
class FloatStorage: ...


class HalfStorage: ...


class DoubleStorage: ...


class LongStorage: ...


class BFloat16Storage: ...


def _rebuild_tensor_v2(): ...


def _rebuild_parameter(): ...


STORAGES = {
    FloatStorage: np.float32,
    HalfStorage: np.float16,
    DoubleStorage: np.float64,
    LongStorage: np.int64,
    BFloat16Storage: ml_dtypes.bfloat16,
}
TORCH_MODULES = dict.fromkeys(STORAGES, 'torch') | {
    _rebuild_tensor_v2: 'torch._utils',
    _rebuild_parameter: 'torch._utils',
}


class Storage:
    def __init__(self, kind, elements, count=None):
        self.kind = kind
        self.elements = np.asarray(elements, STORAGES[kind])
        self.count = self.elements.size if count is None else count


class Call:
    """What pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def tensor(storage, shape, strides, offset=0):
    return Call(_rebuild_tensor_v2, storage, offset, shape, strides, False, collections.OrderedDict())


def row(values, kind=FloatStorage):
    return tensor(Storage(kind, values), (len(values),), (1,))


def write_torch_file(path, contents, *, compression=zipfile.ZIP_STORED, without=(), byteorder='little'):
    """Write `contents` as torch.save does, independently of how the library reads it."""
    records = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, Storage):
                return None
            key = str(len(records))
            records[key] = value.elements.tobytes()
            return 'storage', value.kind, key, 'cuda:0', value.count

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(contents)
    program = stream.getvalue()
    for name, module in TORCH_MODULES.items():
        program = program.replace(f'c{__name__}\n{name.__name__}\n'.encode(), f'c{module}\n{name.__name__}\n'.encode())
    write_archive(path, program, {k: v for k, v in records.items() if k not in without}, compression, byteorder)


def write_archive(path, program, records, compression=zipfile.ZIP_STORED, byteorder='little'):
    with zipfile.ZipFile(path, 'w', compression) as archive:
        archive.writestr('archive/data.pkl', program)
        archive.writestr('archive/byteorder', byteorder)
        for key, data in records.items():
            archive.writestr(f'archive/data/{key}', data)


def config_of(name, **changes):
    case = json.loads((REFERENCE / 'index.json').read_text())['cases'][name]
    model = {key: value for key, value in case.items() if key not in ('network', 'parameters')} | changes
    return ml_collections.ConfigDict({'task': 'sr', 'model': model | {'gate': 'softmax'}})


@pytest.mark.parametrize('kind', STORAGES)
def test_tensors_of_every_dtype_with_strides_and_offset(tmp_path, kind):
    values = np.arange(-4, 20)
    storage = Storage(kind, values)
    contents = {
        'turned': tensor(storage, (2, 3), (1, 4), 5),
        'scalar': tensor(Storage(kind, [3]), (), ()),
        'empty': tensor(Storage(kind, []), (0, 3), (3, 1)),
        'parameter': Call(_rebuild_parameter, row(values, kind), True, collections.OrderedDict()),
        'nested': [collections.OrderedDict(a=row(values[:2], kind)), collections.Counter({20: 1}), 0.5, None, 'text'],
    }
    write_torch_file(tmp_path / 'a.pth', contents)
    read = read_torch_checkpoint(tmp_path / 'a.pth')
    expected = values[5:].astype(STORAGES[kind])
    np.testing.assert_array_equal(read['turned'], [expected[[0, 4, 8]], expected[[1, 5, 9]]])
    assert read['turned'].dtype == STORAGES[kind]
    assert read['scalar'] == 3
    assert read['scalar'].shape == ()
    assert read['empty'].shape == (0, 3)
    np.testing.assert_array_equal(read['parameter'], values.astype(STORAGES[kind]))
    assert read['nested'][1:] == [{20: 1}, 0.5, None, 'text']
    np.testing.assert_array_equal(read['nested'][0]['a'], [-4, -3])


def evil_contents(sentinel):
    command = f'{sys.executable} -c "open({str(sentinel)!r}, \'w\')"'
    return {
        'system': Call(os.system, command),
        'eval': Call(eval, f'open({str(sentinel)!r}, "w")'),
        'getattr': Call(getattr, 'text', 'upper'),
        'open': Call(open, str(sentinel), 'w'),
        'subclass': Call(collections.deque, [1]),
        'callable storage': Call(FloatStorage, 1),
    }


@pytest.mark.parametrize('kind', ['system', 'eval', 'getattr', 'open', 'subclass', 'callable storage'])
@pytest.mark.parametrize('place', ['model_state_dict', 'optimizer_state_dict'])
def test_what_is_no_weight_is_refused_and_never_run(tmp_path, kind, place):
    sentinel = tmp_path / 'was_run'
    evil = evil_contents(sentinel)[kind]
    good = {'a': row([1.0])}
    write_torch_file(tmp_path / 'evil.pth', {'model_state_dict': good, place: {'a': evil}})
    with pytest.raises(UserError) as caught:
        read_torch_checkpoint(tmp_path / 'evil.pth')
    assert not sentinel.exists()
    names = {'system': 'system', 'eval': 'eval', 'getattr': 'getattr', 'open': 'open', 'subclass': 'collections.deque'}
    assert f'{names.get(kind, "not callable")}' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_the_evil_pickle_would_run(tmp_path):
    """The files above are dangerous: Python's own unpickler runs the same bytes."""
    sentinel = tmp_path / 'was_run'
    pickle.loads(pickle.dumps(evil_contents(sentinel)['system'], protocol=2))
    assert sentinel.exists()


def test_a_file_cannot_change_the_reader_for_the_next_one(tmp_path):
    # Protocol 2: push the class, push (None, {'update': 1}), BUILD sets the attribute on the class itself.
    program = b'\x80\x02ccollections\nCounter\nN}X\x06\x00\x00\x00updateK\x01s\x86b.'
    write_archive(tmp_path / 'evil.pth', program, {})
    with pytest.raises(UserError):
        read_torch_checkpoint(tmp_path / 'evil.pth')
    assert callable(collections.Counter.update)
    write_torch_file(tmp_path / 'good.pth', {'a': collections.Counter({1: 2})})
    read = read_torch_checkpoint(tmp_path / 'good.pth')
    read['a'].update({3: 4})
    assert read['a'] == {1: 2, 3: 4}


@pytest.mark.parametrize(
    ('shape', 'strides', 'offset'),
    [((9,), (1,), 0), ((2, 4), (5, 1), 0), ((8,), (1,), 1), ((8,), (-1,), 7), ((-1,), (1,), 0), ((8,), (1,), -1),
     ((3,), (4,), 0), ((2, 2), (1,), 0), ((10**9,), (0,), 0), ((2.0,), (1,), 0), ((10**30,), (10**30,), 0)],
)  # fmt: skip
def test_tensors_beyond_their_storage(tmp_path, shape, strides, offset):
    write_torch_file(tmp_path / 'a.pth', {'a': tensor(Storage(FloatStorage, range(8)), shape, strides, offset)})
    with pytest.raises(UserError, match='a tensor'):
        read_torch_checkpoint(tmp_path / 'a.pth')


def test_storages_that_are_not_what_the_file_says(tmp_path):
    path = tmp_path / 'a.pth'
    good = {'a': row([1.0, 2.0])}
    for count in (1, 3):
        write_torch_file(path, {'a': tensor(Storage(FloatStorage, [1.0, 2.0], count), (1,), (1,))})
        with pytest.raises(UserError, match='storage 0 holds 2'):
            read_torch_checkpoint(path)
    write_torch_file(path, good, without=['0'])
    with pytest.raises(UserError, match='storage 0 is missing'):
        read_torch_checkpoint(path)
    write_torch_file(path, good, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match='is compressed'):
        read_torch_checkpoint(path)
    write_torch_file(path, good, byteorder='big')
    with pytest.raises(UserError, match='big-endian'):
        read_torch_checkpoint(path)
    write_torch_file(path, ['a', 'list'])
    with pytest.raises(UserError, match='holds a list'):
        read_torch_checkpoint(path)


def test_files_that_are_no_checkpoint(tmp_path):
    path = tmp_path / 'a.pth'
    whole = (REFERENCE / 'wdsr_x2.pth').read_bytes()
    legacy = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2)
    tar = b'storages'.ljust(257, b'\0') + b'ustar\x0000' + bytes(2000)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for data, message in [
        (b'', 'not a whole checkpoint'),
        (b'not a checkpoint', 'not a whole checkpoint'),
        (legacy, 'before 1.6'),
        (tar, 'before 1.6'),
        (bytes(flipped), 'CRC'),
        *[(whole[:length], 'not a whole checkpoint') for length in (1, 30, 5000, len(whole) // 2, len(whole) - 1)],
    ]:
        path.write_bytes(data)
        with pytest.raises(UserError, match=message) as caught:
            read_torch_checkpoint(path)
        assert str(path) in str(caught.value)
        assert '\n' not in str(caught.value)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('other.txt', 'text')
    with pytest.raises(UserError, match=r'not one of torch\.save'):
        read_torch_checkpoint(path)
    for absent in (tmp_path, tmp_path / 'absent.pth'):
        with pytest.raises(UserError, match='is not a file'):
            read_torch_checkpoint(absent)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_pickle_is_read_or_refused(tmp_path, changes):
    write_torch_file(tmp_path / 'a.pth', {'a': row([1.0]), 'b': [row([2.0]), collections.Counter({20: 1})], 'c': None})
    with zipfile.ZipFile(tmp_path / 'a.pth') as archive:
        program = bytearray(archive.read('archive/data.pkl'))
        records = {key: archive.read(f'archive/data/{key}') for key in '01'}
    for place, value in changes:
        program[place % len(program)] = value
    write_archive(tmp_path / 'a.pth', bytes(program), records)
    try:
        read_torch_checkpoint(tmp_path / 'a.pth')
    except UserError as error:
        assert '\n' not in str(error)


@pytest.mark.parametrize('name', ['wdsr_x2', 'nsr_gray'])
def test_imported_weights_are_those_of_the_file(tmp_path, name):
    config = config_of(name)
    import_checkpoint(REFERENCE / f'{name}.pth', config, tmp_path / 'out')
    loaded = load_model(tmp_path / 'out')
    assert loaded.config.to_dict() == config.to_dict()
    state_dict = read_torch_checkpoint(REFERENCE / f'{name}.pth')['model_state_dict']
    expected = to_parameters(state_dict, parameter_shapes(build_network(config.model)))
    jax.tree.map(np.testing.assert_array_equal, loaded.params, expected)
    if name == 'nsr_gray':
        # One filter followed by hand: group 1 of 2, cardinal position 2 of 4, its filter 3 of 4.
        filters = state_dict['body.2.body.0.weight_v']
        np.testing.assert_array_equal(
            loaded.params['block_01']['conv_1']['direction'][1, 2, :, 1, 2, 3], filters[1 * 16 + 2 * 4 + 3, :, 1, 2]
        )
        gates = state_dict['body.2.body.0.mlp.0.weight']
        np.testing.assert_array_equal(loaded.params['block_01']['conv_1']['gate']['kernel'][:, 1, 2], gates[1 * 4 + 2])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'num_blocks': 3},
            r'missing: (body\.3\.body\.[02]\.\w+, ){6}(body\.4\.\w+(, )?){3}; left over: (body\.3\.\w+(, )?){3}$',
        ),
        ({'num_blocks': 1}, r'missing: body\.2\.bias, .*; left over: '),
        ({'features': 12}, r'body\.1\.body\.0\.bias is \(32,\), not \(48,\), .* and 10 more$'),
        ({'scale': 3}, r'\(12, 8, 3, 3\), not \(27, 8, 3, 3\)'),
        ({'scale': 1}, r'left over: skip\.0\.bias, skip\.0\.weight_g, skip\.0\.weight_v$'),
        ({'groups': 2, 'cardinality': 2}, r'missing: (body\.[12]\.body\.[02]\.mlp\.0\.(weight|bias)(, )?){8}$'),
    ],
)
def test_another_architecture(tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        import_checkpoint(REFERENCE / 'wdsr_x2.pth', config_of('wdsr_x2', **changes), tmp_path / 'out')
    assert 'wdsr_x2.pth' in str(caught.value)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('contents', [{'epoch': 3}, {'model_state_dict': 3}, {'model_state_dict': {'a': 'text'}}])
def test_no_weights(tmp_path, contents):
    write_torch_file(tmp_path / 'a.pth', contents)
    with pytest.raises(UserError, match='no model_state_dict of tensors'):
        import_checkpoint(tmp_path / 'a.pth', config_of('wdsr_x2'), tmp_path / 'out')


def test_output_that_holds_something(tmp_path):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'a').write_text('')
    for output in ('full', 'full/a'):
        with pytest.raises(UserError, match='already exists'):
            import_checkpoint(REFERENCE / 'wdsr_x2.pth', config_of('wdsr_x2'), tmp_path / output)
    with pytest.raises(UserError, match='cannot be written into'):
        import_checkpoint(REFERENCE / 'wdsr_x2.pth', config_of('wdsr_x2'), tmp_path / 'full' / 'a' / 'b')
    assert [path.name for path in tmp_path.rglob('*')] == ['full', 'a']


def test_command(tmp_path):
    arguments = [
        '--config=configs/sr.py:scale=2,preset=wdsr_s', '--config.model.num_blocks=2', '--config.model.features=8',
        f'--output={tmp_path / "out"}',
    ]  # fmt: skip
    command = [sys.executable, '-m', 'nsr_jax.import_torch', str(REFERENCE / 'wdsr_x2.pth'), *arguments]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert load_model(tmp_path / 'out').config.model.features == 8
    assert second.returncode == 2
    told = [line for line in second.stderr.splitlines() if 'compiled programs are kept' not in line]
    assert len(told) == 1
    assert told[0].startswith('error: ')


def test_without_a_config_the_answer_lists_them(commands):
    code, error, _ = commands('nsr_jax.import_torch', REFERENCE / 'wdsr_x2.pth', '--output=out')
    (line,) = error.splitlines()
    assert code == 2
    assert line.startswith('error: give a config: --config=configs/denoise.py:')
    assert ' or --config=configs/sr.py:scale=2,preset=edsr_s_nsr or ' in line


def test_edsr_s_with_nsr_by_shape():
    """Keys and shapes of the authors' x2 network, written down from their layout: k = 4, d = 16, 64 features."""
    k, d, features, blocks = 4, 16, 64, 16
    shapes = {}

    def add(prefix, filters, inputs, size, *, sparse=False):
        groups = k if sparse else 1
        shapes[f'{prefix}.weight_v'] = (groups * filters, inputs, size, size)
        shapes[f'{prefix}.weight_g'] = (groups * filters, 1, 1, 1)
        shapes[f'{prefix}.bias'] = (groups * filters,)
        if sparse:
            shapes[f'{prefix}.mlp.0.weight'] = (k * d, inputs)
            shapes[f'{prefix}.mlp.0.bias'] = (k * d,)

    add('body.0', features, 3, 3)
    for block in range(1, blocks + 1):
        add(f'body.{block}.body.0', features, features, 3, sparse=True)
        add(f'body.{block}.body.2', features, features, 3, sparse=True)
    add(f'body.{blocks + 1}', 12, features, 3)
    add('skip.0', 12, 3, 5)
    assert sum(math.prod(shape) for shape in shapes.values()) == 4_877_812

    network = build_network(sr.get_config('scale=2,preset=edsr_s_nsr').model)
    numbers = np.arange(4_877_812, dtype=np.float32)
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1]
    parts = np.split(numbers, ends)
    arrays = {key: part.reshape(shape) for (key, shape), part in zip(shapes.items(), parts, strict=True)}
    parameters = to_parameters(arrays, parameter_shapes(network))
    assert jax.tree.map(np.shape, parameters) == jax.tree.map(lambda leaf: leaf.shape, parameter_shapes(network))
    # No number is lost or doubled, and a filter lies where its group, position and place among its four say.
    assert np.array_equal(np.sort(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(parameters)])), numbers)
    filters = arrays['body.7.body.2.weight_v'].reshape(k, d, features // d, features, 3, 3)
    direction = parameters['block_06']['conv_2']['direction']
    np.testing.assert_array_equal(direction[..., 3, 11, 2], filters[3, 11, 2].transpose(1, 2, 0))
    with pytest.raises(UserError, match=r'missing: body\.16\.body\.2\.mlp\.0\.bias'):
        to_parameters(
            {key: arrays[key] for key in arrays if key != 'body.16.body.2.mlp.0.bias'}, parameter_shapes(network)
        )


def test_ctrl_c_leaves_the_folder_empty_for_the_next_try(tmp_path, monkeypatch):
    def interrupted(output, *_, **__):
        (output / 'checkpoints' / '0.orbax-checkpoint-tmp').mkdir(parents=True)
        raise KeyboardInterrupt

    arguments = REFERENCE / 'wdsr_x2.pth', config_of('wdsr_x2'), tmp_path / 'out'
    with monkeypatch.context() as patch:
        patch.setattr(import_torch, 'save_model', interrupted)
        with pytest.raises(KeyboardInterrupt):
            import_checkpoint(*arguments)
    assert not list((tmp_path / 'out').iterdir())
    import_checkpoint(*arguments)


def test_odd_places_are_one_line(tmp_path):
    config = config_of('wdsr_x2')
    for path, output, message in [
        (REFERENCE / 'wdsr_x2.pth', tmp_path / 'a[1]', 'which libraries'),
        (tmp_path / ('x' * 300), tmp_path / 'out', 'is not a file'),
        ('/dev/null', tmp_path / 'out', 'is not a file'),
        (REFERENCE / 'wdsr_x2.pth', '/dev/null', 'already exists'),
        (REFERENCE / 'wdsr_x2.pth', tmp_path / ('x' * 300), 'cannot be written into'),
    ]:
        with pytest.raises(UserError, match=message):
            import_checkpoint(path, config, output)
    assert not list(tmp_path.iterdir())
