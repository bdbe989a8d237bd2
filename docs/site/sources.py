"""Links from the pages of the site to the source, and a page for each file of it, with a link for each line."""

from __future__ import annotations

import html
import os
import re
from functools import cache
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from docs.site.markdown import outside_blocks
from docs.site.navigation import ROOT, pages

FOLDER = "source"
"""Where pages of files lie on the site: `source/ferrum/kv/pool.py.html`."""
LINK = re.compile(r"(?<!!)\[(?P<words>[^\]\n]+)\]\((?P<target>[^)#\s]+)(?:#\w*)?\)")
NAMED = re.compile(r"(?<![\[`\w])`(?P<name>[\w./-]+)`(?!\])")
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{path}</title>
<link rel="stylesheet" href="{up}_static/pygments.css"><link rel="stylesheet" href="{up}_static/source.css">
<body data-theme="auto"><nav><a href="{up}README.html">ferrum</a> / {path}</nav>
<main class="highlight">{body}</main></body></html>
"""

_linked: set[Path] = set()


def address(page: str, path: Path, line: int | None = None) -> str:
    """Where the site has a file or folder of the project, as a page of the site links to it."""
    _linked.add(path)
    to_root = "../" * page.count("/")
    return f"{to_root}{FOLDER}/{path.relative_to(ROOT).as_posix()}.html{f'#L-{line}' if line else ''}"


def with_links(page: str, text: str) -> str:
    """The text, in which links to files that are no pages, and names of files and modules in backticks, lead to their
    source. Blocks of code stay as they are."""
    return outside_blocks(text, lambda part: _with_links(page, part))


def _with_links(page: str, text: str) -> str:
    here = (ROOT / page).parent

    def linked(link: re.Match[str]) -> str:
        path = Path(os.path.normpath(here / link["target"]))
        if "://" in link["target"] or not path.exists() or _page_of(path) in _pages():
            return link[0]
        return f'<a href="{address(page, path)}">{link["words"]}</a>'

    def named(name: re.Match[str]) -> str:
        path = find(name["name"])
        return f'<a href="{address(page, path)}"><code>{name["name"]}</code></a>' if path else name[0]

    lines = LINK.sub(linked, text).split("\n")
    return "\n".join(line if line.startswith(("#", "<")) else NAMED.sub(named, line) for line in lines)


@cache
def find(name: str) -> Path | None:
    """The source file that is meant by `ferrum/kv/pool.py` or `ferrum.kv.pool`; None if none is."""
    if "/" in name and name.endswith((".py", ".cu", ".cuh", ".h")):
        return ROOT / name if (ROOT / name).is_file() else None
    if not name.startswith("ferrum."):
        return None
    path = ROOT.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _page_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix() if path.suffix == ".md" else ""


@cache
def _pages() -> frozenset[str]:
    return frozenset(pages())


def write_pages(site: Path) -> None:
    """Writes a page for every module of `ferrum/` and for every file and folder that a page links to."""
    for path in sorted(path for path in _linked | set((ROOT / "ferrum").rglob("*.py")) if path.exists()):
        name = path.relative_to(ROOT).as_posix()
        place = site / FOLDER / f"{name}.html"
        place.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (name.count("/") + 1)
        place.write_text(PAGE.format(path=name, up=up, body=_body(path)), encoding="utf-8")


def _body(path: Path) -> str:
    if path.is_dir():
        names = sorted(child.name for child in path.iterdir() if not child.name.startswith(("_", ".")))
        return f"<ul>{''.join(f'<li>{html.escape(name)}</li>' for name in names)}</ul>"
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".py" and path.is_relative_to(ROOT / "ferrum"):
        return highlight(text, PythonLexer(), HtmlFormatter(linenos="inline", lineanchors="L", nowrap=False))
    lines = html.escape(text).split("\n")  # not coloured: there are many, and few are looked at
    return "<pre>" + "".join(f'<a id="L-{line}"></a>{words}\n' for line, words in enumerate(lines, 1)) + "</pre>"
