"""The notebooks: their cells run one after another, and their printed outputs are those of a run."""

import json
import pathlib
import re
import sys

import matplotlib
import pytest

from docs import generated
from tests.documentation.printed import ROOT

NOTEBOOKS = sorted((ROOT / 'examples').glob('*.ipynb'))


def cells_of(path):
    return [cell for cell in json.loads(path.read_text(encoding='utf-8'))['cells'] if cell['cell_type'] == 'code']


@pytest.fixture
def run(tmp_path, monkeypatch, lenient_promotion):
    """A function that runs a notebook in a folder of this test, in so many steps, and gives its names."""
    matplotlib.use('agg')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '1')

    def run(name, steps):
        names = {'__name__': '__main__'}
        sources = [''.join(cell['source']) for cell in cells_of(ROOT / 'examples' / name)]
        changed = [re.sub(r'^STEPS = \d+$', f'STEPS = {steps}', source, flags=re.MULTILINE) for source in sources]
        assert any(f'STEPS = {steps}\n' in f'{source}\n' for source in changed)
        for source in changed:
            exec(compile(source, name, 'exec'), names)
        return names

    return run


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_are_those_of_one_run_from_the_first_cell_on(path):
    cells = cells_of(path)
    assert [cell['execution_count'] for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell['outputs']]
    assert {output['output_type'] for output in outputs} <= {'stream', 'display_data', 'execute_result'}
    assert path.stat().st_size < 300_000


@pytest.mark.slow
def test_the_quickstart_trains_scores_and_restores(run, capsys):
    names = run('quickstart.ipynb', 4)
    assert names['restored'].shape == names['photograph'].shape
    assert names['psnr'].keys() == {'bicubic', 'network'}
    assert 'Restorer(task sr, scale 2' in capsys.readouterr().out


@pytest.mark.slow
def test_the_classifier_tells_textures_apart(run):
    names = run('sparse_conv_classifier.ipynb', 200)
    assert names['accuracy'] > 0.8
    assert names['gamma'].shape == (600, 4, 4)


def test_a_notebook_is_a_page():
    cells = [
        {'cell_type': 'markdown', 'source': ['# A\n', '[b](../docs/faq.md)']},
        {'cell_type': 'code', 'source': ['1\n', '2'], 'outputs': [
            {'output_type': 'stream', 'name': 'stdout', 'text': ['x\n', 'y\n']},
            {'output_type': 'display_data', 'data': {'text/plain': ['<Figure>'], 'image/png': 'AAAA\n'}},
        ]},
    ]  # fmt: skip
    page = generated.show_notebook(json.dumps({'cells': cells}), 'examples/a.ipynb')
    assert page.startswith('# A\n[b](../docs/faq.md)\n\nAll of it is `examples/a.ipynb`')
    assert '```python\n1\n2\n```\n\n```text\nx\ny\n```\n\n![What the code' in page
    assert '(data:image/png;base64,AAAA)' in page
    pages = generated.make_pages()
    assert {pathlib.PurePath(name).stem for name in pages if name.startswith('examples/')} == {
        path.stem for path in NOTEBOOKS
    }
