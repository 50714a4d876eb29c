"""Weights as files for PyTorch and safetensors: whole, and read back without a change."""

import json
import pathlib
import zipfile

import jax
import ml_collections
import numpy as np
import pytest
import safetensors
from flax import traverse_util

from nsr_jax.errors import UserError
from nsr_jax.export import write_export
from nsr_jax.import_torch import import_checkpoint
from nsr_jax.torch_file import encode_torch_checkpoint, read_torch_checkpoint
from nsr_jax.torch_layout import to_parameters, to_state_dict
from nsr_jax.trained import load_model
from nsr_jax.training.checkpoints import save_model
from tests.exporting.networks import CHAIN, GATED, PLAIN, make_network

REFERENCE = pathlib.Path(__file__).parents[1] / 'reference'


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize('name', ['nsr_x2', 'nsr_gray', 'wdsr_x2'])
def test_the_authors_file_comes_back(tmp_path, name):
    """Imported and exported again, it holds the same keys with the same numbers."""
    case = json.loads((REFERENCE / 'index.json').read_text())['cases'][name]
    model = {key: value for key, value in case.items() if key not in ('network', 'parameters')} | {'gate': 'softmax'}
    given = read_torch_checkpoint(REFERENCE / f'{name}.pth')['model_state_dict']
    import_checkpoint(
        REFERENCE / f'{name}.pth', ml_collections.ConfigDict({'task': 'sr', 'model': model}), tmp_path / 'run'
    )
    write_export(tmp_path / 'run', tmp_path / 'back.pth')
    written = read_torch_checkpoint(tmp_path / 'back.pth')
    assert written.keys() == {'model_state_dict'}
    assert written['model_state_dict'].keys() == given.keys()
    for key, array in given.items():
        np.testing.assert_array_equal(written['model_state_dict'][key], array)
        assert written['model_state_dict'][key].dtype == np.float32


@pytest.mark.parametrize('changes', [{}, {'groups': 1, 'cardinality': 1, 'gate': 'se'}, {'pruning': 'magnitude'}])
def test_a_checkpoint_comes_back(tmp_path, changes):
    config, _, params = make_network(GATED | changes)
    save_model(tmp_path / 'run', params, config, step=7)
    write_export(tmp_path / 'run', tmp_path / 'x2.pth')
    import_checkpoint(tmp_path / 'x2.pth', config, tmp_path / 'back')
    assert_equal(load_model(tmp_path / 'back').params, params)


def test_parameters_of_a_shape_are_the_inverse_of_a_state_dict():
    _, _, params = make_network(GATED | {'width_multiplier': 3})
    state_dict = to_state_dict(params)
    assert state_dict['body.2.body.0.weight_v'].shape == (3 * 24, 8, 3, 3)
    assert all(array.flags.c_contiguous for array in state_dict.values())
    assert_equal(to_parameters(state_dict, params), params)


@pytest.mark.parametrize(
    ('model', 'name'),
    [(CHAIN, 'conv_00/bias'), (PLAIN | {'threshold': 'soft'}, 'block_00/threshold/threshold')],
)
def test_a_network_without_a_place_in_the_layout(tmp_path, model, name):
    config, _, params = make_network(model)
    save_model(tmp_path / 'run', params, config, step=7)
    with pytest.raises(UserError, match=f'the PyTorch layout has no place for the parameter {name}'):
        write_export(tmp_path / 'run', tmp_path / 'new' / 'x2.pth')
    assert not list((tmp_path / 'new').iterdir())
    with pytest.raises(UserError, match=f'no place for the parameter {name}'):
        import_checkpoint(REFERENCE / 'wdsr_x2.pth', config, tmp_path / 'back')


def test_the_same_weights_give_the_same_file():
    arrays = {'one': np.arange(6, dtype=np.float32).reshape(2, 3), 'two': np.float32(7)}
    assert encode_torch_checkpoint(arrays) == encode_torch_checkpoint(dict(arrays))
    assert encode_torch_checkpoint(arrays) != encode_torch_checkpoint(arrays | {'two': np.float32(8)})


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16', 'int64', 'uint8', 'bool'])
def test_arrays_of_every_shape_and_order(tmp_path, dtype):
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    arrays = {'whole': values, 'turned': values.T, 'scalar': values[1, 0, 0], 'empty': values[:0], 'Ä': values[0, 0]}
    (tmp_path / 'a.pth').write_bytes(encode_torch_checkpoint(arrays))
    read = read_torch_checkpoint(tmp_path / 'a.pth')['model_state_dict']
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)


def test_pytorch_reads_what_is_written(tmp_path):
    torch = pytest.importorskip('torch', reason='PyTorch is not needed otherwise')
    _, _, params = make_network(GATED)
    state_dict = to_state_dict(params)
    (tmp_path / 'a.pth').write_bytes(encode_torch_checkpoint(state_dict | {'half': np.ones((2, 3), np.float16)}))
    read = torch.load(tmp_path / 'a.pth', weights_only=True)['model_state_dict']
    assert list(read) == [*state_dict, 'half']
    assert read['half'].dtype == torch.float16
    for key, array in state_dict.items():
        np.testing.assert_array_equal(read[key].numpy(), array)
    # What PyTorch writes of it differs from our file in nothing that is read.
    torch.save({'model_state_dict': read}, tmp_path / 'b.pth')
    assert_equal(*(dict(read_torch_checkpoint(tmp_path / name)['model_state_dict']) for name in ('a.pth', 'b.pth')))
    with zipfile.ZipFile(tmp_path / 'a.pth') as ours, zipfile.ZipFile(tmp_path / 'b.pth') as theirs:
        folders = [archive.namelist()[0].partition('/')[0] for archive in (ours, theirs)]
        names = [
            {name.removeprefix(folder) for name in archive.namelist()}
            for folder, archive in zip(folders, (ours, theirs), strict=True)
        ]
    assert names[0] <= names[1]


def test_safetensors_hold_the_weights_and_what_describes_them(tmp_path):
    config, _, params = make_network(GATED)
    save_model(tmp_path / 'run', params, config, step=7)
    card = write_export(tmp_path / 'run', tmp_path / 'x2.safetensors')
    with safetensors.safe_open(tmp_path / 'x2.safetensors', framework='numpy') as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  a file is no mapping
    assert_equal(traverse_util.unflatten_dict(tensors, sep='/'), params)
    assert json.loads(metadata['config']) == config.to_dict()
    assert (metadata['task'], metadata['scale'], metadata['mean'], metadata['tile']) == ('sr', '2', '0.5', '96')
    assert metadata.keys() == card.keys() - {'file', 'sha256'}
    assert json.loads((tmp_path / 'x2.safetensors.json').read_text()) == card
