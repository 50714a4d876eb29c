"""docs/method.md quotes lines that are in the code, and its figure is what its script draws."""

import pathlib
import re
import runpy

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / 'docs' / 'method.md').read_text(encoding='utf-8')
QUOTES = re.findall(r'^`([\w/]+\.py)`\n\n```python\n(.*?)```$', PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(('path', 'quote'), QUOTES, ids=[path for path, _ in QUOTES])
def test_quoted_lines_are_in_their_file_and_in_this_order(path, quote):
    lines = [line.strip() for line in (ROOT / path).read_text(encoding='utf-8').splitlines()]
    places = [lines.index(line) for line in quote.strip().splitlines()]
    assert places == sorted(places)


def test_each_equation_stands_beside_its_code():
    assert PAGE.count('```python') == len(QUOTES)
    assert len(QUOTES) >= PAGE.count('```math') == 6


def test_the_figure_is_what_its_script_draws():
    figure = runpy.run_path(str(ROOT / 'docs' / 'method_figure.py'))['draw']()
    assert (ROOT / 'docs' / 'method.svg').read_text(encoding='utf-8') == figure
