"""Configs: each file loads, arguments are typed, every field is explained, and presets reach the network."""

import ast
import importlib
import io
import json
import pathlib
import tokenize

import ml_collections
import pytest

from configs import base, presets, sr
from configs.base import parse_arg
from configs.listing import list_configs
from nsr_jax.models.build import build_network

FOLDER = pathlib.Path(__file__).parents[1] / 'configs'
NAMES = sorted(
    path.relative_to(FOLDER).with_suffix('').as_posix()
    for path in FOLDER.rglob('*.py')
    if 'def get_config(' in path.read_text(encoding='utf-8')
)


def module_of(name):
    return importlib.import_module(f'configs.{name.replace("/", ".")}')


def leaves(config, prefix=''):
    """Every field that is not a section, by its dotted name."""
    found = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            found |= leaves(value, f'{prefix}{name}.')
        else:
            found[prefix + name] = value
    return found


def test_all_tasks_are_found():
    assert {'quickstart', 'sr'} <= set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_every_config_loads(name):
    config = module_of(name).get_config()
    fields, defaults = leaves(config), leaves(base.get_base())
    assert fields.keys() == defaults.keys()
    for field, value in fields.items():
        assert type(value) is type(defaults[field]), field
    assert config.task
    with pytest.raises(AttributeError):
        config.learning_rat = 1.0
    build_network(config.model, config.compute_dtype)
    # A checkpoint keeps the config as JSON.
    restored = ml_collections.ConfigDict(json.loads(config.to_json()))
    assert leaves(restored).keys() == fields.keys()


def test_every_config_is_listed_with_arguments_that_it_takes():
    listed = list_configs()
    assert 'configs/sr.py:scale=2,preset=edsr_s_nsr' in listed
    # A default that is a constant of another file is listed by its value.
    assert 'configs/same_data/jpeg.py:network=resnet_nsr_capacity,steps=100000' in listed
    names = [each.partition(':')[0].removeprefix('configs/').removesuffix('.py') for each in listed]
    assert names == sorted(NAMES, key=lambda name: ('/' in name, name))
    for name, each in zip(names, listed, strict=True):
        get_config, arguments = module_of(name).get_config, each.partition(':')[2]
        assert not arguments or get_config(arguments).to_dict() == get_config().to_dict()


@pytest.mark.parametrize('name', NAMES)
def test_two_calls_share_nothing(name):
    module = module_of(name)
    first = module.get_config()
    first.model.features = 1234
    first.batch_size = 1234
    assert module.get_config().model.features != 1234
    assert module.get_config().batch_size != 1234


@pytest.mark.parametrize('preset', presets.PRESETS)
@pytest.mark.parametrize('scale', [2, 3, 4])
def test_presets_reach_the_model(preset, scale):
    config = sr.get_config(f'scale={scale},preset={preset}')
    defaults = base.get_base().model.to_dict()
    assert config.model.to_dict() == defaults | presets.PRESETS[preset] | {'scale': scale}
    network = build_network(config.model)
    for field, value in (presets.PRESETS[preset] | {'scale': scale}).items():
        assert getattr(network, field) == value


def test_sr_defaults():
    assert sr.get_config().to_dict() == sr.get_config('scale=2,preset=edsr_s_nsr').to_dict()
    assert sr.get_config('preset=wdsr_s').model.scale == 2
    assert sr.get_config('scale=4').model.groups == 4


@pytest.mark.parametrize(
    ('arg', 'message'),
    [
        ('scale=5', '5'),
        ('scale=1', '1'),
        ('scale=two', "scale must be of type int, not 'two'"),
        ('scale=2.0', "'2.0'"),
        ('scale=', "scale must be of type int, not ''"),
        ('scael=2', "'scael=2'.*scale, preset"),
        ('scale', "'scale'.*name=value"),
        ('preset=edsr_xl', "'edsr_xl'.*edsr_s, edsr_s_nsr"),
        ('edsr_s', "'edsr_s'"),
        ('scale=2,scale=3', 'scale is given twice'),
    ],
)
def test_a_wrong_argument_is_named(arg, message):
    with pytest.raises(ValueError, match=message):
        sr.get_config(arg)


DEFAULTS = {'blocks': 3, 'rate': 0.5, 'name': 'a', 'wide': False}


@pytest.mark.parametrize(
    ('arg', 'changes'),
    [
        (None, {}),
        ('', {}),
        ('blocks=7', {'blocks': 7}),
        ('rate=2', {'rate': 2.0}),
        ('rate=1e-3,blocks=-1', {'rate': 1e-3, 'blocks': -1}),
        ('name=b', {'name': 'b'}),
        ('name=div2k/bicubic_x2', {'name': 'div2k/bicubic_x2'}),
        ('name=x=y', {'name': 'x=y'}),
        ('wide=true', {'wide': True}),
        ('wide=False,name=7', {'name': '7'}),
    ],
)
def test_arguments_take_the_type_of_their_default(arg, changes):
    options = parse_arg(arg, **DEFAULTS).to_dict()
    assert options == DEFAULTS | changes
    assert {name: type(value) for name, value in options.items()} == {n: type(v) for n, v in DEFAULTS.items()}


@pytest.mark.parametrize(
    ('arg', 'message'),
    [
        ('blocks=3.5', "blocks must be of type int, not '3.5'"),
        ('rate=fast', "rate must be of type float, not 'fast'"),
        ('wide=1', "wide must be true or false, not '1'"),
        ('depth=3', "'depth=3'.*blocks, rate, name, wide"),
        ('blocks', "'blocks'"),
    ],
)
def test_arguments_of_another_type(arg, message):
    with pytest.raises(ValueError, match=message):
        parse_arg(arg, **DEFAULTS)


def assigned_fields(source):
    """Dotted names of the fields that base.py's source assigns, each with the line of its assignment."""
    fields = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            name = ast.unparse(node.targets[0]).removeprefix('config.')
            if ast.unparse(node.value) != 'ConfigDict()':
                fields[name] = node.lineno
    return fields


def test_every_field_is_explained_on_its_line():
    source = (FOLDER / 'base.py').read_text(encoding='utf-8')
    fields = assigned_fields(source)
    assert fields.keys() == leaves(base.get_base()).keys()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    commented = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    assert not [name for name, line in fields.items() if line not in commented]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'batch_size': 0}, r'config.batch_size must be a whole number from 1, and below 2\^31, not 0'),
        ({'num_steps': -5}, r'config.num_steps must be a whole number from 1, and below 2\^31, not -5'),
        ({'steps_per_call': True}, 'config.steps_per_call must be a whole number from 1'),
        ({'learning_rate': 0.0}, r'config.learning_rate must be a number above 0, not 0\.0'),
        ({'learning_rate_drops': (0.5, 1.5)}, 'config.learning_rate_drops must be numbers from 0 to 1'),
        ({'learning_rate_factor': float('nan')}, 'config.learning_rate_factor must be a number from 0, not nan'),
        ({'data.margin': -1}, 'config.data.margin must be a whole number from 0, not -1'),
        ({'seed': 2**32}, 'config.seed must be a whole number from 0, and below'),
        ({'validation.fraction': 1.0}, 'config.validation.fraction must be a number from 0 and below 1'),
        ({'ema_decay': 1.0}, 'config.ema_decay must be'),
    ],
)
def test_values_that_make_no_sense_are_refused(changes, message):
    config = base.get_base()
    base.check(config)
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message):
        base.check(config)


def test_every_check_is_of_a_field():
    for name, accepts, _ in base.CHECKS:
        value = base.get_base()
        for part in name.split('.'):
            value = value[part]
        assert accepts(value)
