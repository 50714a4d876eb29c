"""The pages: what they are made from, what they link to, and what they say that the code knows better."""

import ast
import importlib
import importlib.util
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from configs import base
from docs import generated
from nsr_jax import plugins
from nsr_jax.data.sampling import region_size
from nsr_jax.training.training_images import make_corruption
from tests.documentation.printed import BLOCK, PAGES, ROOT, python_blocks

LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)')


def text_of(name):
    return (ROOT / name).read_text(encoding='utf-8')


def fields_of(config, prefix=''):
    for name, value in config.items():
        yield from fields_of(value, f'{prefix}{name}.') if hasattr(value, 'items') else [(prefix + name, value)]


def rows_of(markdown):
    return [
        [cell.strip() for cell in line.strip('|').split(' | ')] for line in markdown.splitlines() if line[:1] == '|'
    ]


def test_every_field_is_described_with_its_default_and_meaning():
    rows = {
        row[0].strip('`'): row
        for row in rows_of(generated.describe_fields(text_of('configs/base.py')))
        if '`' in row[0]
    }
    fields = dict(fields_of(base.get_base()))
    assert rows.keys() == fields.keys()
    for name, value in fields.items():
        _, default, meaning = rows[name]
        assert eval(default.strip('`'), {}) == value
        assert meaning
    assert rows['data.patch_size'][2].startswith('side of an input patch, in input (for SR: low-resolution) pixels')
    for name, _, wanted in base.CHECKS:
        assert rows[name][2].endswith(f'; must be {wanted}')


def test_a_section_is_described_by_its_comment():
    source = 'c.a = 1  # one | two\nc.s = ConfigDict()  # of s\nc.s.b = placeholder(int)  # b\nCHECKS = ()\n'
    text = generated.describe_fields(source.replace('c.', 'config.'))
    assert '| `a` | `1` | one &#124; two |' in text
    assert re.search(r'### s\n\nof s\n\n.*\n.*\n\| `s.b` \| `None` \| b \|', text)


def test_configs_commands_and_public_modules_are_pages():
    pages = generated.make_pages()
    assert '--config=configs/sr.py:scale=2,preset=edsr_s_nsr' in pages['reference/configs.md']
    assert '## python -m nsr_jax.restore\n\nRestore images:' in pages['reference/commands.md']
    listed = {name for text in pages.values() for name in re.findall(r'^::: (\S+)', text, re.MULTILINE)}
    sources = [path.relative_to(ROOT).with_suffix('').parts for path in (ROOT / 'nsr_jax').rglob('*.py')]
    assert listed == {'.'.join(parts) for parts in sources if not parts[-1].startswith('_')}


def test_every_page_is_in_the_navigation():
    places = set(re.findall(r'[\w/]+\.md$', text_of('mkdocs.yml'), re.MULTILINE))
    assert places == {path.name for path in (ROOT / 'docs').glob('*.md')} | generated.make_pages().keys()


def test_links_lead_to_pages_of_the_site():
    def linked(text, name):
        return generated.link(text, name)

    assert linked('[a](docs/faq.md#b) ![c](docs/gates.png)', 'README.md') == '[a](faq.md#b) ![c](gates.png)'
    assert linked('[a](../README.md#b), [d](faq.md)', 'docs/start.md') == '[a](index.md#b), [d](faq.md)'
    assert linked('[w](../nsr_jax/weights/README.md)', 'docs/a.md') == '[w](weights.md)'
    assert linked('[the licence](LICENSE), [tests/](tests/)', 'README.md') == 'the licence (`LICENSE`), `tests`'
    unchanged = '[a](https://b.c/d)\n```\n[a](LICENSE)\n```\n'
    assert linked(unchanged, 'README.md') == unchanged


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.name)
def test_links_lead_to_files(path):
    for target in LINK.findall(BLOCK.sub('', path.read_text(encoding='utf-8'))):
        if '://' not in target and not target.startswith('#'):
            assert (path.parent / target.partition('#')[0]).exists(), target


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.name)
def test_printed_python_uses_names_that_exist(path):
    for language, block in BLOCK.findall(path.read_text(encoding='utf-8')):
        if language == 'python':
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom):
                    module = importlib.import_module(node.module)
                    for alias in node.names:
                        name = f'{node.module}.{alias.name}'  # a module that has not been imported is no attribute
                        assert hasattr(module, alias.name) or importlib.util.find_spec(name), ast.unparse(node)


