"""Fixed gates: the folded network is the mean of those for each image, and the price of it is told."""

import sys

import jax
import numpy as np
import onnx
import PIL.Image
import pytest
from absl import logging

from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.protocols import score
from nsr_jax.export import write_export
from nsr_jax.exporting.fixed_gates import mean_gammas
from nsr_jax.exporting.folding import PLAIN as WITHOUT_GATES
from nsr_jax.exporting.folding import fold_gates
from nsr_jax.import_torch import import_checkpoint
from nsr_jax.inference.prediction import predict
from nsr_jax.inference.restorer import TILING
from nsr_jax.metrics import find_metrics
from nsr_jax.models.build import build_network
from nsr_jax.tasks.sr import SR_Y
from nsr_jax.trained import load_model
from nsr_jax.training.checkpoints import save_model
from tests.exporting.networks import GATED, PLAIN, apply, make_network, random_images

SMALL = GATED | {'num_blocks': 1, 'features': 4}
SE = {'groups': 1, 'cardinality': 1, 'gate': 'se'}


def fixed_for(network, params, images):
    return fold_gates(network, params, mean_gammas(network, params, images))


@pytest.mark.parametrize('changes', [{}, {'gate': 'hard'}, {'gate': 'sigmoid', 'gate_pooling': 'rms'}, SE])
def test_for_one_image_nothing_changes(changes):
    _, network, params = make_network(GATED | changes)
    image, other = random_images(3, (2, 9, 12)) * np.float32([1, -3])[:, None, None, None]
    fixed, folded = fixed_for(network, params, [image])
    assert not fixed.is_gated
    expected = apply(network, params, image[None])
    np.testing.assert_allclose(apply(fixed, folded, image[None]), expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    assert np.abs(apply(fixed, folded, other[None]) - apply(network, params, other[None])).max() > 1e-3


def test_kernels_are_the_mean_over_images_and_over_their_tiles():
    _, network, params = make_network(SMALL)
    images = [random_images(3, (1, 8, side))[0] ** power for side, power in ((8, 1), (30, 4))]
    both, first, second = (fixed_for(network, params, some)[1] for some in (images, images[:1], images[1:]))
    jax.tree.map(np.testing.assert_array_equal, both['tail'], params['tail'])
    for conv in ('conv_1', 'conv_2'):
        mean = (first['block_00'][conv]['direction'] + second['block_00'][conv]['direction']) / 2
        np.testing.assert_allclose(both['block_00'][conv]['direction'], mean, rtol=0, atol=1e-6)
    wide = np.concatenate([images[0]] * 22, axis=1)  # two tiles of 96 pixels, which share 16
    wide[:, 90:] **= 6
    whole = mean_gammas(network, params, [wide])
    parts = mean_gammas(network, params, [wide[:, :96], wide[:, 80:]])
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=0, atol=1e-6), whole, parts)


def test_a_filter_of_zeros_stays_one():
    _, network, params = make_network(SMALL)
    params['block_00']['conv_1']['scale'][:, 1, 0] = 0
    image = random_images(3, (1, 8, 8))
    fixed, folded = fixed_for(network, params, image)
    np.testing.assert_allclose(apply(fixed, folded, image), apply(network, params, image), rtol=0, atol=1e-5)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The checkpoint of a network with gates."""
    folder = tmp_path_factory.mktemp('fixed')
    config, _, params = make_network(SMALL)
    save_model(folder / 'run', params, config, step=7)
    return folder / 'run'


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """A folder of two small images, which a network takes as low resolution of twice their size."""
    folder = tmp_path_factory.mktemp('photos')
    for index, image in enumerate((255 * random_images(3, (2, 32, 40))).astype(np.uint8)):
        PIL.Image.fromarray(image).save(folder / f'{index}.png')
    return folder


def test_files_hold_plain_convolutions_and_the_price(run, photos, tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'prepared'))
    lines = []
    with monkeypatch.context() as patch:
        patch.setattr(logging, 'info', lambda text, *values: lines.append(str(text) % values))
        card = write_export(run, tmp_path / 'x2.onnx', fix_gates_for=str(photos))
    write_export(run, tmp_path / 'x2.pth', fix_gates_for=str(photos))
    before, after = card['fixed_gates']
    assert (before['model'], after['model'], before['images']) == ('with gates', 'with fixed gates', 2)
    told = next(line for line in lines if 'protocol' in line)
    start = f'{photos.name} (2 images), x2, protocol sr-y: {before["psnr"]:.3f} dB with gates, {after["psnr"]:.3f} dB'
    assert told == f'{start} with fixed gates ({after["psnr"] - before["psnr"]:+.3f} dB)'
    assert before['psnr'] != after['psnr']
    assert card['gated'] is False
    assert {name: card['config']['model'][name] for name in WITHOUT_GATES} == WITHOUT_GATES
    model = onnx.load(tmp_path / 'x2.onnx')
    assert {node.op_type for node in model.graph.node} == {'Sub', 'Conv', 'Relu', 'Add', 'DepthToSpace'}

    config = make_network(SMALL | WITHOUT_GATES)[0]
    import_checkpoint(tmp_path / 'x2.pth', config, tmp_path / 'back')
    fixed, network = load_model(tmp_path / 'back'), build_network(config.model)
    kernels = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    direction, norm = (np.asarray(fixed.params['block_00']['conv_1'][name]) for name in ('direction', 'scale'))
    np.testing.assert_allclose(np.linalg.norm(direction.reshape(-1, 4), axis=0), norm, rtol=1e-5)
    np.testing.assert_allclose(kernels['block_00/conv_1/kernel'], direction.transpose(3, 2, 0, 1), rtol=0, atol=1e-5)

    protocol, source = SR_Y, open_source(photos, '', 2, inputs='shrunk')
    predictions = [predict(network, fixed.params, protocol.network_input(each, 2), tiling=TILING) for each in source]
    pairs = zip(predictions, source, strict=True)
    expected = np.mean([score(protocol, each, truth.hr, 2, find_metrics(['psnr']))['psnr'] for each, truth in pairs])
    assert after['psnr'] == pytest.approx(expected, abs=1e-4)


def test_what_cannot_be_fixed_is_one_line(run, photos, tmp_path, monkeypatch):
    config, _, params = make_network(PLAIN, 'denoise')
    save_model(tmp_path / 'plain', params, config, step=7)
    config, _, params = make_network(GATED | {'scale': 1}, 'denoise')
    save_model(tmp_path / 'denoise', params, config, step=7)
    for model, images, levels, message in [
        (tmp_path / 'plain', photos, ['25'], '--gate=fixed: this network has no gates that could be fixed'),
        (tmp_path / 'denoise', photos, [], 'no level given to score denoise at'),
        (run, photos, ['25'], 'task sr has no levels besides its scale'),
        (run, tmp_path / 'none', [], 'none: there is no such folder'),
        (run, tmp_path / 'plain', [], 'no image in this folder'),
    ]:
        with pytest.raises(UserError, match=message):
            write_export(model, tmp_path / 'new' / 'x.onnx', fix_gates_for=str(images), levels=levels)
    assert not (tmp_path / 'new').exists()
    monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
    with pytest.raises(
        UserError, match=r"to fix gates, the package tensorflow_datasets is needed: pip install 'nsr-jax"
    ):
        write_export(run, tmp_path / 'new' / 'x.onnx', fix_gates_for=str(photos))
