"""The folder for a model hub: its card can be read by a hub, and its network by us."""

import numpy as np
import pytest
import yaml

from nsr_jax import Restorer, shipped
from nsr_jax.errors import UserError
from nsr_jax.hub_folder import write_hub_folder


@pytest.fixture
def folder(package, tmp_path):
    package('sr_x2')
    write_hub_folder('sr_x2', tmp_path / 'hub')
    return tmp_path / 'hub'


def test_the_card_has_the_metadata_of_hubs(folder):
    assert sorted(path.name for path in folder.iterdir()) == ['README.md', 'config.json', 'model.safetensors']
    _, head, text = (folder / 'README.md').read_text(encoding='utf-8').split('---\n', 2)
    metadata = yaml.safe_load(head)
    assert (metadata['license'], metadata['license_link']) == ('other', 'README.md#terms')
    assert {'library_name', 'license_name', 'pipeline_tag'} <= metadata.keys()
    assert metadata['tags'] == ['image-restoration', 'super-resolution', 'jax', 'flax']
    assert metadata['datasets'] == ['bsds500']
    assert metadata['metrics'] == ['psnr', 'ssim', 'mae']
    (model,) = metadata['model-index']
    (result,) = model['results']  # not bicubic's
    assert (model['name'], result['dataset']['name']) == ('sr_x2', 'Set5, x2, protocol sr-y')
    assert {each['type']: each['value'] for each in result['metrics']} == {'psnr': 30.0, 'ssim': 0.9, 'mae': 2.5}
    assert '## Terms\n' in text and 'non-commercial' in text
    assert '30 steps of 16 patches on 2 CPU cores' in text


def test_the_network_is_the_one_of_the_package(folder):
    image = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    ours, theirs = Restorer.load(folder), Restorer.load('sr_x2')
    np.testing.assert_array_equal(ours(image), theirs(image))


def test_the_network_is_scored_by_the_name_of_its_folder(folder):
    ((name, model),) = shipped.load_named([f'{folder}/'], []).items()
    assert (name, model.label) == (f'{folder}, step 30', 'hub')


def test_a_run_that_holds_its_own_export_is_a_run(folder, tmp_path):
    run = tmp_path / 'runs' / 'sr_x2'
    (run / 'model.safetensors').write_bytes((folder / 'model.safetensors').read_bytes())
    assert shipped.load_part(str(run)).origin == 'step 30'
    assert shipped.load_part(str(run)).path.parent.name == 'checkpoints'


def test_a_damaged_folder_is_refused(folder):
    contents = (folder / 'model.safetensors').read_bytes()
    (folder / 'model.safetensors').write_bytes(contents[:-2] + b'ab')
    with pytest.raises(UserError, match=r'model\.safetensors is damaged: its SHA-256 is not the one that its card'):
        shipped.load_part(str(folder))
    (folder / 'config.json').write_text('{}')
    with pytest.raises(UserError, match=r'config\.json: not the card of a network: '):
        shipped.load_part(str(folder))
