"""llama.cpp's tests of its template engine, through the sandbox that renders chat templates here.

Owns: how a case of `tests/test-jinja.cpp` is written: a template, variables in braces, the text that is expected.
Refuses to know: how C++ is read, which differences are explained.
Specs: SUITE-21. Next: `benchmarks/suites/replies.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ferrum.errors import FerrumError
from ferrum.text.chat import ChatTemplate

from .cpp import Reader
from .fetch import LLAMA_CPP, Source
from .verdict import Verdict

SOURCE = Source(LLAMA_CPP, "the cases of llama.cpp's own Jinja engine")


def run(data: Path) -> Iterator[Verdict]:
    source = (SOURCE.within(data) / "vendor/llama.cpp/tests/test-jinja.cpp").read_text(encoding="utf-8")
    for name, template, variables, expected in cases(source):
        yield _verdict(name, template, variables, expected)


def cases(source: str) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Name, template, variables and expected text of every call of `test_template`."""
    functions = {"json": as_json, "json::object": _object, "json::array": _array}
    for _, name, template, variables, expected in Reader(source, {"t": None}, functions).calls("test_template"):
        yield name, template, as_json(variables), expected


def as_json(value: Any) -> Any:
    """Braces in C++ as its JSON library takes them: a list of pairs that begin with texts is an object. What was
    called an array (a tuple here) is one."""
    if isinstance(value, tuple):
        return [as_json(each) for each in value]
    if not isinstance(value, list):
        return value
    if value and all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in value):
        return {name: as_json(each) for name, each in value}
    return tuple(as_json(each) for each in value)


def _object(pairs: list[Any] | None = None) -> dict[str, Any]:
    return {name: as_json(each) for name, each in pairs or []}


def _array(values: list[Any] | None = None) -> tuple[Any, ...]:
    return tuple(values or [])


def _verdict(name: str, template: str, variables: dict[str, Any], expected: str) -> Verdict:
    try:
        found = ChatTemplate(template).render(**{"messages": [], **variables})
    except FerrumError as error:
        if "is unsafe" in str(error):
            return Verdict(name, "refused", "a template that changes a value it was given or has made")
        return Verdict(name, "different", f"{expected!r} is expected, but {error}")
    return Verdict(name, "equal") if found == expected else Verdict(name, "different", f"{expected!r}, here {found!r}")
