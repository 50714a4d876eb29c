"""Plug-ins: how they are imported, and the errors for mistakes in them."""

import pathlib
import sys

import pytest

from nsr_jax import plugins
from nsr_jax.errors import UserError
from nsr_jax.losses import LOSSES
from nsr_jax.plugins import load_plugins
from nsr_jax.tasks import find_task


@pytest.fixture(autouse=True)
def as_before():
    """Restores mappings and modules after each test."""
    before = {kind: dict(mapping) for kind, mapping in plugins.EXTENSIBLE.items()}
    modules = set(sys.modules)
    yield
    for kind, mapping in plugins.EXTENSIBLE.items():
        mapping.clear()
        mapping.update(before[kind])
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder, name, text):
    path = folder / f'{name}.py'
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding='utf-8')
    return str(path)


def test_a_file_or_a_module_adds_entries(tmp_path, monkeypatch):
    text = "from nsr_jax.losses import LOSSES\nLOSSES['{0}'] = abs\n"
    monkeypatch.syspath_prepend(tmp_path / 'installed')
    write(tmp_path / 'installed', 'installed_losses', text.format('second'))
    load_plugins([write(tmp_path, 'my_losses', text.format('first')), 'installed_losses'])
    assert LOSSES['first'] is LOSSES['second'] is abs


def test_a_file_in_the_folder_of_the_command_is_loaded_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend('')  # as by `python -m`
    load_plugins([pathlib.Path(write(tmp_path, 'mine', 'VALUE = 1\n')).name])
    assert sys.modules['mine'].VALUE == 1
    with pytest.raises(UserError, match='there is a module called other already: rename the file'):
        write(tmp_path, 'other', '')
        load_plugins([write(tmp_path / 'elsewhere', 'other', '')])


def test_a_plug_in_may_be_imported_by_the_next(tmp_path):
    first = write(tmp_path, 'my_functions', 'VALUE = abs\n')
    load_plugins([first, write(tmp_path, 'mine', 'from my_functions import VALUE\nassert VALUE is abs\n')])


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('import no_such_package\n', r"ModuleNotFoundError: No module named 'no_such_package' \(.*bad\.py, line 1\)"),
        ('x = 1\n1 / 0\n', r'ZeroDivisionError: division by zero \(.*bad\.py, line 2\)'),
        ('def f(:\n', r'SyntaxError: .*\(.*bad\.py, line 1\)'),
    ],
)
def test_an_error_in_a_plug_in_names_its_line(tmp_path, text, message):
    with pytest.raises(UserError, match=r'plug-in .*bad\.py: ' + message):
        load_plugins([write(tmp_path, 'bad', text)])
    assert 'bad' not in sys.modules


def test_names_that_are_taken_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"there is a loss called 'l1' already"):
        load_plugins([write(tmp_path, 'mine', "from nsr_jax.losses import LOSSES\nLOSSES['l1'] = abs\n")])
    assert LOSSES['l1'] is not abs
    first, second = write(tmp_path / 'a', 'same', ''), write(tmp_path / 'b', 'same', '')
    with pytest.raises(UserError, match='two plug-ins are called same'):
        load_plugins([first, second])
    with pytest.raises(UserError, match='there is a module called json already: rename the file'):
        load_plugins([write(tmp_path, 'json', '')])
    with pytest.raises(UserError, match=r'nowhere\.py: there is no such file'):
        load_plugins([str(tmp_path / 'nowhere.py')])
    with pytest.raises(UserError, match='plug-in no_such_module: ModuleNotFoundError'):
        load_plugins(['no_such_module'])


def test_a_name_that_a_plug_in_would_bring_is_said_to_be_missing():
    with pytest.raises(UserError, match=r"unknown task 'deblur': one of sr, .* needed, or that of a --plugin"):
        find_task('deblur')
