"""The pages of clauses on the site: each clause links to the code that keeps it and to the tests that prove it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from docs.site.markdown import outside_code
from docs.site.navigation import ROOT
from docs.site.sources import address
from ferrum.cli.clauses import HEADING, KEPT_BY, NO_CLAUSES, SECTION, Clause, Place, python_definitions, read_subjects
from ferrum.cli.clauses import line_of as search
from tests.house.index import proofs
from tests.house.source import parse

MENTION = re.compile(r"(?<![\w#/-])(?P<subject>[A-Z]{2,})-\d{2,3}(?![\w-])")


@cache
def clauses() -> dict[str, Clause]:
    """All clauses by id."""
    return {clause.id: clause for subject in read_subjects(ROOT / "specs") for clause in subject.clauses}


def with_proofs(page: str, text: str) -> str:
    """The text of a page. A page of clauses gets the links of each clause; on every other page, ids become links."""
    folder, _, name = page.rpartition("/")
    if folder != "specs" or f"{name}.md" in NO_CLAUSES:
        return outside_code(text, lambda part: MENTION.sub(lambda found: _mentioned(page, found), part))
    head, *rest = HEADING.split(text)
    parts = [head]
    for identifier, title, body in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        end = section.start() if (section := SECTION.search(body)) else len(body)
        own, after = body[:end], body[end:]
        clause = clauses()[identifier]
        kept_by = own if clause.says_more else KEPT_BY.sub("", own)
        links = "".join(_links(page, clause))
        parts.append(f'<span id="{identifier}"></span>\n\n### {identifier} {title}\n{kept_by}\n\n{links}\n\n{after}')
    return "".join(parts)


def _mentioned(page: str, found: re.Match[str]) -> str:
    if found[0] not in clauses():
        return found[0]
    return f'<a href="{"../" * page.count("/")}specs/{found["subject"]}.html#{found[0]}">{found[0]}</a>'


def _links(page: str, clause: Clause) -> Iterator[str]:
    yield '<div class="proof">'
    if clause.places:
        yield f"<p>Kept by {', '.join(_kept(page, place) for place in clause.places)}</p>"
    tests = proofs().get(clause.id, {})
    count = sum(max(len(names), 1) for names in tests.values())
    yield f"<details><summary>Proved by {count} test{'s' if count > 1 else ''}</summary><ul>"
    for file, names in tests.items():
        path = ROOT / file
        linked = ", ".join(_link(address(page, path, line_of(path, name)), name) for name in names)
        yield f"<li>{_link(address(page, path), file)}{': ' if names else ''}{linked}</li>"
    yield "</ul></details></div>"


def _kept(page: str, place: Place) -> str:
    path = ROOT / place.path.rstrip("/")
    names = [_link(address(page, path, line_of(path, name)), name) for name in place.names]
    return f"{', '.join(names)}{' in ' if names else ''}{_link(address(page, path), place.path)}"


def _link(target: str, words: str) -> str:
    return f'<a href="{target}"><code>{html.escape(words)}</code></a>'


def line_of(path: Path, name: str) -> int | None:
    """The line of a definition, `TestPool::test_release` or `BlockPool.release`."""
    name = name.replace("::", ".")
    return _lines(path).get(name) if path.suffix == ".py" else search(path, name)


@cache
def _lines(path: Path) -> dict[str, int]:
    return dict(python_definitions(parse(path)))
