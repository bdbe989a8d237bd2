"""HOUSE-05 to HOUSE-10: docstrings, printing, sizes, and the few facts that are stored in two places."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ferrum
from ferrum.backends.registry import BUILTIN, ENTRY_POINT_GROUP
from tests.house.next import NEXT, is_read
from tests.house.source import ROOT, Module, modules

LONGEST_FUNCTION = 60
LONGEST_FILE = 400
EXCUSE = "house: long because"


@pytest.mark.clause("HOUSE-05")
@pytest.mark.parametrize("module", modules(), ids=str)
def test_modules_say_what_they_own(module: Module) -> None:
    docstring = ast.get_docstring(module.tree)
    if module.path.name == "__init__.py":
        return  # a room's package may be empty
    assert docstring, f"{module} has no docstring"
    if is_read(module):
        named = NEXT.search(docstring)
        assert named, f"{module} does not say what to read next"
        assert exists(named[1]), f"{module} sends its reader to {named[1]}, which does not exist"


def exists(target: str) -> bool:
    """True if `ferrum.kv.pool`, `ferrum.kv` or `docs/x.md` exists."""
    path = ROOT / target if "/" in target else ROOT.joinpath(*target.split("."))
    return path.exists() or path.with_suffix(".py").is_file()


def prints(tree: ast.Module) -> list[int]:
    """Lines that call the builtin `print`."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


@pytest.mark.clause("HOUSE-06")
@pytest.mark.parametrize("module", [m for m in modules() if m.room != "cli"], ids=str)
def test_only_the_command_line_prints(module: Module) -> None:
    assert prints(module.tree) == []


def too_long(text: str, tree: ast.Module) -> Iterator[str]:
    """Functions, and the file, that exceed the limits without a stated reason."""
    lines = text.split("\n")
    if text.count("\n") > LONGEST_FILE and EXCUSE not in "\n".join(lines[:40]):
        yield f"{text.count(chr(10))} lines"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
            size = node.end_lineno - node.lineno + 1
            own = "\n".join(lines[max(node.lineno - 2, 0) : node.end_lineno])
            if size > LONGEST_FUNCTION and EXCUSE not in own:
                yield f"{node.name}, line {node.lineno}: {size} lines"


@pytest.mark.clause("HOUSE-07")
@pytest.mark.parametrize("module", modules(), ids=str)
def test_nothing_is_too_long(module: Module) -> None:
    assert list(too_long(module.text, module.tree)) == []


@pytest.mark.clause("HOUSE-05")
@pytest.mark.clause("HOUSE-06")
@pytest.mark.clause("HOUSE-07")
def test_the_rules_themselves() -> None:
    def function(lines: int, comment: str = "") -> str:
        return f"def f():{comment}\n" + "    x = 1\n" * (lines - 1)

    assert prints(ast.parse("def f():\n    print('x')\nconsole.print('y')")) == [2]
    for source, expected in [
        (function(LONGEST_FUNCTION), 0),
        (function(LONGEST_FUNCTION + 1), 1),
        (function(LONGEST_FUNCTION + 1, f"  # {EXCUSE} it is a table"), 0),
        ("x = 1\n" * LONGEST_FILE, 0),
        ("x = 1\n" * (LONGEST_FILE + 1), 1),
        (f"# {EXCUSE} it is data\n" + "x = 1\n" * LONGEST_FILE, 0),
    ]:
        assert len(list(too_long(source, ast.parse(source)))) == expected
    assert NEXT.search("Owns: x. Next: `ferrum.kv.pool`.\n")[1] == "ferrum.kv.pool"  # type: ignore[index]
    assert exists("ferrum.tensor.ops") and not exists("ferrum.tensor.nothing")


@pytest.mark.clause("HOUSE-08")
def test_builtin_backends_are_registered_twice_alike() -> None:
    setup = configparser.RawConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = [line for line in setup["options.entry_points"][ENTRY_POINT_GROUP].splitlines() if line]
    declared = dict(re.split(r"\s*=\s*", line, maxsplit=1) for line in lines)
    assert declared == BUILTIN


@pytest.mark.clause("HOUSE-09")
def test_the_readme_starts_with_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.search(r"^```sh\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert first is not None
    assert first[1].splitlines() == [
        'pip install . && ferrum-ref generate --temperature 0 "What is the capital of France?"',
        "pip install '.[test]' && pytest",
    ]
    runner = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "README.md" in runner
    assert "ferrum-ref generate" not in runner, "continuous integration repeats a command instead of reading it"


@pytest.mark.clause("HOUSE-10")
def test_the_tested_package_is_this_tree() -> None:
    installed = Path(ferrum.__file__).parent
    for module in modules():
        copy = installed / module.path.relative_to(ROOT / "ferrum")
        assert copy.is_file() and copy.read_bytes() == module.path.read_bytes(), (
            f"{copy} is not this tree's {module}: `pip install .` again, or `pip install -e .` once"
        )
