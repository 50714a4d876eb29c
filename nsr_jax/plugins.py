"""A user's own tasks, losses, metrics, networks and gates, from files outside the package.

A plug-in is a Python module that puts entries into the package's mappings when it is imported. Importing it runs its
code, so only the command line and Python can name one: no config, checkpoint or data file can.
"""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from nsr_jax.errors import UserError
from nsr_jax.losses import LOSSES
from nsr_jax.metrics import METRICS
from nsr_jax.models.build import NETWORKS
from nsr_jax.nn.gates import GATES
from nsr_jax.paths import local_path
from nsr_jax.tasks import TASKS

EXTENSIBLE: Mapping[str, dict[str, Any]] = {
    'task': TASKS,
    'loss': LOSSES,
    'metric': METRICS,
    'network': NETWORKS,
    'gate': GATES,
}


def load_plugins(names: Sequence[str]) -> None:
    """Import plug-ins in the given order.

    Args:
        names: paths of Python files, which end in .py, or names of modules that can be imported.

    Raises:
        UserError: one does not exist, cannot be imported, is called like another, or registers a name that is taken.
    """
    loaded: dict[str, str] = {}
    for name in names:
        module_name = os.path.splitext(os.path.basename(name))[0] if name.endswith('.py') else name
        if module_name in loaded:
            raise UserError(f'two plug-ins are called {module_name}: {loaded[module_name]} and {name}')
        loaded[module_name] = name
        before = {kind: dict(mapping) for kind, mapping in EXTENSIBLE.items()}
        _load(name, module_name)
        for kind, mapping in EXTENSIBLE.items():
            for key, value in before[kind].items():
                if mapping.get(key) is not value:
                    mapping[key] = value
                    raise UserError(f'plug-in {name}: there is a {kind} called {key!r} already: choose another name')


def _load(name: str, module_name: str) -> None:
    try:
        if not name.endswith('.py'):
            importlib.import_module(module_name)
            return
        path = local_path(name, '--plugin')
        if not os.path.isfile(path):
            raise UserError(f'plug-in {name}: there is no such file')
        if module_name in sys.modules or _finds_another(module_name, path):
            raise UserError(f'plug-in {name}: there is a module called {module_name} already: rename the file')
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None  # as the name ends in .py
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        sys.modules.pop(module_name, None)
        raise UserError(f'plug-in {name}: {type(error).__name__}: {error} ({_place(error)})') from error


def _finds_another(module_name: str, path: str) -> bool:
    """Whether `import` would find something other than this file, which may lie in the folder of the command."""
    spec = importlib.util.find_spec(module_name)
    return spec is not None and not (spec.has_location and os.path.samefile(spec.origin or '', path))


def _place(error: Exception) -> str:
    """The file and line at which an import failed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f'{error.filename}, line {error.lineno}'
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f'{last.filename}, line {last.lineno}'
