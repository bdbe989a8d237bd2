"""DOCS-08: the worked example is what the code does."""

from __future__ import annotations

import ast
import re

import pytest

from ferrum.testing.one_life import MARK, figures, with_figures
from tests.house.source import ROOT, modules

PAGE = (ROOT / "docs" / "one-life.md").read_text(encoding="utf-8")


@pytest.mark.clause("DOCS-08")
def test_each_figure_is_what_the_engine_does_now() -> None:
    assert with_figures(PAGE, figures()) == PAGE, "repair it with: python -m ferrum.testing.one_life docs/one-life.md"


@pytest.mark.clause("DOCS-08")
def test_the_page_has_every_figure_once_and_in_order() -> None:
    assert [found[2] for found in MARK.finditer(PAGE)] == list(figures())
    assert PAGE.count("<!-- figure:") == len(figures())


@pytest.mark.clause("DOCS-08")
def test_a_figure_that_is_wrong_is_replaced() -> None:
    page = "Before.\n<!-- figure: one -->\n```text\nold\n```\nAfter.\n"
    assert with_figures(page, {"one": "new\n"}) == page.replace("old", "new")
    with pytest.raises(KeyError):
        with_figures(page, {})


@pytest.mark.clause("DOCS-08")
def test_the_methods_that_the_page_names_exist() -> None:
    methods = {
        f"{owner.name}.{member.name}"
        for module in modules()
        for owner in module.tree.body
        if isinstance(owner, ast.ClassDef)
        for member in owner.body
        if isinstance(member, ast.FunctionDef)
    }
    named = set(re.findall(r"`([A-Z]\w+\.\w+)`", PAGE))
    assert len(named) > 8 and named - methods == set()
