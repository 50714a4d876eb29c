"""The order of imports, the size of files and what importing the package loads."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# A part may import those above its line, and itself. What has no line is a command, a single file, which may import
# everything, and which no part imports.
ORDER = (
    ('errors', 'environment', 'markdown', 'page', 'cpu_cores', 'pace'),
    ('forks', 'atomic_files', 'paths', 'agreement', 'streams', 'torch_file', 'torch_layout', 'project', 'ops'),
    ('nn',),
    ('models', 'images'),
    ('tasks', 'losses', 'metrics', 'optimizers'),
    ('data', 'trained'),
    ('shipped',),
    ('inference',),
    ('training', 'evaluation', 'restoring'),
    ('studies', 'planning', 'exporting'),
)
ALLOWED = {part: {each for row in ORDER[:level] for each in row} for level, parts in enumerate(ORDER) for part in parts}
LAZY = {'nsr_jax.inference.restorer.Restorer'}  # what the package itself offers, imported when it is asked for
FLAGS = {'absl.app', 'absl.flags', 'ml_collections.config_flags'}
FORBIDDEN = {'tensorflow', 'torch', 'configs', 'tests', 'benchmarks', 'train', 'eval'}

MODULES = sorted((ROOT / 'nsr_jax').rglob('*.py'))
CONFIGS = sorted((ROOT / 'configs').rglob('*.py'))
SCRIPTS = sorted(ROOT.glob('*.py'))
OTHERS = [
    path for name in ('benchmarks', 'docs', 'experiments', 'examples') for path in sorted((ROOT / name).rglob('*.py'))
]


def text_of(path):
    return path.read_text(encoding='utf-8')


def imported_names(source):
    """Dotted names of all that a file imports, anywhere in it: `from a import b` gives `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f'{"." * node.level}{node.module or ""}.{alias.name}' for alias in node.names}
    return names


def part_of(path):
    """Which part of the package a file belongs to; '' for the package's own __init__."""
    return path.relative_to(ROOT / 'nsr_jax').with_suffix('').parts[0].replace('__init__', '')


def is_within(name, modules):
    return any(name == module or name.startswith(module + '.') for module in modules)


def violations(source, part):
    """What a file of the named part imports and should not."""
    names = imported_names(source)
    wrong = {name for name in names if name.startswith('.')}
    wrong |= {name for name in names if is_within(name, FORBIDDEN)}
    if part in ALLOWED:
        wrong |= {name for name in names if is_within(name, FLAGS)}
        parts = {name: name.split('.')[1] for name in names if name.startswith('nsr_jax.')}
        wrong |= {name for name, used in parts.items() if used not in ALLOWED[part] | {part}}
    if part == 'ops':
        wrong |= {name for name in names if is_within(name, {'flax', 'ml_collections', 'absl'})}
    if part == 'nn':
        wrong |= {name for name in names if is_within(name, {'ml_collections', 'absl'})}
    return wrong


def relative(path):
    return str(path.relative_to(ROOT))


def test_every_part_is_there_and_every_folder_is_a_part():
    found = {part_of(path) for path in MODULES}
    assert ALLOWED.keys() <= found
    assert {path.name for path in (ROOT / 'nsr_jax').iterdir() if list(path.glob('*.py'))} <= ALLOWED.keys()


@pytest.mark.parametrize('path', MODULES, ids=relative)
def test_imports_point_one_way(path):
    if part_of(path):
        assert not violations(text_of(path), part_of(path))
    else:
        assert imported_names(text_of(path)) == LAZY


@pytest.mark.parametrize(
    ('part', 'line'),
    [
        ('ops', 'from nsr_jax.nn import gates'),
        ('ops', 'import flax.linen as nn'),
        ('nn', 'import nsr_jax.models.residual'),
        ('models', 'def f():\n    from nsr_jax import training'),
        ('images', 'from nsr_jax.models.residual import MEAN'),
        ('tasks', 'from nsr_jax.data.sources import Source'),
        ('training', 'from nsr_jax.evaluation import metrics'),
        ('evaluation', 'from nsr_jax.training.checkpoints import load_model'),
        ('evaluation', 'from nsr_jax import restore'),
        ('evaluation', 'from absl import flags'),
        ('training', 'from ml_collections import config_flags'),
        ('inference', 'from nsr_jax.training.checkpoints import save_model'),
        ('inference', 'from nsr_jax.restoring import plan'),
        ('restoring', 'from nsr_jax.training.sharding import make_mesh'),
        ('trained', 'from nsr_jax.training.checkpoints import Checkpoints'),
        ('restore', 'from configs import presets'),
        ('restore', 'import tensorflow.io'),
        ('data', 'from . import sources'),
        ('errors', 'from nsr_jax.ops import colour'),
        ('images', 'from nsr_jax.data.sources import Example'),
        ('evaluation', 'from nsr_jax.restoring import plan'),
        ('training', 'from nsr_jax.studies.study import Run'),
        ('studies', 'from configs import base'),
        ('sweep', 'from configs.base import check'),
    ],
)
def test_a_wrong_import_is_seen(part, line):
    assert violations(line, part)
    assert not violations('import jax\nfrom absl import logging\nfrom nsr_jax.errors import UserError', 'models')


def test_configs_import_the_standard_library_ml_collections_and_each_other_alone():
    assert len(CONFIGS) > 2
    for path in CONFIGS:
        wrong = {
            name
            for name in imported_names(text_of(path))
            if not is_within(name, {'ml_collections', 'configs'} | sys.stdlib_module_names)
        }
        assert not wrong, f'{relative(path)} imports {wrong}'


def test_scripts_import_no_framework():
    assert {path.name for path in SCRIPTS} >= {'train.py', 'eval.py'}
    for path in SCRIPTS:
        wrong = {name for name in imported_names(text_of(path)) if is_within(name, {'tensorflow', 'torch'})}
        assert not wrong, f'{path.name} imports {wrong}'


@pytest.mark.parametrize('path', [*MODULES, *CONFIGS, *SCRIPTS], ids=relative)
def test_no_file_is_a_grab_bag(path):
    assert path.stem not in ('utils', 'util', 'helpers', 'misc', 'common')


def texts_by_locale(source):
    """Lines that read or write text without saying in which encoding: then it is that of a user's locale."""
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = getattr(call.func, 'attr', getattr(call.func, 'id', ''))
        values = [each.value for each in call.args if isinstance(each, ast.Constant)]
        opens = name == 'open' and any(re.fullmatch('[rwax][t+]*', str(value)) for value in values)
        if (opens or name in ('read_text', 'write_text')) and 'encoding' not in {each.arg for each in call.keywords}:
            yield call.lineno


def test_text_is_utf8_in_every_locale():
    found = {relative(path): list(texts_by_locale(text_of(path))) for path in (*MODULES, *CONFIGS, *SCRIPTS, *OTHERS)}
    assert not {name: numbers for name, numbers in found.items() if numbers}


@pytest.mark.parametrize('line', ["path.read_text(errors='replace')", "open('x', 'a+')", "path.open('w')"])
def test_text_of_a_locale_is_seen(line):
    assert list(texts_by_locale(line)) == [1]
    assert not list(texts_by_locale("path.read_text('x', encoding='utf-8')\nopen('name', 'rb')\narchive.open('a.png')"))


BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in BLOCKED:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Blocker())
"""


def run_without(blocked, code):
    """Run code in a fresh interpreter where the blocked packages cannot be imported, installed or not."""
    command = [sys.executable, '-c', f'BLOCKED = {sorted(blocked)!r}\n{BLOCK}{code}']
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


IMPORT_EVERYTHING = """
import importlib, pkgutil
import nsr_jax
names = [module.name for module in pkgutil.walk_packages(nsr_jax.__path__, 'nsr_jax.')]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_everything_imports_without_tensorflow_and_torch():
    process = run_without({'tensorflow', 'torch'}, IMPORT_EVERYTHING)
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) == len(MODULES) - 1


REQUIRED_FLAGS = """
import importlib, pkgutil
from absl import flags
import benchmarks, experiments, nsr_jax
for package in (benchmarks, experiments, nsr_jax):
    for module in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):
        if 'torch' not in module.name:
            importlib.import_module(module.name)
flags.FLAGS(['a command that needs none of them'])
"""


def test_no_import_makes_a_flag_required():
    """The command that requires it defines it where it runs: other commands share its process in tests."""
    process = run_without(set(), REQUIRED_FLAGS)
    assert process.returncode == 0, process.stderr


def test_restoring_and_scoring_import_without_the_training_stack():
    """pyproject's own dependencies are enough for them: nothing of its extras."""
    extras = {
        'array_record', 'flatbuffers', 'grain', 'matplotlib', 'mlflow', 'onnx', 'optax', 'optuna', 'psutil', 'skimage',
        'tensorboardX', 'tensorflow_datasets', 'wandb',
    }  # fmt: skip
    code = 'import nsr_jax.restore, nsr_jax.score, nsr_jax.import_torch, nsr_jax.hub_folder, nsr_jax.export'
    process = run_without(extras | {'tensorflow', 'torch'}, code)
    assert process.returncode == 0, process.stderr
