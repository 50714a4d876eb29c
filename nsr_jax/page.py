"""HTML pages that contain all that they show and fetch nothing, of one design for reports, comparisons and tables."""

import importlib.resources
from typing import Any

import jinja2

_BASE = 'page.html'


def render(package: str, template: str, **values: Any) -> str:
    """Fill in a page; names and other text in `values` are escaped.

    Args:
        package: holds the template.
        template: the name of its file, which extends 'page.html', or another file of the package that does.
        values: what the two ask for, among it `title`.
    """

    def read(name: str) -> str:
        folder = importlib.resources.files('nsr_jax' if name == _BASE else package)
        return (folder / name).read_text(encoding='utf-8')

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(values)
