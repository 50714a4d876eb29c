"""Sweep files: what they give, and the line that a mistake in one gets."""

import json
import pathlib

import pytest

from nsr_jax.errors import UserError
from nsr_jax.studies.study import claim_workdir, read_study
from nsr_jax.training.run import check_names

ROOT = pathlib.Path(__file__).parents[2]
SWEEPS = sorted((ROOT / 'configs' / 'sweeps').glob('*.py'))

GOOD = """
from configs.base import check
CONFIG = 'configs/sr.py:scale=3,preset=edsr_s_nsr'
SEEDS = (4, 2)
SHARED = {'num_steps': 100, 'batch_size': 8}
LAPTOP = {'num_steps': 10, 'model.num_blocks': 2}
def get_members():
    return [('a', {}), ('b', {'model.gate': 'uniform', 'batch_size': 2})]
"""


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def read(tmp_path):
    """Reads the good sweep with one text of it replaced by another."""

    def read_changed(old='', new='', name='sweep.py', **options):
        assert old in GOOD
        (tmp_path / name).write_text(GOOD.replace(old, new, 1) if old else GOOD)
        return read_study(tmp_path / name, **options)

    return read_changed


@pytest.mark.parametrize('path', SWEEPS, ids=lambda path: path.stem)
def test_sweeps_of_the_project(path):
    for laptop in (False, True) if 'LAPTOP' in path.read_text(encoding='utf-8') else (False,):
        study = read_study(path, laptop=laptop)
        assert len(study.seeds) >= 3
        for run in study.runs[: len(study.members)]:
            check_names(run.config)
    assert 20 <= len(path.read_text(encoding='utf-8').splitlines()) <= 60


def test_every_member_with_every_seed(read):
    study = read()
    assert [(run.index, run.member, run.seed, run.config.seed) for run in study.runs] == [
        (0, 'a', 4, 4),
        (1, 'b', 4, 4),
        (2, 'a', 2, 2),
        (3, 'b', 2, 2),
    ]
    a, b = (run.config for run in study.runs[:2])
    assert (a.model.scale, a.num_steps, a.batch_size, a.model.gate) == (3, 100, 8, 'softmax')
    assert (b.model.scale, b.num_steps, b.batch_size, b.model.gate) == (3, 100, 2, 'uniform')
    assert str(study.runs[3].folder(pathlib.Path('w'))) == 'w/b/seed_2'


def test_a_laptop_shrinks_all_members_alike(read):
    assert {(run.config.num_steps, run.config.model.num_blocks) for run in read(laptop=True).runs} == {(10, 2)}


def test_overrides_of_the_command_line_come_last(read):
    changes = ['batch_size=1', 'learning_rate=1', 'model.gate_pooling=rms', 'remat=true', 'optimizer.b1=0.5']
    changes += ['validation.images=("x.png",)']
    for run in read(laptop=True, changes=changes).runs:
        config = run.config
        assert (config.batch_size, config.learning_rate, config.model.gate_pooling) == (1, 1.0, 'rms')
        assert config.remat is True and config.optimizer.b1 == 0.5 and config.validation.images == ('x.png',)


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('SEEDS', 'SEED', 'is no sweep: it lacks SEEDS'),
        ('import check', 'import get_base', 'is no sweep: it lacks check'),
        ("'batch_size': 8", "'batch_size': 8, 'num_steps': 0", 'member a: config.num_steps must be a whole number'),
        ('(4, 2)', '(4, 4)', 'SEEDS must be different whole numbers'),
        ('(4, 2)', '()', 'SEEDS must be different whole numbers'),
        ('(4, 2)', '(True, -1)', 'SEEDS must be different whole numbers'),
        ('(4, 2)', '(2**32,)', 'whole numbers from 0 and below 2^32'),
        ("('b'", "('a'", 'two members are called a'),
        ("('b'", "('../b'", "not '../b'"),
        ("('b'", "('.b'", "not '.b'"),
        ("('a', {})", "'a'", "not 'a'"),
        ('return [', 'return {}, [', 'a member is a pair of a name and a dict of overrides, not {}'),
        ("[('a', {}), ", "[] and [('a', {}), ", 'must return a list of pairs'),
        ('model.gate', 'model.gat', "member b: a config has no field 'model.gat'"),
        ('model.gate', 'models.gate', "member b: a config has no field 'models.gate'"),
        ('model.gate', 'model', 'member b: model is a section'),
        ('model.gate', 'seed', 'the SEEDS of a sweep are its seeds'),
        ("'batch_size': 2", "'batch_size': '2'", "member b: batch_size cannot be '2'"),
        ("'batch_size': 8", "'batch': 8", "a config has no field 'batch'"),
        ("'model.gate': 'uniform', 'batch_size': 2", '', 'members a and b have the same config'),
        ('configs/sr.py:', 'configs/si.py:', 'configs/si.py: no such file'),
        ('scale=3', 'scale=5', 'scale must be 2, 3 or 4, not 5'),
        ('    return', '    1 / 0\n    return', 'ZeroDivisionError'),
        ('CONFIG', 'CONFIG = = 1', 'SyntaxError'),
    ],
)
def test_a_mistake_in_a_sweep(read, old, new, message):
    with pytest.raises(UserError) as caught:
        read(old, new)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('num_steps', 'give NAME=VALUE'),
        ('steps=4', "a config has no field 'steps'"),
        ('num_steps=many', "'many' is no value of num_steps, which is 100"),
        ('num_steps=2.5', 'num_steps cannot be 2.5'),
        ('seed=1', 'the SEEDS of a sweep are its seeds'),
        ('model=1', 'model is a section'),
    ],
)
def test_a_mistake_in_set(read, change, message):
    with pytest.raises(UserError) as caught:
        read(changes=[change])
    assert f'--set {change}' in str(caught.value)
    assert message in str(caught.value)


