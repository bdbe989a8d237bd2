"""HOUSE-11, HOUSE-19 and HOUSE-20: the reading path names every module, agrees with the docstrings, and says how long
it is."""

from __future__ import annotations

import ast
import re

import pytest

from tests.house.next import (
    ENTRY,
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


def lines_of(names: list[str]) -> int:
    """The number of lines of these modules together."""
    paths = {module.name: module.path for module in modules()}
    return sum(paths[name].read_text(encoding="utf-8").count("\n") for name in names)


@pytest.mark.clause("HOUSE-20")
def test_the_main_path_lists_the_modules_in_bold() -> None:
    bold = [name for mark, name, _ in ENTRY.findall(TEXT) if mark == "**"]
    assert re.findall(r"^\d+\. `(ferrum\.[\w.]+)`: ", TEXT, re.MULTILINE) == bold


@pytest.mark.clause("HOUSE-20")
@pytest.mark.parametrize("mark", ["**", "*"])
def test_the_numbers_of_lines_are_true(mark: str) -> None:
    """To 10 %, for the modules in bold and for those in italics."""
    names = [name for each, name, _ in ENTRY.findall(TEXT) if each == mark]
    stated = re.findall(r"\b(\d+) (\d{3})\s+lines", TEXT)
    main, more = (1000 * int(thousands) + int(rest) for thousands, rest in stated)
    assert (main if mark == "**" else more) == pytest.approx(lines_of(names), rel=0.1)


@pytest.mark.clause("HOUSE-20")
def test_the_stated_time_follows_from_the_lines() -> None:
    (thousands, rest), _ = re.findall(r"\b(\d+) (\d{3})\s+lines", TEXT)
    hours = (1000 * int(thousands) + int(rest)) / (12 * 60)
    assert "12 lines a minute" in TEXT and "five and a half hours" in TEXT
    assert hours == pytest.approx(5.5, abs=0.25)
    assert "the words, an hour" in TEXT and "six to seven hours in all" in TEXT
    assert 6 < 1 + hours < 7


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
        ('"""A.\n\nOwns: a. Next:\n`x.y`.\n"""\n', '"""A.\n\nOwns: a. Next: `ferrum.b`.\n"""\n'),
        ('"""A. Next: `x`."""\nx = 1\n', '"""A. Next: `ferrum.b`."""\nx = 1\n'),
        ('"""A.\n\nOwns: a.\n"""\nx = 1\n', '"""A.\n\nOwns: a.\nNext: `ferrum.b`.\n"""\nx = 1\n'),
        (f'"""A.\n\n{"a" * 110} Next: `b`.\n"""\n', f'"""A.\n\n{"a" * 110}\nNext: `ferrum.b`.\n"""\n'),
    ],
)  # fmt: skip
def test_only_the_next_module_is_changed(docstring: str, expected: str) -> None:
    assert with_next(docstring, "ferrum.b") == expected
    assert with_next(expected, "ferrum.b") == expected
    ast.parse(expected)
