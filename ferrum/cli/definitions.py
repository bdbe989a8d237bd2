"""Where a name is defined in a source file.

Owns: the search, by syntax in Python and by words in every other language. Refuses to know: why anybody asks.
Specs: CLI-93, HOUSE-13. Next: `ferrum.cli.spec`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def line_of(path: Path, name: str) -> int | None:
    """The line on which `name`, which may be a method (`BlockPool.release`), is defined; None where it is not."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return next((line for found, line in python_definitions(ast.parse(text)) if found == name), None)
    return _other(text, name.rpartition(".")[2])


def python_definitions(node: ast.Module | ast.ClassDef, within: str = "") -> Iterator[tuple[str, int]]:
    """(name, line) of functions, classes and variables of a module, and of those in its classes."""
    for child in node.body:
        if isinstance(child, Definition):
            yield within + child.name, child.lineno
        if isinstance(child, ast.ClassDef):
            yield from python_definitions(child, f"{within}{child.name}.")
        targets = child.targets if isinstance(child, ast.Assign) else [getattr(child, "target", None)]
        yield from ((within + target.id, child.lineno) for target in targets if isinstance(target, ast.Name))


def _other(text: str, name: str) -> int | None:
    """In C++ and JavaScript: the first line that begins with words and the name, as `class A`, `static int f(`,
    `f(x) {` and `const y =` do. A call does not: it is a statement, or something else stands before it."""
    word = re.escape(name)
    declared = rf"(?:async +)?(?:function *\*?|class|struct|enum|const|let|var|#define) *\b{word}\b"
    made = rf"(?!return|await|throw|else)(?:[\w:<>\"]+(?:\(\d+\))?[ *&]+)*{word} *(?:=(?!=)|\((?!.*; *$))"
    found = re.search(rf"^[ \t]*(?:{declared}|{made})", text, re.MULTILINE)
    return None if found is None else text.count("\n", 0, found.start()) + 1
