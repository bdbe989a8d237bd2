"""Rules that need one another: which of them can ever come to an end, and which begin with themselves.

Owns: both questions about a context-free grammar, whatever it was written in. Refuses to know: characters.
Specs: SAMPLE-41, SAMPLE-43. Next: `ferrum.sample.grammars.gbnf`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Union

Needs = Union[str, "All", "One"]
"""What has to be matched for something to be matched: a rule, all of some parts, or one of some."""


@dataclass(frozen=True)
class All:
    """Each of these; of none, nothing is needed."""

    parts: Sequence[Needs]


@dataclass(frozen=True)
class One:
    """One of these; of none, nothing can match."""

    parts: Sequence[Needs]


NOTHING = All(())


def endless(rules: Mapping[str, Needs]) -> set[str]:
    """The rules that no finite text matches, since each way through them needs one of them again. A name that is no
    rule needs nothing."""
    unknown = set(rules)
    found = True
    while found:
        # what is defined last is most often what others are made of: few rounds are needed that way
        ended = []
        for name in reversed(list(rules)):
            if name in unknown and _ends(rules[name], unknown):
                unknown.remove(name)
                ended.append(name)
        found = bool(ended)
    return unknown


def _ends(needs: Needs, unknown: AbstractSet[str]) -> bool:
    if isinstance(needs, str):
        return needs not in unknown
    if isinstance(needs, All):
        return all(_ends(part, unknown) for part in needs.parts)
    return any(_ends(part, unknown) for part in needs.parts)


def endless_from(start: str, rules: Mapping[str, Needs]) -> str | None:
    """One of those rules that can begin where the grammar begins with `start`; None where each has an end."""
    lost = endless(rules)
    if not lost:
        return None
    reached, todo = {start}, [start]
    while todo:
        for name in names(rules.get(todo.pop(), NOTHING)):
            if name not in reached:
                reached.add(name)
                todo.append(name)
    among = lost & reached
    _, again = in_order({name: [each for each in names(rules[name]) if each in among] for name in sorted(among)})
    return again or min(among, default=None)


def names(needs: Needs) -> Iterator[str]:
    """The rules that are named there."""
    if isinstance(needs, str):
        yield needs
    else:
        for part in needs.parts:
            yield from names(part)


def in_order(leads: Mapping[str, Sequence[str]]) -> tuple[list[str], str | None]:
    """Every name behind those that it leads to; and one that leads to itself again, None where there is none."""
    order: list[str] = []
    state: dict[str, bool] = {}  # False: on the way to its end
    again = None
    for first in leads:
        way = [first]
        while way:
            name = way[-1]
            if name not in state:
                state[name] = False
                for after in leads[name]:
                    if after not in state:
                        way.append(after)
                    elif not state[after]:
                        again = again or after
            else:
                way.pop()
                if not state[name]:
                    state[name] = True
                    order.append(name)
    return order, again
