"""Rules of a context-free grammar: which of them match a finite text, and which begin with themselves.

Owns: both analyses, for grammars in any syntax. Refuses to know: characters.
Specs: SAMPLE-41, SAMPLE-43. Next: `ferrum.sample.grammars.gbnf`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Union

Needs = Union[str, "All", "One"]
"""What a rule needs in order to match: another rule, all of some parts, or one of some parts."""


@dataclass(frozen=True)
class All:
    """Each of these parts; without parts, nothing is needed."""

    parts: Sequence[Needs]


@dataclass(frozen=True)
class One:
    """One of these parts; without parts, nothing can match."""

    parts: Sequence[Needs]


NOTHING = All(())


def endless(rules: Mapping[str, Needs]) -> set[str]:
    """The rules that no finite text matches, since each alternative needs one of them again. An unknown name counts as
    a rule that needs nothing."""
    unknown = set(rules)
    changed = True
    while changed:
        # the last rules are usually parts of the others, so few rounds are needed
        ended = []
        for name in reversed(list(rules)):
            if name in unknown and _ends(rules[name], unknown):
                unknown.remove(name)
                ended.append(name)
        changed = bool(ended)
    return unknown


def _ends(needs: Needs, unknown: AbstractSet[str]) -> bool:
    if isinstance(needs, str):
        return needs not in unknown
    if isinstance(needs, All):
        return all(_ends(part, unknown) for part in needs.parts)
    return any(_ends(part, unknown) for part in needs.parts)


def endless_from(start: str, rules: Mapping[str, Needs]) -> str | None:
    """A rule that can be reached from `start` and that no finite text matches; None if there is none."""
    endless_rules = endless(rules)
    if not endless_rules:
        return None
    reached, todo = {start}, [start]
    while todo:
        for name in names(rules.get(todo.pop(), NOTHING)):
            if name not in reached:
                reached.add(name)
                todo.append(name)
    candidates = endless_rules & reached
    _, cyclic = in_order(
        {name: [each for each in names(rules[name]) if each in candidates] for name in sorted(candidates)}
    )
    return cyclic or min(candidates, default=None)


def names(needs: Needs) -> Iterator[str]:
    """The rules that are named in it."""
    if isinstance(needs, str):
        yield needs
    else:
        for part in needs.parts:
            yield from names(part)


def in_order(leads: Mapping[str, Sequence[str]]) -> tuple[list[str], str | None]:
    """All names, each after those that it leads to; and a name that leads to itself, or None."""
    order: list[str] = []
    state: dict[str, bool] = {}  # False: on the way to its end
    cyclic = None
    for first in leads:
        path = [first]
        while path:
            name = path[-1]
            if name not in state:
                state[name] = False
                for successor in leads[name]:
                    if successor not in state:
                        path.append(successor)
                    elif not state[successor]:
                        cyclic = cyclic or successor
            else:
                path.pop()
                if not state[name]:
                    state[name] = True
                    order.append(name)
    return order, cyclic
