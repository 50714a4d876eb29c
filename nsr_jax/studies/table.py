"""The tables of a sweep or search as Markdown, as a page that holds its plots, and as JSON."""

import base64
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

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


def to_json(contents: Any) -> str:
    """Dicts, lists and plain values as a JSON file: NaN as null, an infinite number as the text "inf"."""
    return json.dumps(_storable(contents), indent=1, allow_nan=False) + '\n'


def _storable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _storable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_storable(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
