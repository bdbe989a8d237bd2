"""The running time of a tokenizer's regular expression, as a power of the length of the text.

The library tries one way after another (backtracking): `(a+)+b` takes a time that doubles with each "a" of a text
without a "b", and `a*b` takes the square of the number of neighbouring "a". The author of a prompt chooses the text,
and the library cannot be interrupted while it matches.

Owns: the bound. It is coarse: what might take long counts as taking long, except where a branch that fails is followed
by one that takes what the first has looked at, as in the expressions that models use. Refuses to know: the notation
(`regex_parts`), what a text is before (`tokenizer_steps`).
Specs: TEXT-44. Next: `ferrum.text.regex_parts`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import tokenizers

from ferrum.errors import TokenizerError, quoted
from ferrum.text.native import ask
from ferrum.text.regex_parts import Atom, Atomic, Choice, Look, NotUnderstood, Part, Repeat, Sequence, parts_of

_MANY = 16  # a repetition that is counted further than this is treated as one without end
_MOST_WAYS = 4096  # to match what has no repetition without end
_LINE_ENDS = {r"\r", r"\n", r"\t"}
_NEVER = 1 << 10  # the degree of what takes exponential time
_LONGEST_UNROLLED = 100_000  # atoms, once the library has written out counted repetitions
_STEPS = 3e8  # of the library, each of which takes some ten nanoseconds


@dataclass(frozen=True)
class Cost:
    """At each place of a text, an expression is tried in up to `ways` times R to the power of `degree` ways, where R is
    the longest run of characters that it can repeat: those that one of `repeated` matches. Degree 0: the places
    together take a time that grows as the text does."""

    expression: str
    ways: int
    degree: int
    repeated: tuple[str, ...]

    @property
    def longest(self) -> float:
        """Characters of a text for which the expression takes some seconds at most, whatever the text is."""
        return math.inf if self.degree == 0 else math.pow(_STEPS / self.ways, 1 / (self.degree + 1))

    def allows(self, text: str) -> bool:
        """True if the expression takes some seconds at most for the text."""
        if len(text) <= self.longest:
            return True
        return self.ways * len(text) * math.pow(self._longest_run(text), self.degree) <= _STEPS

    def _longest_run(self, text: str) -> int:
        characters = "".join(sorted(set(text)))
        kinds = tokenizers.Regex("|".join(f"(?i:{source})" for source in self.repeated))
        others = ask(TokenizerError, tokenizers.normalizers.Replace(kinds, "").normalize_str, characters)
        met = set(characters).difference(others)
        runs = re.finditer(f"[{re.escape(''.join(sorted(met)))}]+", text) if met else ()
        return max((run.end() - run.start() for run in runs), default=0)


@lru_cache(maxsize=256)
def cost_of(expression: str) -> Cost:
    """The cost of an expression. Raises `TokenizerError` if its running time has no polynomial bound."""
    try:
        whole = parts_of(expression)
    except NotUnderstood as error:
        raise TokenizerError(
            f"the tokenizer's regular expression {quoted(expression)} is not supported: {error}"
        ) from None
    ways, degree = _cost(whole, True)
    if ways > _MOST_WAYS or degree >= _NEVER or _unrolled(whole) > _LONGEST_UNROLLED:
        raise TokenizerError(
            f"the tokenizer's regular expression {quoted(expression)} is not supported: it can take time without end"
        )
    branches = whole.branches if isinstance(whole, Choice) else (whole,)
    slow = [branch for index, branch in enumerate(branches) if not _is_linear(branches[index:])]
    repeated = (source for branch in slow for source in _repeated(branch, False))
    return Cost(expression, ways, degree if slow else 0, tuple(dict.fromkeys(repeated)))


def _repeated(part: Part, is_repeated: bool) -> Iterator[str]:
    """How the expression writes the characters that it repeats without end."""
    match part:
        case Atom(source):
            if is_repeated:
                yield source
        case Repeat(inner, _, most):
            yield from _repeated(inner, is_repeated or most is None or most > _MANY)
        case Atomic(inner):
            yield from _repeated(inner, is_repeated)
        case Look(_, inner) if inner is not None:
            yield from _repeated(inner, is_repeated)
        case Choice(inner) | Sequence(inner):
            for one in inner:
                yield from _repeated(one, is_repeated)


def _cost(part: Part, is_last: bool) -> tuple[int, int]:
    """In how many ways the part may be tried, and how many repetitions without end multiply them, each by the length
    of the text. `is_last`: nothing that could fail comes after it, so that its first match is its last."""
    match part:
        case Repeat(inner, _, most) if isinstance(inner, Atom) or not _has_choice(inner):
            if is_last or most == 1:
                return (1 if is_last else 2), 0
            return (most + 1, 0) if most is not None and most <= _MANY else (1, 1)
        case Repeat(inner, least, most):
            ways, degree = _cost(inner, is_last)
            if most == 1:
                return (ways if is_last else ways + 1), degree
            return (ways, degree) if is_last and least <= 1 else (ways, _NEVER)
        case Atomic(inner):
            ways, degree = _cost(inner, True)  # is tried once, but may be looked at from each place
            return ways, degree if is_last else max(degree, _looks_far(inner))
        case Look(_, inner):
            if inner is None:
                return 1, 0
            ways, degree = _cost(inner, True)  # leaves what it has looked at to be looked at again
            return ways, max(degree, _looks_far(inner))
        case Choice(branches):
            costs = [_cost(branch, is_last) for branch in branches]
            ways = max(ways for ways, _ in costs) * (1 if is_last else len(branches))
            return min(ways, _MOST_WAYS + 1), max(degree for _, degree in costs)
        case Sequence(parts):
            ways, degree = 1, 0
            for inner in reversed(parts):
                its_ways, its_degree = _cost(inner, is_last)
                ways, degree = min(ways * its_ways, _MOST_WAYS + 1), degree + its_degree
                is_last = is_last and not _may_fail(inner)
            return ways, degree
    return 1, 0


def _has_choice(part: Part) -> bool:
    """True if the part can match in more than one way at one place."""
    match part:
        case Repeat(inner, least, most):
            return least != most or _has_choice(inner)
        case Choice():
            return True
        case Sequence(parts):
            after = (*parts[1:], None)
            return any(_has_choice(one) and not _is_seen(one, then) for one, then in zip(parts, after, strict=True))
        case Atomic(inner):
            return _has_choice(inner)
    return isinstance(part, Look) and part.inner is not None


def _is_seen(part: Part, after: Part | None) -> bool:
    """True if the character that must follow decides whether an optional character matches, as in a line end."""
    sources = {one.source for one in (part.inner if isinstance(part, Repeat) else part, after) if isinstance(one, Atom)}
    return isinstance(part, Repeat) and part.most == 1 and len(sources) == 2 and sources <= _LINE_ENDS


def _looks_far(part: Part) -> int:
    """1 where the part has a repetition without end."""
    return int(next(_repeated(part, False), None) is not None)


def _may_fail(part: Part) -> bool:
    match part:
        case Repeat(inner, least, _):
            return least > 0 and _may_fail(inner)
        case Choice(branches):
            return all(map(_may_fail, branches))
        case Sequence(parts):
            return any(map(_may_fail, parts))
        case Atomic(inner):
            return _may_fail(inner)
    return True


def _unrolled(part: Part) -> int:
    match part:
        case Repeat(inner, least, most):
            return _unrolled(inner) * max(1, least, most or 0)
        case Choice(inner) | Sequence(inner):
            return sum(map(_unrolled, inner))
        case Atomic(inner):
            return _unrolled(inner)
        case Look(_, inner) if inner is not None:
            return _unrolled(inner)
    return 1


def _is_linear(branches: tuple[Part, ...]) -> bool:
    """Is what the first of the branches looks at in vain taken by itself or by the one after it? Then no character is
    looked at again from each of the places before it."""
    first, *others = branches
    _, degree = _cost(first, True)
    if degree == 0:
        return True
    if degree > 1 or not others:
        return False
    kind = _repeated_atom(first)
    if kind is None:
        return False
    if _is_all_but_one(others[0], kind):
        others = others[1:]
    return bool(others) and _takes_all(others[0], kind)


def _repeated_atom(branch: Part) -> Atom | None:
    """What the one repetition is of that makes a branch slow. None where other things than atoms follow it."""
    parts = branch.parts if isinstance(branch, Sequence) else (branch,)
    for index, part in enumerate(parts):
        if isinstance(part, Repeat) and isinstance(part.inner, Atom) and part.most is None:
            rest = parts[index + 1 :]
            is_plain = all(isinstance(other.inner if isinstance(other, Repeat) else other, Atom) for other in rest[:1])
            return part.inner if is_plain or _is_all_but_one(branch, part.inner) else None
    return None


def _is_all_but_one(branch: Part, kind: Atom) -> bool:
    r"""True for `\s+(?!\S)`: white space without its last character before a word."""
    return (
        isinstance(branch, Sequence)
        and kind.source == r"\s"
        and branch.parts == (Repeat(kind, 1, None), Look(r"(?!\S)", Atom(r"\S")))
    )


def _takes_all(branch: Part, kind: Atom) -> bool:
    """True if the branch matches all neighbours of one kind, whatever follows."""
    parts = branch.parts if isinstance(branch, Sequence) else (branch,)
    for index, part in enumerate(parts):
        if part == Repeat(kind, 1, None):
            return not any(map(_may_fail, parts[index + 1 :]))
        if _may_fail(part):
            return False
    return False
