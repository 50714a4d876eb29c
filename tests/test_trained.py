import json
import os
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsr_jax.errors import UserError
from nsr_jax.shipped import find_parts
from nsr_jax.trained import fingerprint, load_model


def test_what_is_not_a_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match='there is no such folder'):
        load_model(tmp_path / 'missing')
    with pytest.raises(UserError, match='neither a workdir'):
        load_model(tmp_path)
    (tmp_path / 'checkpoints' / '7' / 'metadata').mkdir(parents=True)
    with pytest.raises(UserError, match='not a checkpoint of this library'):
        load_model(tmp_path / 'checkpoints' / '7')


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        (
            'epoch_30.pth',
            r'epoch_30\.pth is not a folder: python -m nsr_jax.import_torch .*/epoch_30\.pth --config=CONFIG',
        ),
        ('x2.PT', r'x2\.PT is not a folder: python -m nsr_jax.import_torch .*/x2\.PT --config=CONFIG --output=FOLDER'),
        ('x2.onnx', r'x2\.onnx cannot be read: .* by python -m nsr_jax.import_torch FILE\.pth'),
        ('x2.safetensors', r'x2\.safetensors cannot be read: .* by python -m nsr_jax.import_torch FILE\.pth'),
        ('x2.npz', r'x2\.npz cannot be read: .* by python -m nsr_jax.import_torch FILE\.pth'),
    ],
)
@pytest.mark.parametrize('find', [load_model, find_parts])
def test_a_file_of_weights_gets_the_way_to_the_importer(tmp_path, find, name, message):
    (tmp_path / name).write_bytes(b'weights')
    with pytest.raises(UserError, match=message):
        find(tmp_path / name)
    with pytest.raises(UserError, match=f'absent{name}: there is no such file'):
        find(tmp_path / f'absent{name}')


def test_a_folder_may_have_the_name_of_a_file_of_weights(tmp_path):
    (tmp_path / 'x2.pth').mkdir()
    assert find_parts(tmp_path / 'x2.pth') == [str(tmp_path / 'x2.pth')]


def arrays(seed=0):
    generator = np.random.default_rng(seed)
    return {
        'kernel': generator.normal(size=(3, 3, 4, 8)).astype('f'),
        'half': generator.normal(size=(5, 7)).astype(ml_dtypes.bfloat16),
        'count': np.int32(1234),
    }


def expected(tree):
    """The definition in Python's unbounded integers."""
    total = 0
    for index, leaf in enumerate(jax.tree.leaves(tree)):
        bits = np.ravel(leaf).view(f'u{leaf.dtype.itemsize}').tolist()
        total += sum(value * (2 * place + 1) for place, value in enumerate(bits)) * (2 * index + 1)
    return total % 2**32


def test_is_the_definition():
    assert fingerprint(arrays()) == expected(arrays())
    assert fingerprint(arrays(1)) != fingerprint(arrays())


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(['kernel', 'half', 'count']), place=st.integers(0, 10**6), bit=st.integers(0, 31))
def test_every_single_bit_counts(name, place, bit):
    tree = arrays()
    flat = np.array(tree[name]).reshape(-1).view(f'u{tree[name].dtype.itemsize}')
    flat[place % flat.size] ^= flat.dtype.type(1 << bit % (8 * flat.dtype.itemsize))
    changed = tree | {name: flat.view(tree[name].dtype).reshape(tree[name].shape)}
    assert fingerprint(changed) != fingerprint(tree)


def test_the_same_from_any_mesh():
    script = """
import json, jax, numpy as np
from nsr_jax.trained import fingerprint
from nsr_jax.training.sharding import make_mesh, state_shardings
tree = {'kernel': np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype('f')}
meshes = [make_mesh(data, 8 // data, 8) for data in (8, 2, 1)]
print(json.dumps([fingerprint(jax.device_put(tree, state_shardings(mesh, tree))) for mesh in meshes]))
"""
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '8'}
    output = subprocess.run(
        [sys.executable, '-c', script], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(output) == [fingerprint({'kernel': arrays()['kernel']})] * 3
