"""Networks as ONNX: ONNX Runtime answers like the network, for any batch and size."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from nsr_jax.errors import UserError
from nsr_jax.export import write_export
from nsr_jax.exporting import onnx_graph
from nsr_jax.models.build import NETWORKS, build_network
from nsr_jax.models.chain import ChainNetwork
from nsr_jax.nn import gates
from nsr_jax.training.checkpoints import save_model
from tests.exporting.networks import CHAIN, GATED, PLAIN, apply, make_network, random_images

SIZES = [(1, 7, 9), (3, 12, 5), (2, 1, 1)]
ONE_BLOCK = GATED | {'num_blocks': 1}
SE = {'groups': 1, 'cardinality': 1, 'gate': 'se'}
MODELS = {
    'softmax': GATED,
    'hard': ONE_BLOCK | {'gate': 'hard', 'scale': 3},
    'gumbel': ONE_BLOCK | {'gate': 'gumbel', 'gate_scale': 2.0},
    'sigmoid': ONE_BLOCK | {'gate': 'sigmoid', 'gate_pooling': 'rms', 'scale': 4},
    'normalized mean': ONE_BLOCK | {'gate_pooling': 'normalized_mean', 'channels': 1, 'width_multiplier': 4},
    'deviation': ONE_BLOCK | {'gate_pooling': 'mean_and_deviation', 'scale': 1, 'gate_scale': 0.3},
    'uniform': ONE_BLOCK | {'gate': 'uniform'},
    'squeeze and excitation': ONE_BLOCK | SE,
    'pruned by magnitude': ONE_BLOCK | {'pruning': 'magnitude'},
    'pruned at random': ONE_BLOCK | {'pruning': 'random'},
    'soft threshold': PLAIN | {'threshold': 'soft', 'channels': 3},
    'enlarging chain': CHAIN,
    'chain': CHAIN | {'scale': 1, 'channels': 3, 'kernel_sizes': (5, 1, 3), 'features': (4, 3), 'adds_input': False},
}


def model_of(network, params):
    return onnx_graph.build_model(network, params, {})


def run(model, images):
    """What ONNX Runtime answers to images (B, H, W, C), in the same order of axes."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    return session.run(['restored'], {'image': images.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)


@pytest.mark.parametrize('name', MODELS)
def test_the_runtime_answers_as_the_network(name):
    _, network, params = make_network(MODELS[name])
    model = model_of(network, params)
    for size in SIZES if name == 'softmax' else SIZES[1:2]:
        images = random_images(network.channels, size)
        expected = apply(network, params, images)
        np.testing.assert_allclose(run(model, images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        assert np.abs(expected).max() > 0.3


def test_samples_of_a_batch_do_not_influence_one_another():
    _, network, params = make_network(GATED)
    model, images = (
        model_of(network, params),
        random_images(3, (3, 8, 8)) * np.float32([1, 0.2, 3])[:, None, None, None],
    )
    alone = np.concatenate([run(model, images[index : index + 1]) for index in range(3)])
    np.testing.assert_allclose(run(model, images), alone, rtol=0, atol=1e-6)


def test_what_needs_no_gate_is_plain_operators():
    used = {}
    for name in ('softmax', 'uniform', 'pruned at random', 'squeeze and excitation'):
        _, network, params = make_network(MODELS[name])
        used[name] = {node.op_type for node in model_of(network, params).graph.node}
    plain = {'Sub', 'Conv', 'Relu', 'Add', 'DepthToSpace'}
    assert used['uniform'] == used['pruned at random'] == plain
    assert 'Scan' in used['softmax']
    assert 'Scan' not in used['squeeze and excitation']


def test_the_file_says_what_it_is(tmp_path):
    config, network, params = make_network(GATED)
    save_model(tmp_path / 'run', params, config, step=7)
    card = write_export(tmp_path / 'run', tmp_path / 'x2.onnx')
    model = onnx.load(tmp_path / 'x2.onnx')
    assert [(each.domain, each.version) for each in model.opset_import] == [('', 17)]
    assert model.ir_version == 8
    metadata = {each.key: each.value for each in model.metadata_props}
    assert metadata.keys() == card.keys() - {'file', 'sha256'}
    named = ('task', 'scale', 'mean', 'gated', 'tile', 'overlap', 'opset')
    assert [metadata[name] for name in named] == ['sr', '2', '0.5', 'true', '96', '16', '17']
    assert json.loads(metadata['config']) == config.to_dict()
    assert json.loads((tmp_path / 'x2.onnx.json').read_text()) == card
    assert card['input'] == 'image: float32 (batch, 3, height, width), nominally on [0, 1]'
    assert card['output'] == 'restored: float32 (batch, 3, 2 * height, 2 * width), not clipped'

    def dims(value):
        return [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]

    assert [dims(each) for each in (*model.graph.input, *model.graph.output)] == [
        ['batch', 3, 'height', 'width'],
        ['batch', 3, 'restored_height', 'restored_width'],
    ]
    images = random_images(3, (2, 6, 8))
    np.testing.assert_allclose(run(model, images), apply(network, params, images), rtol=0, atol=1e-5)
    write_export(tmp_path / 'run', tmp_path / 'again' / 'x2.onnx')
    assert (tmp_path / 'again' / 'x2.onnx').read_bytes() == (tmp_path / 'x2.onnx').read_bytes()


def test_what_a_plugin_adds_is_refused_in_one_line(monkeypatch):
    monkeypatch.setitem(gates.GATES, 'squares', lambda logits: logits**2)
    monkeypatch.setitem(gates.POOLINGS, 'largest', lambda x, inside: x.max(axis=(1, 2)))
    monkeypatch.setitem(NETWORKS, 'other', type('Other', (ChainNetwork,), {}))
    for model, message in [
        (
            GATED | {'gate': 'squares'},
            "the gate 'squares' cannot be written as ONNX: --gate=fixed or a .stablehlo file",
        ),
        (GATED | {'gate_pooling': 'largest'}, "the gate_pooling 'largest' cannot be written as ONNX"),
        (CHAIN | {'architecture': 'other'}, 'the network Other cannot be written as ONNX: a .stablehlo file takes any'),
    ]:
        config, _, params = make_network(model)
        with pytest.raises(UserError, match=message):
            model_of(build_network(config.model), params)
