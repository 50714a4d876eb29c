"""What MkDocs calls while it builds the site."""

import pathlib
import sys

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from docs.generated import link, make_pages


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the sources."""
    for place, markdown in make_pages().items():
        files.append(File.generated(config, place, content=markdown))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files outside docs/ lead nowhere on a site."""
    return link(markdown, f'docs/{page.file.src_uri}') if page.file.generated_by is None else markdown
