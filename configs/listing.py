"""What configs there are and which arguments they take, read from their source files."""

import ast
import pathlib
from typing import Any

_FOLDER = pathlib.Path(__file__).parent


def list_configs() -> list[str]:
    """Each config as `--config` takes it, with all its arguments and their defaults: configs/sr.py:scale=2,preset=…"""
    found = []
    for path in sorted(_FOLDER.rglob('*.py'), key=lambda path: (len(path.parts), path)):  # those of folders come last
        tree = _read(path)
        if any(isinstance(node, ast.FunctionDef) and node.name == 'get_config' for node in tree.body):
            arguments = ','.join(f'{name}={value}' for name, value in _defaults(tree).items())
            found.append(path.relative_to(_FOLDER.parent).as_posix() + f':{arguments}' * bool(arguments))
    return found


def _read(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding='utf-8'))


def _defaults(tree: ast.Module) -> dict[str, str]:
    """The names and defaults that a config's `parse_arg(arg, name=default)` accepts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'parse_arg':
            return {each.arg: str(_value(each.value, tree)) for each in node.keywords if each.arg}
    return {}


def _value(node: ast.expr, tree: ast.Module) -> Any:
    """What a literal means, or the name of a constant of this file or of the config that it is imported from."""
    if isinstance(node, ast.Name):
        for each in tree.body:
            if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == node.id:
                return _value(each.value, tree)
            if isinstance(each, ast.ImportFrom) and each.module and node.id in {alias.name for alias in each.names}:
                return _value(node, _read(_FOLDER.parent / f'{each.module.replace(".", "/")}.py'))
    return ast.literal_eval(node)
