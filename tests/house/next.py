"""`docs/reading-path.md` and the docstrings of the modules it lists, kept in agreement.

The map decides the order: each `Next:` names the module of the following line. The docstrings decide the text:
the first paragraph of each stands on its line of the map. `python -m tests.house.next` rewrites both.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.house.source import ROOT, Module, modules

MAP = ROOT / "docs" / "reading-path.md"
ENTRY = re.compile(r"^- (\**)`(ferrum\.[\w.]+)`\1 – (.*)$", re.MULTILINE)
NEXT = re.compile(r"\bNext:\s+`?([\w./-]+?)`?\.?$", re.MULTILINE)
LAST = "specs/README.md"  # what follows the last module of the map
LINE_LENGTH = 120
QUOTES = '"""'


def is_read(module: Module) -> bool:
    """True if the module belongs on the map: not a package, a program or a file of tests."""
    file = module.path.name
    return file not in ("__init__.py", "__main__.py", "conftest.py") and not file.startswith("test_")


def listed(text: str) -> list[str]:
    """The names of modules in a map, in its order."""
    return [name for _, name, _ in ENTRY.findall(text)]


def successors(names: list[str]) -> dict[str, str]:
    """What each module, and each package that says it, must name as next: for a package, its first module."""
    following = dict(zip(names, [*names[1:], LAST], strict=True))
    for name in reversed(names):
        package = name.rpartition(".")[0]
        while package != "ferrum":
            following[package] = name
            package = package.rpartition(".")[0]
    return following


def summary(docstring: str) -> str:
    """The first paragraph, on one line."""
    return " ".join(docstring.split("\n\n")[0].split())


def with_next(text: str, target: str) -> str:
    """The source of a module whose docstring names `target` as next."""
    docstring = ast.parse(text).body[0]
    assert isinstance(docstring, ast.Expr) and docstring.end_lineno is not None
    end = len("\n".join(text.split("\n")[: docstring.end_lineno])) - len(QUOTES)
    before, after = text[:end].rstrip(), text[end:]
    if named := NEXT.search(before):
        head, tail = before[: named.start()].rstrip(" "), before[named.end() :] + text[len(before) : end]
    else:
        head, tail = before + "\n", "\n"
    sentence, line = f"Next: `{target}`.", head.rpartition("\n")[2]
    gap = "" if not line else "\n" if len(f"{line} {sentence}") > LINE_LENGTH else " "
    return head + gap + sentence + tail + after


def with_summaries(text: str, docstrings: dict[str, str]) -> str:
    """The map with the first paragraph of each docstring."""

    def line(entry: re.Match[str]) -> str:
        mark, name, before = entry.groups()
        return f"- {mark}`{name}`{mark} – {summary(docstrings[name]) if docstrings.get(name) else before}"

    return ENTRY.sub(line, text)


def read_modules() -> Iterator[tuple[Module, str]]:
    """Modules that have a docstring, with it."""
    for module in modules():
        if docstring := ast.get_docstring(module.tree):
            yield module, docstring


def write(path: Path, text: str) -> None:
    if path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def main() -> None:
    """Rewrites the map's texts and every `Next:`; names the modules that the map lacks or that do not exist."""
    text = MAP.read_text(encoding="utf-8")
    known = {module.name: docstring for module, docstring in read_modules()}
    write(MAP, with_summaries(text, known))
    following = successors(listed(text))
    for module, docstring in read_modules():
        if module.name in following and (is_read(module) or NEXT.search(docstring)):
            write(module.path, with_next(module.text, following[module.name]))
    missing = {module.name for module in modules() if is_read(module)} ^ set(listed(text))
    if missing:
        raise SystemExit(f"on the map or in the package, but not in both: {', '.join(sorted(missing))}")


if __name__ == "__main__":
    main()
