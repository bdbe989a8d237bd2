"""HOUSE-11 and HOUSE-19: the reading path names every module, and agrees with the docstrings."""

from __future__ import annotations

import ast

import pytest

from tests.house.next import (
    LAST,
    MAP,
    NEXT,
    is_read,
    listed,
    read_modules,
    successors,
    summary,
    with_next,
    with_summaries,
)
from tests.house.source import modules

TEXT = MAP.read_text(encoding="utf-8")
DOCSTRINGS = {module.name: docstring for module, docstring in read_modules()}
REPAIR = "repair it with: python -m tests.house.next"


@pytest.mark.clause("HOUSE-11")
def test_the_reading_path_names_every_module_once() -> None:
    assert sorted(listed(TEXT)) == sorted(module.name for module in modules() if is_read(module))


@pytest.mark.clause("HOUSE-19")
def test_next_leads_through_the_whole_map() -> None:
    """Follows `Next:` from the first module of the map."""
    names = listed(TEXT)
    path = [names[0]]
    while len(path) < len(names) and (named := NEXT.search(DOCSTRINGS[path[-1]])) and named[1] in DOCSTRINGS:
        path.append(named[1])
    assert path == names, REPAIR
    assert NEXT.findall(DOCSTRINGS[names[-1]]) == [LAST], REPAIR


@pytest.mark.clause("HOUSE-19")
def test_packages_lead_to_their_first_module() -> None:
    following = successors(listed(TEXT))
    named = {name: NEXT.search(docstring) for name, docstring in DOCSTRINGS.items()}
    packages = [name for name, found in named.items() if found and name in following and name not in listed(TEXT)]
    assert "ferrum.tensor" in packages
    assert {name: found[1] for name, found in named.items() if found and name in packages} == {
        name: following[name] for name in packages
    }, REPAIR


@pytest.mark.clause("HOUSE-19")
def test_the_map_quotes_the_docstrings() -> None:
    assert with_summaries(TEXT, DOCSTRINGS) == TEXT, REPAIR


@pytest.mark.clause("HOUSE-19")
def test_the_rules_themselves() -> None:
    text = "# Map\n- **`ferrum.a.b`** – One thing.\n- `ferrum.a.c` – Another.\n- `ferrum.d` – The last.\n"
    assert listed(text) == ["ferrum.a.b", "ferrum.a.c", "ferrum.d"]
    assert successors(listed(text)) == {
        "ferrum.a.b": "ferrum.a.c", "ferrum.a.c": "ferrum.d", "ferrum.d": LAST, "ferrum.a": "ferrum.a.b",
    }  # fmt: skip
    assert (
        with_summaries(text, {"ferrum.a.b": "New\nwords.\n\nOwns: b."}).splitlines()[1]
        == "- **`ferrum.a.b`** – New words."
    )
    assert summary("One\nline.\n\nMore.") == "One line."


@pytest.mark.clause("HOUSE-19")
@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ('"""A.\n\nOwns: a. Next: `x.y`.\n"""\n', '"""A.\n\nOwns: a. Next: `ferrum.b`.\n"""\n'),
        ('"""A.\n\nNext: `x.y`.\nSpecs: A-01.\n"""\n', '"""A.\n\nNext: `ferrum.b`.\nSpecs: A-01.\n"""\n'),
        ('"""A. Next: `x`."""\nx = 1\n', '"""A. Next: `ferrum.b`."""\nx = 1\n'),
        ('"""A.\n\nOwns: a.\n"""\nx = 1\n', '"""A.\n\nOwns: a.\nNext: `ferrum.b`.\n"""\nx = 1\n'),
        (f'"""A.\n\n{"a" * 110} Next: `b`.\n"""\n', f'"""A.\n\n{"a" * 110}\nNext: `ferrum.b`.\n"""\n'),
    ],
)  # fmt: skip
def test_only_the_next_module_is_changed(docstring: str, expected: str) -> None:
    assert with_next(docstring, "ferrum.b") == expected
    assert with_next(expected, "ferrum.b") == expected
    ast.parse(expected)
