"""From GBNF to the Lark of the library that follows grammars.

Owns: the translation, and which grammars are refused: those that name a rule that is not there, begin with themselves,
or have no end. Refuses to know: the syntax of GBNF, the library.
Specs: SAMPLE-40, SAMPLE-41, SAMPLE-43. Next: `ferrum.sample.grammars.lark`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ferrum.errors import quoted
from ferrum.sample.grammars.gbnf import EMPTY, Chars, Choice, Item, Name, Repeat, Text, read, refuse
from ferrum.sample.grammars.refusals import CannotFollow
from ferrum.sample.grammars.rules import NOTHING, All, Needs, One, endless_from, in_order

ROOT = "root"
LONGEST = 1 << 18
"""Characters of a regular expression that takes the place of a grammar."""
DEEPEST = 150
"""Groups inside groups of such an expression; the library takes 250."""


def lark_of(text: str) -> str:
    """The same grammar. Each character is a terminal of its own: the library reads as much as possible for a longer
    one, so that "ab" would not match a grammar of [a-z]+ "b". A grammar that leads nowhere back to itself becomes one
    regular expression, which is followed faster. Raises CannotFollow."""
    rules = read(text)
    if ROOT not in rules:
        refuse(text, len(text), f"no rule is called {ROOT}, which is the one that the whole answer matches")
    for choice in rules.values():
        for name in _names(choice):
            if name.name not in rules:
                refuse(text, name.at, f"no rule is called {quoted(name.name)}")
    _check_beginnings(rules)
    needs = {name: _needs(choice) for name, choice in rules.items()}
    reached = _reached(rules)
    order, cyclic = in_order({name: [each.name for each in _names(rules[name])] for name in reached})
    endless_rule = endless_from(ROOT, needs)
    if endless_rule is not None:
        raise CannotFollow(f"the rule {quoted(endless_rule)} has no end: it always needs itself again")
    if cyclic is None:
        expression = _expression(rules, order)
        if expression is not None:
            return f"start: /{expression}/\n"
    numbers = {name: f"r{number}" for number, name in enumerate(reached)}
    lines = [f"{numbers[name]}: {_spelling(rules[name], _Rules(numbers))}" for name in reached]
    return "\n".join([f"start: {numbers[ROOT]}", *lines, ""])


def _names(item: Item) -> Iterator[Name]:
    if isinstance(item, Name):
        yield item
    elif isinstance(item, Repeat):
        yield from _names(item.item)
    elif isinstance(item, Choice):
        for option in item.options:
            for part in option:
                yield from _names(part)


def _reached(rules: Mapping[str, Choice]) -> list[str]:
    """The rules that can be reached from the root."""
    names = {ROOT: None}
    todo = [ROOT]
    while todo:
        for name in _names(rules[todo.pop()]):
            if name.name not in names:
                names[name.name] = None
                todo.append(name.name)
    return list(names)


def _needs(item: Item) -> Needs:
    if isinstance(item, Name):
        return item.name
    if isinstance(item, Choice):
        return One([All([_needs(part) for part in option]) for option in item.options])
    if isinstance(item, Repeat):
        return _needs(item.item) if item.least else NOTHING
    return NOTHING


def _check_beginnings(rules: Mapping[str, Choice]) -> None:
    """Refuses a rule that begins with itself, also behind others, which llama.cpp does not take."""
    empty: set[str] = set()
    order, _ = in_order({name: [each.name for each in _names(choice)] for name, choice in rules.items()})
    changed = True
    while changed:
        before = len(empty)
        empty.update(name for name in order if _may_be_empty(rules[name], empty))
        changed = len(empty) > before
    _, cyclic = in_order({name: list(_beginnings(choice, empty)) for name, choice in rules.items()})
    if cyclic is not None:
        raise CannotFollow(f"the rule {quoted(cyclic)} begins with itself (left recursion): let it end with itself")


def _may_be_empty(item: Item, empty: set[str]) -> bool:
    if isinstance(item, Name):
        return item.name in empty
    if isinstance(item, Choice):
        return any(all(_may_be_empty(part, empty) for part in option) for option in item.options)
    if isinstance(item, Repeat):
        return not item.least or _may_be_empty(item.item, empty)
    return item == EMPTY


def _beginnings(item: Item, empty: set[str]) -> Iterator[str]:
    """The rules that may be the first to match something."""
    if isinstance(item, Name):
        yield item.name
    elif isinstance(item, Repeat):
        yield from _beginnings(item.item, empty)
    elif isinstance(item, Choice):
        for option in item.options:
            for part in option:
                yield from _beginnings(part, empty)
                if not _may_be_empty(part, empty):
                    break


def _expression(rules: Mapping[str, Choice], order: Sequence[str]) -> str | None:
    """The root as a regular expression, None where it becomes too long or too deep. `order`: the rules, each behind
    those that it names."""
    expressions: dict[str, str] = {}
    depths: dict[str, int] = {}
    for name in order:
        length = sum(len(expressions[each.name]) for each in _names(rules[name]))
        depths[name] = _depth(rules[name], depths)
        if length > LONGEST or depths[name] > DEEPEST:
            return None
        expressions[name] = _spelling(rules[name], _Expression(expressions))
    return expressions[ROOT] if len(expressions[ROOT]) <= LONGEST else None


def _depth(item: Item, depths: Mapping[str, int]) -> int:
    if isinstance(item, Name):
        return depths[item.name]
    if isinstance(item, Repeat):
        return 1 + _depth(item.item, depths)
    if isinstance(item, Choice):
        return 1 + max((_depth(part, depths) for option in item.options for part in option), default=0)
    return 0


class _Expression:
    """How a regular expression is written. `rules`: an expression for each."""

    group, between, nothing = "(?:{})", "", ""

    def __init__(self, rules: Mapping[str, str]) -> None:
        self.rules = rules

    def chars(self, chars: Sequence[str]) -> str:
        return "".join(chars)


class _Rules(_Expression):
    """How a rule is written. `rules`: the names that they have there."""

    group, between, nothing = "({})", " ", '""'

    def chars(self, chars: Sequence[str]) -> str:
        return " ".join(f"/{char}/" for char in chars)


def _spelling(item: Item, language: _Expression) -> str:
    if isinstance(item, Name):
        return language.rules[item.name]
    if isinstance(item, Text):
        spelling = language.chars([*map(_code, map(ord, item.text))]) or language.nothing
        return language.group.format(spelling)
    if isinstance(item, Chars):
        return language.chars([_class(item)])
    if isinstance(item, Repeat):
        return language.group.format(language.group.format(_spelling(item.item, language)) + _times(item))
    options = [
        language.between.join(_spelling(part, language) for part in option) or language.nothing
        for option in item.options
    ]
    return language.group.format("|".join(options))


def _times(item: Repeat) -> str:
    if (item.least, item.most) == (0, 1):
        return "?"
    if item.most is None:
        return {0: "*", 1: "+"}.get(item.least, f"{{{item.least},}}")
    return f"{{{item.least},{item.most}}}"


def _class(item: Chars) -> str:
    (low, high), *rest = item.ranges
    if low == high and not rest:
        return _code(low)
    parts = [_code(low) if low == high else f"{_code(low)}-{_code(high)}" for low, high in item.ranges]
    return f"[{''.join(parts)}]"


def _code(code: int) -> str:
    char = chr(code)
    return char if char.isascii() and char.isalnum() else f"\\u{{{code:x}}}"


def literal(text: str) -> str:
    """A regular expression that only this text matches."""
    return "".join(_code(ord(char)) for char in text)
