"""HTML pages that contain all that they show and fetch nothing, of one design for reports, comparisons and tables."""

import importlib.resources
from typing import Any

import jinja2

_BASE = 'page.html'


def render(package: str, template: str, **values: Any) -> str:
    """Fill in a page; names and other text in `values` are escaped.

    Args:
        package: holds the template.
        template: the name of its file, which extends 'page.html'.
        values: what the two ask for, among it `title`.
    """
    files = {_BASE: ('nsr_jax', _BASE), template: (package, template)}
    texts = {
        name: (importlib.resources.files(place) / file).read_text(encoding='utf-8')
        for name, (place, file) in files.items()
    }
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(texts), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(values)
