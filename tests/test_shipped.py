"""Weights that come with the package: what is written is what is read, and nothing else is."""

import json

import jax
import ml_collections
import numpy as np
import pytest
import safetensors.numpy

from experiments.runs import RUNS
from nsr_jax import shipped
from nsr_jax.data.training_sets import find_training_set
from nsr_jax.errors import UserError
from nsr_jax.evaluation.cells import digest_weights
from nsr_jax.evaluation.scores import Score
from nsr_jax.evaluation.tables import to_json
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.package_weights import TRAINING_DATA, package_weights
from nsr_jax.trained import load_model
from nsr_jax.training.checkpoints import Checkpoints, save_model


def test_weights_come_back_to_half_precision(package, tmp_path):
    folder = package('sr_x2', 'jpeg_gray')
    assert sorted(path.name for path in folder.iterdir()) == [
        'README.md', 'jpeg_gray.json', 'jpeg_gray.safetensors', 'sr_x2.json', 'sr_x2.safetensors',
    ]  # fmt: skip
    assert shipped.shipped_names() == ['sr_x2', 'jpeg_gray']
    loaded, original = shipped.load_shipped('sr_x2'), load_model(tmp_path / 'runs' / 'sr_x2')
    assert loaded.config.to_dict() == json.loads(original.config.to_json())
    assert loaded.step == original.step == 30
    assert jax.tree.structure(loaded.params) == jax.tree.structure(original.params)
    for packed, exact in zip(*map(jax.tree.leaves, (loaded.params, original.params)), strict=True):
        assert packed.dtype == np.float32
        np.testing.assert_allclose(packed, exact, rtol=2**-11, atol=2**-25)
        assert not np.array_equal(packed, exact) or exact.size < 5
    # A file is half as large as the parameters, and its names and header.
    card = shipped.read_card('sr_x2')
    assert card.size < 2 * card.parameters + 4000


def test_the_card_says_where_weights_come_from(package):
    folder = package('sr_x2', 'denoise_gray')
    card = shipped.read_card('sr_x2')
    assert (card.step, card.hardware, card.command) == (30, '2 CPU cores', 'python train.py')
    assert 'non-commercial' in card.terms
    assert [(score['model'], score['psnr'], score['protocol'], score['images']) for score in card.scores] == [
        ('sr_x2 (tiling feathered 96/16)', 30.0, 'sr-y', 1),
        ('bicubic', 28.0, 'sr-y', 1),
    ]
    network, bicubic = card.scores
    assert (network['tiling'], network['ensemble']) == ('feathered 96/16', 1)
    assert not {'tiling', 'ensemble'} & bicubic.keys()
    assert shipped.read_card('denoise_gray').title == 'removes noise of sigma 0 to 50 (of 255) from gray images'
    readme = (folder / 'README.md').read_text()
    for said in (
        '## sr_x2',
        '## denoise_gray',
        'enlarges x2',
        'non-commercial',
        card.sha256,
        'sr_x2 (tiling feathered 96/16) 30.00 dB / 0.9000 / 2.500 of 255; bicubic 28.00 dB',
        '2 CPU cores',
    ):
        assert said in readme


def test_cards_of_before_are_read(package):
    """Their scores do not say how the network was applied."""
    path = package('sr_x2') / 'sr_x2.json'
    contents, card = json.loads(path.read_text()), shipped.read_card('sr_x2')
    del contents['scores'][0]['tiling'], contents['scores'][0]['ensemble']
    path.write_text(json.dumps(contents))
    assert shipped.read_card('sr_x2').score_lines == card.score_lines


