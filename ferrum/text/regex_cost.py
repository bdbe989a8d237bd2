"""How long a regular expression of a tokenizer can take, as a power of the length of the text.

The library tries one way after another (backtracking): `(a+)+b` takes a time that doubles with each "a" of a text
without a "b", and `a*b` takes the square of its length. Whoever writes the text decides, and nothing can stop the
library while it matches.

Owns: the bound. It is coarse: what might take long counts as taking long, except where a branch that fails is followed
by one that takes what the first has looked at, as in the expressions that models use. Refuses to know: the notation
(`regex_parts`), the text.
Specs: TEXT-44. Next: `ferrum.text.regex_parts`.
"""

from __future__ import annotations

import math
from functools import lru_cache

from ferrum.errors import TokenizerError, quoted
from ferrum.text.regex_parts import Atom, Atomic, Choice, Look, NotUnderstood, Part, Repeat, Sequence, parts_of

_MANY = 16  # a repetition that is counted further than this is treated as one without end
_MOST_WAYS = 4096  # to match what has no repetition without end
_NEVER = 1 << 10  # the degree of what takes exponential time
_LONGEST_UNROLLED = 100_000  # atoms, once the library has written out counted repetitions
_STEPS = 3e8  # of the library, each of which takes some ten nanoseconds


@lru_cache(maxsize=256)
def longest_text(expression: str) -> float:
    """How many characters a text may have so that the expression takes some seconds at most; infinity where its time
    grows as the text does. Raises `TokenizerError` for one that no text is short enough for."""
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
    if all(_is_linear(branches[index:]) for index in range(len(branches))):
        return math.inf
    return math.pow(_STEPS / ways, 1 / (degree + 1))


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
            return _cost(inner, True)
        case Look(_, inner):
            return (1, 0) if inner is None else _cost(inner, True)
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
    """Can the part match in more than one way at one place?"""
    match part:
        case Repeat(inner, least, most):
            return least != most or _has_choice(inner)
        case Choice():
            return True
        case Sequence(parts):
            return any(map(_has_choice, parts))
        case Atomic(inner):
            return _has_choice(inner)
    return isinstance(part, Look) and part.inner is not None


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
    r"""Is it `\s+(?!\S)`, white space up to the last before a word?"""
    return (
        isinstance(branch, Sequence)
        and kind.source == r"\s"
        and branch.parts == (Repeat(kind, 1, None), Look(r"(?!\S)", Atom(r"\S")))
    )


def _takes_all(branch: Part, kind: Atom) -> bool:
    """Does the branch take all neighbours of one kind, however it goes on?"""
    parts = branch.parts if isinstance(branch, Sequence) else (branch,)
    for index, part in enumerate(parts):
        if part == Repeat(kind, 1, None):
            return not any(map(_may_fail, parts[index + 1 :]))
        if _may_fail(part):
            return False
    return False
