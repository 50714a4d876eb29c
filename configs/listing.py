"""What configs there are and which arguments they take, read from their source files."""

import ast
import pathlib

_FOLDER = pathlib.Path(__file__).parent


def list_configs() -> list[str]:
    """Each config as `--config` takes it, with all its arguments and their defaults: configs/sr.py:scale=2,preset=…"""
    found = []
    for path in sorted(_FOLDER.glob('*.py')):
        tree = ast.parse(path.read_text(encoding='utf-8'))
        if any(isinstance(node, ast.FunctionDef) and node.name == 'get_config' for node in tree.body):
            arguments = ','.join(f'{name}={value}' for name, value in _defaults(tree).items())
            found.append(f'{_FOLDER.name}/{path.name}' + f':{arguments}' * bool(arguments))
    return found


def _defaults(tree: ast.Module) -> dict[str, str]:
    """The names and defaults that a config's `parse_arg(arg, name=default)` accepts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'parse_arg':
            return {each.arg: str(ast.literal_eval(each.value)) for each in node.keywords if each.arg}
    return {}
