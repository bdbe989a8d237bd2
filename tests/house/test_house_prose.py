"""HOUSE-21: texts for readers name their subjects, and docstrings are statements."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.source import ROOT, Module, modules

_UNNAMED = re.compile(r"\b(?:some|any|every)body\b|\bnobody\b|\bwhoever\b", re.IGNORECASE)
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_QUESTION = re.compile(r"^[^.`\"]*\?(?:\s|$)")  # a first sentence; a quoted question mark is no question
_PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("specs/*.md")]
_OTHER_SOURCES = [path for kind in ("cu", "cuh", "h", "html", "js") for path in (ROOT / "ferrum").rglob(f"*.{kind}")]


def unnamed(text: str) -> list[str]:
    """Pronouns that stand for a person, a thread or a request without a name; code between backticks is not read."""
    return _UNNAMED.findall(_CODE.sub("", text))


def prose(source: str) -> Iterator[str]:
    """The comments and the strings of a Python file: docstrings, help, messages."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def questions(tree: ast.Module) -> list[str]:
    """Functions and classes whose docstring begins with a question."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    named = (node for node in ast.walk(tree) if isinstance(node, kinds))
    return [node.name for node in named if _QUESTION.match(ast.get_docstring(node) or "")]


@pytest.mark.clause("HOUSE-21")
@pytest.mark.parametrize("module", modules(), ids=str)
def test_modules_name_their_subjects(module: Module) -> None:
    assert [word for text in prose(module.text) for word in unnamed(text)] == []
    assert questions(module.tree) == []


@pytest.mark.clause("HOUSE-21")
@pytest.mark.parametrize("path", [*_PAGES, *_OTHER_SOURCES], ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_name_their_subjects(path: Path) -> None:
    assert unnamed(path.read_text(encoding="utf-8")) == []


@pytest.mark.clause("HOUSE-21")
def test_the_rules_themselves() -> None:
    assert unnamed("Nobody waits, and whoever asks is told.") == ["Nobody", "whoever"]
    assert unnamed("`nobody` is the name of a user.\n```\nsomebody\n```\n") == []
    source = '"""A module."""\n# everybody\nx = f"{1} for anybody"\nnobody = 1\n'
    assert [word for text in prose(source) for word in unnamed(text)] == ["everybody", "anybody"]
    asked = 'def f():\n    """Is it free? Then it is taken."""\n\n\nclass G:\n    """Does it end?"""\n'
    stated = 'def f():\n    """True if it is free."""\n\n\ndef g():\n    """The text of `a?b`: 1 ? 2."""\n'
    assert questions(ast.parse(asked)) == ["f", "G"]
    assert questions(ast.parse(stated)) == []
