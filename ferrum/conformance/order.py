"""Which properties run, in which order: simple operations before those that are made of them.

Owns: the order of the suite's files, the name of a property, which does not depend on the name of its backend, the
selection of properties by such names, and the marking of those that are known to fail. Refuses to know: what is tested.
Specs: CONFORM-02. Next: `ferrum.conformance.xfails`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from ferrum.conformance.xfails import check_all_match, read_xfails

HERE = Path(__file__).parent

FIRST = ("primitives", "types", "edges", "shapes", "random", "compositions", "parts", "attention", "choosing")
"""Names of files, without `test_`. The others come after them."""


def is_ours(item: pytest.Item) -> bool:
    """True for a property of this suite, False for a test of another suite in the same run."""
    return item.path.parent == HERE


def parameter(item: pytest.Item, name: str) -> Any:
    """The value of a property's parameter of this name; None if it has none."""
    spec = getattr(item, "callspec", None)
    return None if spec is None else spec.params.get(name)


def backend_of(item: pytest.Item) -> str | None:
    """The name of the backend that this property tests."""
    name = parameter(item, "backend")
    return None if name is None else str(name)


def name_of(item: pytest.Item) -> str:
    """test_activations[numpy-relu] -> test_activations[relu]"""
    backend = backend_of(item)
    if backend is None:
        return item.name
    name, _, parameters = item.name.partition("[")
    parts = parameters.removesuffix("]").removeprefix(backend).removeprefix("-")
    return f"{name}[{parts}]" if parts else name


def in_order(items: list[pytest.Item]) -> None:
    """Sorts the properties among the items, one backend after the other. Other tests keep their places."""
    places = [place for place, item in enumerate(items) if is_ours(item)]
    backends = list(dict.fromkeys(backend_of(items[place]) for place in places))

    def rank(item: pytest.Item) -> tuple[int, int]:
        name = item.path.stem.removeprefix("test_")
        return backends.index(backend_of(item)), FIRST.index(name) if name in FIRST else len(FIRST)

    for place, item in zip(places, sorted((items[place] for place in places), key=rank), strict=True):
        items[place] = item


@contextmanager
def under_own_names(items: list[pytest.Item]) -> Iterator[None]:
    """While the block runs, names have no backend in them, so that `-k argmax` does not match `argmax_net:Ops`."""
    spelled = [(item, item.name) for item in items if is_ours(item)]
    for item, _ in spelled:
        item.name = name_of(item)
    try:
        yield
    finally:
        for item, name in spelled:
            item.name = name


LISTED = pytest.StashKey[str]()
"""For a property that is known to fail: the message for when it passes."""


def mark_xfails(file: str | None, items: list[pytest.Item]) -> None:
    """Marks the properties in the file. Raises ConfigError for an invalid file."""
    if file is None:
        return
    names = {item: (name_of(item), item.name) for item in items if is_ours(item)}
    entries = read_xfails(Path(file))
    check_all_match(Path(file), entries, chain.from_iterable(names.values()))
    for item, spellings in names.items():
        entry = next((entry for entry in entries if entry.matches(*spellings)), None)
        if entry is not None:
            item.add_marker(pytest.mark.xfail(reason=entry.reason, strict=True))
            item.stash[LISTED] = f"{file}:{entry.line} lists {spellings[0]}, which passes now"