@pytest.mark.parametrize(
    ('source', 'images', 'terms'),
    [
        ('t91_bsds200', '289 images', ('T91', 'without a stated licence', 'BSDS500', 'non-commercial')),
        ('bsds400', '399 photographs', ('BSDS500', 'non-commercial')),
        ('train400', '400 gray images of 180x180', ('without a stated licence', 'BSDS500', 'non-commercial')),
    ],
)
def test_training_sets_of_published_networks_have_their_terms(package, tmp_path, random_model, source, images, terms):
    package()
    assert images.split()[0] == str(find_training_set(source).images)
    config, parameters = random_model('denoise', 1, 1)
    config.data.source = source
    save_model(tmp_path / 'run', parameters, config, step=30)
    card = package_weights(tmp_path / 'run', 'denoise_gray', [], 'a laptop', 'train')
    assert card == shipped.read_card('denoise_gray')
    assert images in card.data
    for words in (*terms, 'the weights hold none of them'):
        assert words in card.terms


def test_terms_are_known_for_every_comparison():
    assert {run.config().data.source for run in RUNS.values()} <= TRAINING_DATA.keys()


def test_a_moving_average_is_named_wherever_the_weights_are(package, tmp_path, random_model):
    package()
    config, parameters = random_model('sr', 2, 3)
    run = tmp_path / 'run'
    with Checkpoints(run, keep=1) as checkpoints:
        checkpoints.save(30, config, jax.tree.map(np.zeros_like, parameters), averages={'ema': parameters})
    ((name, model),) = shipped.load_named([str(run)], []).items()
    assert (name, model.kind) == (f'{run}, step 30, EMA', 'EMA')
    path = tmp_path / 'scores.json'
    applied = {'weights': digest_weights(parameters), 'tiling': 'whole', 'ensemble': 1}
    score = Score('Set5', 'x2', f'{name} (tiling whole)', 'sr-y', 'baby', {'psnr': 30.0, 'ssim': 0.9})
    path.write_text(to_json([score], {score.model: applied}))
    card = package_weights(run, 'sr_x2', [path], 'a laptop', 'train')
    assert (card.origin, card.scores[0]['model']) == ('30 steps (EMA)', 'sr_x2 (tiling whole)')
    assert '30 steps (EMA) of 16 patches on a laptop' in (shipped.FOLDER / 'README.md').read_text()
    assert shipped.load_shipped('sr_x2').origin == 'step 30, EMA'
    np.testing.assert_allclose(
        shipped.load_shipped('sr_x2').params['tail']['direction'], parameters['tail']['direction'], rtol=1e-3
    )


def test_networks_to_score_have_the_names_of_tables(package, tmp_path):
    package('sr_x2')
    run = str(tmp_path / 'runs' / 'sr_x2')
    found = shipped.load_named([f'{run}/', run], ['sr_x2', 'sr_x2'])
    assert list(found) == [f'{run}, step 30', 'sr_x2']
    assert found['sr_x2'].path == shipped.FOLDER / 'sr_x2.safetensors'


@pytest.mark.parametrize('place', [0, 9, 200, -1])
def test_one_changed_bit_is_seen(package, place):
    path = package('sr_x2') / 'sr_x2.safetensors'
    contents = bytearray(path.read_bytes())
    contents[place] ^= 1
    path.write_bytes(contents)
    with pytest.raises(UserError, match=r'sr_x2.safetensors is damaged'):
        shipped.load_shipped('sr_x2')


def test_what_is_not_there_is_told_by_what_is(package):
    folder = package('jpeg_gray')
    with pytest.raises(UserError, match=r'no weights called sr_x2 come with the package; there are: jpeg_gray$'):
        shipped.load_shipped('sr_x2')
    (folder / 'jpeg_gray.safetensors').unlink()
    with pytest.raises(UserError, match=r'jpeg_gray.safetensors: cannot be read'):
        shipped.load_shipped('jpeg_gray')
    (folder / 'jpeg_gray.json').write_text('{"name": "jpeg_gray"}')
    with pytest.raises(UserError, match=r'jpeg_gray.json: not the card') as caught:
        shipped.load_shipped('jpeg_gray')
    assert '\n' not in str(caught.value)


