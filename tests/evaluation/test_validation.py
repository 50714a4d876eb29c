"""The validation of a config: which images are scored, what is told of the gates, and what the merit depends on."""

import pathlib
import runpy
import shutil

import jax
import numpy as np
import pytest

from configs.base import get_base
from configs.shipped import NAMES
from configs.shipped import get_config as get_shipped_config
from nsr_jax.errors import UserError
from nsr_jax.evaluation.gate_statistics import gate_statistics
from nsr_jax.evaluation.validation import open_held_out, open_validation
from nsr_jax.images.reading import read_image
from nsr_jax.images.writing import write_image
from nsr_jax.models.build import build_network
from nsr_jax.ops.colour import rgb_to_gray_uint8
from nsr_jax.studies.gates_worth import measure_gates
from nsr_jax.studies.study import read_study

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path):
    """Of a tiny network and 12 images, most of which are held out."""
    generator = np.random.default_rng(0)
    for index in range(12):
        write_image(tmp_path / 'photos' / f'{index:02}.png', generator.integers(0, 256, (24, 20 + index, 3), np.uint8))
    config = get_base()
    config.task = 'sr'
    config.model.update(scale=2, num_blocks=1, features=8, groups=2, cardinality=4)
    config.data.update(source=str(tmp_path / 'photos'), tfds_dir=str(tmp_path / 'prepared'))
    config.validation.fraction = 0.9
    return config


def initial_params(config):
    network = build_network(config.model)
    return jax.jit(network.init)(jax.random.key(0), np.zeros((1, 8, 8, network.channels), np.float32))['params']


@pytest.fixture
def params(config):
    return initial_params(config)


def make_small(tmp_path, name):
    write_image(tmp_path / 'photos' / name, np.zeros((4, 6, 3), np.uint8))


def test_images_that_are_too_small_are_left_out_everywhere(tmp_path, config, params, caplog):
    first, *others = open_held_out(config).names
    make_small(tmp_path, first)
    assert open_held_out(config).names == tuple(others)
    assert f'1 of {1 + len(others)} validation images are too small to be scored: {first}' in caplog.text
    validation, gates = open_validation(config), measure_gates(config, params)

    for name in others:
        (tmp_path / 'others').mkdir(exist_ok=True)
        shutil.copy(tmp_path / 'photos' / name, tmp_path / 'others')
    config.validation.source = str(tmp_path / 'others')
    merit, scores = open_validation(config).evaluate(params)
    assert validation.evaluate(params) == (merit, scores)
    assert merit == scores['validation/sr-y/x2/psnr']
    assert gates == measure_gates(config, params)
    assert validation.measured_on['images'] != open_validation(config).measured_on['images']


def test_a_network_for_gray_images_is_validated_on_colour_photographs_made_gray(tmp_path, config):
    config.task = 'denoise'
    config.model.update(scale=1, channels=1)
    config.validation.update(protocol='denoise', levels=(25.0,))
    found = {example.name: example.hr for example in open_held_out(config)}
    for name, image in found.items():
        colour = read_image(tmp_path / 'photos' / name)
        np.testing.assert_array_equal(image, rgb_to_gray_uint8(colour)[..., None])
        write_image(tmp_path / 'gray' / name, image)
    validation = open_validation(config)
    params = initial_params(config)
    config.validation.source = str(tmp_path / 'gray')
    assert validation.evaluate(params) == open_validation(config).evaluate(params)
    assert validation.draw_samples(params).keys() == {'validation/sample_0', 'validation/sample_1'}


CONFIGS = {name: lambda name=name: get_shipped_config(f'model={name}') for name in NAMES} | {
    path.stem: lambda path=path: read_study(path, laptop='LAPTOP' in runpy.run_path(str(path))).runs[0].config
    for path in (ROOT / 'configs' / 'sweeps').glob('*.py')
}


@pytest.mark.parametrize('name', CONFIGS)
def test_each_config_of_the_project_can_be_validated_on_colour_photographs(tmp_path, monkeypatch, name):
    monkeypatch.chdir(ROOT)
    generator = np.random.default_rng(0)
    for index in range(2):
        write_image(tmp_path / 'photos' / f'{index}.png', generator.integers(0, 256, (64, 64, 3), np.uint8))
    config = CONFIGS[name]().copy_and_resolve_references()
    config.data.update(source=str(tmp_path / 'photos'), split='', tfds_dir=str(tmp_path / 'prepared'))
    assert open_validation(config)


def test_an_image_that_is_named_is_not_left_out(tmp_path, config):
    make_small(tmp_path, '03.png')
    config.validation.images = ('03.png', '04.png')
    assert open_held_out(config).names == ('03.png', '04.png')
    with pytest.raises(UserError, match=r'03\.png: 6x4 pixels are too few'):
        open_validation(config)


def test_where_all_are_too_small_the_first_is_named(tmp_path, config):
    for name in open_held_out(config).names:
        make_small(tmp_path, name)
    with pytest.raises(UserError, match='pixels are too few'):
        open_validation(config)


def test_gates_are_watched_on_the_first_eight_images(config, params):
    network, held_out = build_network(config.model), list(open_held_out(config))
    assert len(held_out) > 8
    _, scores = open_validation(config).evaluate(params)
    expected = gate_statistics(network, params, [example.lr for example in held_out[:8]], config.evaluation.tile)
    assert {name: scores[name] for name in expected} == expected
    config.model.groups = 1
    _, scores = open_validation(config).evaluate(initial_params(config))
    assert not any(name.startswith('gates/') for name in scores)


def test_samples_are_drawn_where_they_are_asked_for(config, params):
    pictures = open_validation(config).draw_samples(params)
    assert list(pictures) == ['validation/sample_0', 'validation/sample_1']
    config.validation.samples = 0
    assert open_validation(config).draw_samples is None
    config.validation.fraction = 0.0
    assert open_validation(config) is None
