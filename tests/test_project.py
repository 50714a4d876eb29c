"""Names of configs and sweeps, and the entry points."""

import pathlib
import sys
import tomllib

import pytest

from nsr_jax import command_line, project
from nsr_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        ('sr', 'configs/sr.py'),
        ('sr:scale=2,preset=edsr_s', 'configs/sr.py:scale=2,preset=edsr_s'),
        ('same_data/sr:scale=4', 'configs/same_data/sr.py:scale=4'),
        ('pairs:source=a:b', 'configs/pairs.py:source=a:b'),
    ],
)
def test_a_name_stands_for_a_file_of_the_project(text, found):
    assert project.find_config(text) == f'{ROOT}/{found}'


def test_a_path_is_taken_where_there_is_one_and_else_from_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project.find_config('configs/sr.py:scale=2') == f'{ROOT}/configs/sr.py:scale=2'
    assert project.find_config('configs/mine.py') == 'configs/mine.py'
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'sr.py').write_text('')
    assert project.find_config('configs/sr.py:scale=2') == 'configs/sr.py:scale=2'
    assert project.find_config('gates', project.SWEEPS) == f'{ROOT}/configs/sweeps/gates.py'


@pytest.mark.parametrize(
    ('text', 'folder', 'names'),
    [
        ('srr:scale=2', project.CONFIGS, 'configs: denoise, jpeg, pairs, quickstart, shipped, sr, same_data/denoise'),
        ('', project.CONFIGS, 'configs: denoise, '),
        ('gate', project.SWEEPS, 'configs/sweeps: capacity, cardinality, constraints, efficiency, gates, locality'),
    ],
)
def test_another_name_lists_those_that_there_are(text, folder, names):
    with pytest.raises(
        UserError, match=f'^{text.partition(":")[0]!r} is no file that ends in .py, nor a name in {names}'
    ):
        project.find_config(text, folder)


def test_a_command_takes_names_in_both_spellings_of_a_flag():
    argv = ['train.py', '--config=sr:scale=2', '--config', 'jpeg', '--config.seed=1', '--workdir', 'sr']
    assert command_line._with_paths(argv) == [
        'train.py', f'--config={ROOT}/configs/sr.py:scale=2', '--config', f'{ROOT}/configs/jpeg.py',
        '--config.seed=1', '--workdir', 'sr',
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"^--config=srr: 'srr' is no file"):
        command_line._with_paths(['train.py', '--config=srr'])


def test_every_entry_point_is_there_and_named_in_the_list_of_commands():
    scripts = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['project']['scripts']
    assert scripts.keys() == {f'nsr-{name}' for name in project.SHORT}
    for value in scripts.values():
        module, _, function = value.partition(':')
        source = (ROOT / module.replace('.', '/')).with_suffix('.py').read_text(encoding='utf-8')
        assert f'\ndef {function}() -> None:\n' in source


def test_what_an_entry_point_lacks_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(project, 'FOLDER', tmp_path)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    (tmp_path / 'eval.py').write_text('import a_missing_package.part')
    with pytest.raises(SystemExit, match='2'):
        project.evaluate()
    assert (
        capsys.readouterr().err == 'error: nsr-eval needs a_missing_package besides: pip install "nsr-jax[evaluate]"\n'
    )
    (tmp_path / 'train.py').write_text('import nsr_jax.no_such_module')
    with pytest.raises(ModuleNotFoundError):  # a defect
        project.train()
