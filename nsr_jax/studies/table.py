"""The tables of a sweep or search as Markdown, and as a page that holds its plots."""

import base64
from collections.abc import Sequence
from typing import NamedTuple

from nsr_jax import markdown
from nsr_jax.page import render


class Section(NamedTuple):
    """A table and the sentence above it; the first `left` columns hold text."""

    text: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    left: int


class Plot(NamedTuple):
    """A picture: the name of its file without the ending, what it shows in words, and the PNG."""

    name: str
    text: str
    png: bytes


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """All tables as one Markdown file."""
    tables = [f'{text}\n\n{markdown.table(head, rows, left)}' for text, head, rows, left in sections]
    return f'# {title}\n\n' + '\n'.join(tables)


def to_html(title: str, sections: Sequence[Section], plots: Sequence[Plot]) -> str:
    """A page that works offline."""
    pictures = [(plot.text, base64.b64encode(plot.png).decode()) for plot in plots]
    return render('nsr_jax.studies', 'table.html', title=title, sections=sections, plots=pictures)
