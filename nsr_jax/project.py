"""Where train.py, eval.py and configs/ are, and the commands that an installed package runs them by.

In the repository they lie beside this package. A wheel holds copies of them in nsr_jax/scripts/, which the repository
does not have. A top-level package `configs` in site-packages would be simpler, but projects have folders of that name:
two such wheels would overwrite each other's files, and a user's own `configs` without an __init__.py could no longer be
imported. So only this project's commands put the folder on the path, as Python does for `python train.py`.
"""

import importlib
import os
import pathlib
import runpy
import sys

from nsr_jax.errors import UserError

_PACKAGE = pathlib.Path(__file__).parent
IS_INSTALLED = (_PACKAGE / 'scripts').is_dir()
FOLDER = _PACKAGE / 'scripts' if IS_INSTALLED else _PACKAGE.parent
CONFIGS, SWEEPS = 'configs', 'configs/sweeps'
_DEFINES = {CONFIGS: 'def get_config(', SWEEPS: 'def get_members('}  # what a file there that has a use defines
# Commands that are called nsr-NAME where the package is installed.
SHORT = ('train', 'eval', 'restore', 'score', 'sweep')


def make_importable() -> None:
    """Let this process import `configs`, as config files do from each other."""
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))


def list_configs() -> list[str]:
    """Each config as `--config` takes it, with its arguments and their defaults: configs/sr.py:scale=2,preset=…"""
    make_importable()
    return importlib.import_module(f'{CONFIGS}.listing').list_configs()


def find_config(text: str, folder: str = CONFIGS) -> str:
    """The path of a config or a sweep, with the argument after its colon.

    Args:
        text: a path that ends in .py, or the name of a file in `folder`: 'sr:scale=2', 'same_data/sr'. Paths of
            configs/ that are not in the present folder, as none are beside an installed package, are found as well.
        folder: `CONFIGS` or `SWEEPS`.

    Raises:
        UserError: there is none of this name. Whether a path exists is not checked.
    """
    path, colon, argument = text.partition(':')
    if not path.endswith('.py'):
        found = FOLDER / folder / f'{path}.py'
        if not path or not found.is_file():
            paths = sorted((FOLDER / folder).rglob('*.py'), key=lambda each: (len(each.parts), each))
            those = [each for each in paths if _DEFINES[folder] in each.read_text(encoding='utf-8')]
            names = ', '.join(each.relative_to(FOLDER / folder).with_suffix('').as_posix() for each in those)
            raise UserError(f'{path!r} is no file that ends in .py, nor a name in {folder}: {names}')
        path = str(found)
    elif not os.path.exists(path) and (FOLDER / path).is_file():
        path = str(FOLDER / path)
    return path + colon + argument


def train() -> None:
    """Run train.py; the entry point of `nsr-train`."""
    _run('train')


def evaluate() -> None:
    """Run eval.py; the entry point of `nsr-eval`."""
    _run('eval')


def sweep() -> None:
    """Run the command `sweep`; the entry point of `nsr-sweep`."""
    _run('sweep')


def _run(name: str) -> None:
    make_importable()
    script = FOLDER / f'{name}.py'
    try:
        if script.is_file():
            runpy.run_path(str(script), run_name='__main__')
        else:
            runpy.run_module(f'nsr_jax.{name}', run_name='__main__', alter_sys=True)
    except ModuleNotFoundError as error:
        missing = (error.name or '').partition('.')[0]
        if missing in ('nsr_jax', CONFIGS):
            raise
        extra = 'evaluate' if name == 'eval' else 'train'
        sys.stderr.write(f'error: nsr-{name} needs {missing} besides: pip install "nsr-jax[{extra}]"\n')
        sys.exit(2)