@pytest.fixture
def extending():
    """The names that the examples of a page define, and what they have registered until the end of the test."""
    before = {kind: dict(mapping) for kind, mapping in plugins.EXTENSIBLE.items()}
    names = {}
    for block in python_blocks('docs/extending.md')[:-1]:
        exec(block, names)
    added = {kind: list(mapping.keys() - before[kind].keys()) for kind, mapping in plugins.EXTENSIBLE.items()}
    yield names, added
    for kind, mapping in plugins.EXTENSIBLE.items():
        mapping.clear()
        mapping.update(before[kind])


def test_the_examples_of_extending_do_what_they_say(extending):
    names, added = extending
    assert added == {
        'task': ['deblur'], 'loss': ['smooth'], 'metric': ['worst'], 'network': ['plain'], 'gate': ['squares'],
    }  # fmt: skip
    image = np.random.default_rng(0).integers(0, 256, (12, 11, 3), np.uint8)
    assert names['smooth'](jnp.ones((1, 2, 2, 3)), jnp.zeros((1, 2, 2, 3))) == pytest.approx(1.0001**0.5)
    assert names['worst'](np.uint8([[250, 0]]), np.uint8([[5, 3]])) == 245
    assert jnp.sum(names['squares'](jnp.arange(6.0).reshape(1, 3, 2)), axis=1) == pytest.approx(1)
    network = names['Plain'](scale=1, channels=3)
    shapes = jax.eval_shape(network.init_with_output, jax.random.key(0), jnp.zeros((2, 5, 4, 3)))
    assert shapes[0].shape == (2, 5, 4, 3)
    given, target = names['Blur'](2)(None, jnp.asarray(image[:9, :9]), 5)
    assert np.allclose(target, image[2:7, 2:7] / 255, atol=1e-6)
    blurred = names['blurred'](types.SimpleNamespace(hr=image), 2.0)
    assert blurred.shape == image.shape
    assert np.allclose(given, blurred[2:7, 2:7], atol=1e-6)
    assert blurred[4, 5, 1] == pytest.approx(image[2:7, 3:8, 1].mean() / 255)


def test_the_figure_shows_modules_that_exist():
    for name in re.findall(r'class="path"[^>]*>([^<]+)<', text_of('docs/architecture.svg')):
        path = ROOT / 'nsr_jax' / name
        assert path.is_dir() or path.with_suffix('.py').is_file(), name


@pytest.mark.parametrize('row', [row for row in rows_of(text_of('docs/photographs.md')) if row[0].startswith('`')])
def test_the_smallest_images_are_those_of_the_configs(row):
    name, _, argument = row[0].strip('`').partition(':')
    config = importlib.import_module(name.removesuffix('.py').replace('/', '.')).get_config(argument)
    region = region_size(config.data.patch_size, config.model.channels, make_corruption(config))
    assert int(row[1]) == config.model.scale * (region + 2 * config.data.margin)


def test_both_environments_pin_the_same_versions():
    tests, site = (
        dict(re.findall(r'^([\w.-]+)==(\S+)$', text_of(name), re.MULTILINE))
        for name in ('requirements.txt', 'docs/requirements.txt')
    )
    assert {'mkdocs-material', 'mkdocstrings-python', 'ruff'} <= site.keys()
    assert not {name for name in tests.keys() & site.keys() if tests[name] != site[name]}


def test_the_workflow_builds_the_site():
    steps = yaml.safe_load(text_of('.github/workflows/test.yml'))['jobs']['docs']['steps']
    assert [step['run'] for step in steps if 'run' in step] == ['make docs']
    assert '\nmake docs\n' in text_of('.ci/run')
    assert 'strict: true' in text_of('mkdocs.yml')