def test_the_axis_of_a_plot(read):
    assert read().axis == ''
    study = read('SEEDS', "AXIS = 'model.gate_scale'\nSEEDS")
    assert study.axis == 'model.gate_scale' and study.value_of('b', 'model.gate_scale') == 1.0
    assert read('SEEDS', "AXIS = 'parameters'\nSEEDS").axis == 'parameters'
    for axis, message in (
        ("'groups'", "AXIS is a field, parameters or multi_adds: a config has no field 'groups'"),
        ("'model.gate'", "AXIS model.gate must be a field that holds a number, not 'softmax'"),
        ('3', 'a config has no field'),
    ):
        with pytest.raises(UserError, match=message):
            read('SEEDS', f'AXIS = {axis}\nSEEDS')


def test_a_sweep_that_is_not_there(tmp_path, read):
    with pytest.raises(UserError, match='no such file'):
        read_study(tmp_path / 'nothing.py')
    with pytest.raises(UserError, match='has no LAPTOP'):
        read('LAPTOP', 'PHONE', laptop=True)


def test_a_workdir_holds_one_sweep(tmp_path, read):
    workdir = tmp_path / 'run'
    claim_workdir(workdir, read())
    claim_workdir(workdir, read())
    with pytest.raises(UserError, match='holds the sweep sweep, not other'):
        claim_workdir(workdir, read(name='other.py'))
    with pytest.raises(UserError, match='its member a has num_steps 100, batch_size 8, not num_steps 10, '):
        claim_workdir(workdir, read(laptop=True))
    with pytest.raises(UserError, match='holds another sweep: its member a'):
        claim_workdir(workdir, read(changes=['log_every_steps=7']))
    with pytest.raises(UserError, match='holds another sweep: its member a'):
        claim_workdir(workdir, read('scale=3', 'scale=2'))
    (workdir / 'sweep.json').write_text('{"sweep": "sweep"}')
    with pytest.raises(UserError, match='cannot be read as the record of a sweep'):
        claim_workdir(workdir, read())


def test_members_and_seeds_may_be_added(tmp_path, read):
    workdir = tmp_path / 'run'
    claim_workdir(workdir, read())
    claim_workdir(workdir, read("('a', {})", "('a', {}), ('c', {'model.gate_scale': 2.0})"))
    claim_workdir(workdir, read('(4, 2)', '(4, 2, 7)'))
    assert json.loads((workdir / 'sweep.json').read_text())['members'].keys() == {'a', 'b', 'c'}
    with pytest.raises(UserError, match=r'member c has .*gate_scale 2.0.* not .*gate_scale 3.0'):
        claim_workdir(workdir, read("('a', {})", "('a', {}), ('c', {'model.gate_scale': 3.0})"))
