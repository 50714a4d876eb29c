"""List the commands of this package, each with the first line of its description.

    python -m nsr_jax

Descriptions are read from the source files; nothing is imported for it.
"""

import ast
import pathlib

from nsr_jax import project, streams

_PACKAGE = pathlib.Path(__file__).parent
_SCRIPTS = ('train.py', 'eval.py')


def list_commands() -> list[tuple[str, str]]:
    """How each command is called, and what it does in one sentence."""
    scripts = [project.FOLDER / name for name in _SCRIPTS]
    modules = sorted(path for path in _PACKAGE.glob('*.py') if path.name != '__main__.py')
    called = {path: f'python {path.name}' for path in scripts if path.is_file()}
    called |= {path: f'python -m nsr_jax.{path.stem}' for path in modules}
    if project.IS_INSTALLED:
        called |= {path: f'nsr-{path.stem}' for path in called if path.stem in project.SHORT}
    commands = []
    for path, call in called.items():
        source = path.read_text(encoding='utf-8')
        if "\nif __name__ == '__main__':" in source:
            description = ast.get_docstring(ast.parse(source)) or ''
            commands.append((call, description.split('\n\n')[0].replace('\n', ' ')))
    return commands


def describe_commands() -> str:
    """The commands with their descriptions in aligned columns, one a line."""
    commands = list_commands()
    width = max(len(call) for call, _ in commands)
    lines = [f'{call:{width}}  {description}\n' for call, description in commands]
    return ''.join(lines) + '\n--help after any of them describes its options.\n'


if __name__ == '__main__':
    streams.print_text(describe_commands())
