"""The site: `python -m sphinx -W -c docs . FOLDER` makes it of the pages, the clauses and the source.

The pages are plain Markdown that reads as well in the repository. What a site can do beyond that is added while it is
built: links from names to lines of code (`docs/site/sources.py`), from clauses to their code and tests
(`docs/site/clauses.py`), pictures of measurements (`docs/site/benchmarks.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docs.site import benchmarks, clauses, navigation, sources

project = "ferrum"
html_title = "ferrum"
root_doc = navigation.HOME
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
include_patterns = [f"{page}.md" for page in navigation.pages()]

myst_heading_anchors = 4
suppress_warnings = [
    "misc.highlighting_failure",  # JSON that is shortened by …
    "myst.header",  # a file of few clauses has no sections between its title and them
]

html_theme = "furo"
html_static_path = ["site/style"]
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False
html_show_sphinx = False
html_show_copyright = False


def setup(app: Sphinx) -> None:
    """What is done to the text of each page before it is read, and to the folder when all pages are written."""
    app.connect("source-read", read)
    app.connect("build-finished", finish)


def read(app: Sphinx, page: str, content: list[str]) -> None:
    content[0] = clauses.with_proofs(page, content[0])
    content[0] = benchmarks.with_pictures(content[0])
    content[0] = sources.with_links(page, content[0])
    content[0] = navigation.with_contents(page, content[0])


def finish(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        sources.write_pages(Path(app.outdir))
        navigation.write_start(Path(app.outdir))