def test_tensors_of_another_network_are_refused(random_model):
    small, parameters = random_model('sr', 2, 3)
    large, _ = random_model('sr', 2, 3, num_blocks=2)
    contents = shipped.pack(parameters)
    for config in (large, random_model('sr', 3, 3)[0]):
        with pytest.raises(UserError, match='x: its tensors are not the parameters'):
            shipped.unpack(contents, parameter_shapes(build_network(config.model)), 'x')
    with pytest.raises(UserError, match='x: not a file of tensors'):
        shipped.unpack(b'pickle', parameter_shapes(build_network(small.model)), 'x')


def test_the_file_is_read_by_the_format_s_own_library_alone(random_model):
    """Anyone can open it: plain tensors under their names."""
    _, parameters = random_model('sr', 2, 3)
    tensors = safetensors.numpy.load(shipped.pack(parameters))
    np.testing.assert_allclose(
        tensors['block_00/conv_1/gate/kernel'], parameters['block_00']['conv_1']['gate']['kernel'], rtol=1e-3
    )
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float16)}


@pytest.mark.parametrize(
    ('value', 'message'),
    [(np.nan, 'tail/bias holds values that are not finite'), (1e5, 'tail/bias cannot be kept in float16'),
     (1e-7, 'head/bias cannot be kept')],
)  # fmt: skip
def test_what_half_precision_cannot_hold_is_refused(random_model, value, message):
    _, parameters = random_model('sr', 2, 3)
    if value == 1e-7:
        parameters['head']['bias'][:] = value * np.linspace(1, 2, len(parameters['head']['bias']))
    else:
        parameters['tail']['bias'][1] = value
    with pytest.raises(UserError, match=message):
        shipped.pack(parameters)


def test_a_checkpoint_that_does_not_fit_is_not_packaged(package, tmp_path, random_model):
    folder = package()
    config, parameters = random_model('sr', 2, 3)
    save_model(tmp_path / 'x2', parameters, config, step=30)
    other_scores, old_scores = tmp_path / 'other.json', tmp_path / 'old.json'
    score = Score('Set5', 'x2', 'x2 (tiling whole)', 'sr-y', 'baby', {'psnr': 30.0, 'ssim': 0.9})
    applied = {'weights': 'of another step', 'tiling': 'whole', 'ensemble': 1}
    other_scores.write_text(to_json([score], {score.model: applied}))
    old_scores.write_text(to_json([score], {}))  # as a version wrote them that did not say whose they are
    other = ml_collections.ConfigDict(config.to_dict())
    other.data.source = 'holiday'
    save_model(tmp_path / 'holiday', parameters, other, step=30)
    mistakes = [
        ('x2', 'sr_x5', [], 'unknown name'),
        ('x2', 'sr_x3', [], 'is of task, scale and channels'),
        ('x2', 'sr_x2', [other_scores], r'other.json: scores of x2 \(tiling whole\), not of the weights of the check'),
        ('x2', 'sr_x2', [old_scores], r'old.json: scores of x2 \(tiling whole\), not of the weights of the checkpoint'),
        ('x2', 'sr_x2', [tmp_path / 'absent.json'], 'absent.json'),
        ('holiday', 'sr_x2', [], "no terms are known for weights trained on 'holiday'"),
    ]
    for checkpoint, name, paths, message in mistakes:
        with pytest.raises(UserError, match=message):
            package_weights(tmp_path / checkpoint, name, paths, 'a laptop', 'train')
        assert not list(folder.iterdir())


def test_weights_in_the_package_are_whole_and_small():
    """Those that really come with it."""
    for name in shipped.shipped_names():
        card = shipped.read_card(name)
        model = shipped.load_shipped(name)
        found = model.config.task, model.config.model.scale, model.config.model.channels
        assert found == shipped.SHIPPED[name]
        assert card.parameters == sum(leaf.size for leaf in jax.tree.leaves(model.params))
        assert card.scores
    assert sum(path.stat().st_size for path in shipped.FOLDER.glob('*')) < 40e6
