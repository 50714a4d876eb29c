"""Pages of the site that are made from the sources when it is built, so that nothing is written twice."""

import ast
import io
import json
import pathlib
import posixpath
import re
import tokenize
from collections.abc import Iterator

from configs.listing import list_configs
from nsr_jax.__main__ import list_commands

ROOT = pathlib.Path(__file__).parents[1]

# Files of the repository that are pages, or that a page describes, by the page's place in the site.
PAGES = {
    'README.md': 'index.md',
    'CONTRIBUTING.md': 'contributing.md',
    'CHANGELOG.md': 'changelog.md',
    'nsr_jax/weights/README.md': 'weights.md',
    'examples/quickstart.ipynb': 'examples/quickstart.md',
    'examples/sparse_conv_classifier.ipynb': 'examples/sparse_conv_classifier.md',
    'configs/base.py': 'reference/configs.md',
}
_LINK = re.compile(r'(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)')


def make_pages() -> dict[str, str]:
    """The Markdown of all pages that are not files in docs/, by their place in the site."""
    pages = {place: link(_read(name), name) for name, place in PAGES.items() if name.endswith('.md')}
    pages |= {
        place: link(show_notebook(_read(name), name), name) for name, place in PAGES.items() if name.endswith('.ipynb')
    }
    pages['reference/configs.md'] = describe_configs()
    pages['reference/commands.md'] = describe_commands()
    for package in sorted((ROOT / 'nsr_jax').rglob('__init__.py')):
        if package.parent.name != 'weights':
            pages[f'reference/{package.parent.name}.md'] = list_modules(package.parent)
    return pages


def link(markdown: str, name: str) -> str:
    """Make links to files of the repository links between pages; what is no page becomes its path.

    Args:
        markdown: the text of a page.
        name: of its file in the repository.
    """
    here = posixpath.dirname(_place(name) or '')

    def replace(match: re.Match) -> str:
        image, text, target, anchor = match.groups(default='')
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if place := _place(path):
            return f'{image}[{text}]({posixpath.relpath(place, here or ".")}{anchor})'
        return f'`{path}`' if text.strip('/') == path else f'{text} (`{path}`)'

    parts = re.split(r'(^```.*?^```$)', markdown, flags=re.MULTILINE | re.DOTALL)
    return ''.join(part if part.startswith('```') else _LINK.sub(replace, part) for part in parts)


def _place(name: str) -> str | None:
    return PAGES.get(name, name.removeprefix('docs/') if name.startswith('docs/') else None)


def show_notebook(source: str, name: str) -> str:
    """A notebook as Markdown: its texts, its code and what that has printed and drawn.

    Args:
        source: of the notebook, JSON.
        name: of its file in the repository.
    """
    first, *cells = json.loads(source)['cells']
    parts = [''.join(first['source']), f'All of it is `{name}`, which Jupyter opens.']
    for cell in cells:
        text = ''.join(cell['source'])
        parts.append(f'```python\n{text}\n```' if cell['cell_type'] == 'code' else text)
        for output in cell.get('outputs', []):
            data = output.get('data', {'text/plain': output.get('text', '')})
            if 'image/png' in data:
                picture = ''.join(data['image/png']).replace('\n', '')
                parts.append(f'![What the code above has drawn](data:image/png;base64,{picture})')
            else:
                parts.append(f'```text\n{"".join(data["text/plain"]).rstrip()}\n```')
    return '\n\n'.join(parts) + '\n'


def describe_configs() -> str:
    """Every config file with its arguments, then every field with its default and its meaning."""
    text = '# Configs\n\n`--config=FILE:NAME=VALUE,NAME=VALUE` takes one of these files with its arguments, and\n'
    text += '`--config.NAME=VALUE` overrides any of the [fields](#fields) below.\n'
    for listed in list_configs():
        name = listed.partition(':')[0]
        text += f'\n## {name}\n\n```\n--config={listed}\n```\n\n{_docstring(name)}\n'
    return text + '\n## Fields\n\n' + describe_fields(_read('configs/base.py'))


def describe_fields(source: str) -> str:
    """A table for each section of configs/base.py, from its assignments, the comments beside them and its checks."""
    comments = {
        token.start[0]: token.string.lstrip('# ')
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    accepted = dict(_checks(ast.parse(source)))
    head, sections = '| field | default | meaning |\n| --- | --- | --- |\n', {'': ''}
    text = {'': ''}
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)):
            continue
        name, value = ast.unparse(node.targets[0]).removeprefix('config.'), ast.get_source_segment(source, node.value)
        meaning = comments.get(node.lineno, '')
        if value == 'ConfigDict()':
            text[name], sections[name] = '', meaning
            continue
        value = 'None' if str(value).startswith('placeholder(') else value
        meaning += f'; must be {accepted[name]}' if name in accepted else ''
        text[name.rpartition('.')[0]] += f'| `{name}` | `{value}` | {meaning.replace("|", "&#124;")} |\n'
    return '\n'.join(
        (f'### {name}\n\n{sections[name]}\n\n' if name else '') + head + rows for name, rows in text.items()
    )


def _checks(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Of each field that base.py checks, the accepted values in words."""
    assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    for check in getattr(assigned['CHECKS'], 'elts', []):
        wanted = check.elts[-1]
        wanted = assigned[ast.unparse(wanted.value)].elts[-1] if isinstance(wanted, ast.Starred) else wanted
        yield check.elts[0].value, wanted.value


def describe_commands() -> str:
    """Every command with its description."""
    text = '# Commands\n\n`--help` after any of them describes its options.\n'
    for call, _ in list_commands():
        name = call.removeprefix('python ').removeprefix('-m ').replace('.', '/').removesuffix('/py') + '.py'
        text += f'\n## {call}\n\n{_docstring(name)}\n'
    return text


def list_modules(package: pathlib.Path) -> str:
    """The public modules of a package, of which mkdocstrings makes a reference."""
    names = [f'nsr_jax.{path.stem}' for path in package.glob('*.py')]
    if package.name != 'nsr_jax':
        names = [f'nsr_jax.{package.name}.{path.stem}' for path in package.glob('*.py')]
    public = sorted(name for name in names if not name.rpartition('.')[2].startswith('_'))
    title = '.'.join(package.relative_to(ROOT).parts)
    return f'# {title}\n\n{_docstring(str(package.relative_to(ROOT) / "__init__.py"))}\n\n' + '\n'.join(
        f'::: {name}\n' for name in public
    )


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding='utf-8')


def _docstring(name: str) -> str:
    return ast.get_docstring(ast.parse(_read(name))) or ''
