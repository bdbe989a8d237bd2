"""The running time of a tokenizer's regular expression, as a power of the length of the text.

The library tries one way after another (backtracking): `(a+)+b` takes a time that doubles with each "a" of a text
without a "b", and `a*b` takes the square of the number of neighbouring "a". The author of a prompt chooses the text,
and the library cannot be interrupted while it matches.

Owns: the bound. It is coarse: an expression that may be slow counts as slow. The one exception: the branch after a slow
one matches all characters that the slow one has read in vain, as in the expressions of models. Refuses to know: the
notation (`regex_parts`), the steps that change a text before (`tokenizer_steps`).
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

_MANY = 16  # a repetition with a larger upper limit is treated as unlimited
_MOST_WAYS = 4096  # ways to match the parts that have no unlimited repetition
_LINE_ENDS = {r"\r", r"\n", r"\t"}
_NEVER = 1 << 10  # stands for exponential time
_LONGEST_UNROLLED = 100_000  # atoms after the library has written out counted repetitions
_STEPS = 3e8  # steps of the library, about ten nanoseconds each: a few seconds


@dataclass(frozen=True)
class Cost:
    """The bound for one expression: at most `ways` · R ** `degree` attempts at each place of a text, where R is the
    longest run of characters that the expression can repeat. Degree 0: the time for a text is proportional to its
    length."""

    expression: str
    ways: int
    degree: int
    repeated: tuple[str, ...]  # expressions for one character; each character of a run matches one of them

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
        unrepeated = ask(TokenizerError, tokenizers.normalizers.Replace(kinds, "").normalize_str, characters)
        repeatable = set(characters).difference(unrepeated)
        runs = re.finditer(f"[{re.escape(''.join(sorted(repeatable)))}]+", text) if repeatable else ()
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
    """The atoms that the expression repeats without limit, as it writes them."""
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
            for element in inner:
                yield from _repeated(element, is_repeated)


def _cost(part: Part, is_last: bool) -> tuple[int, int]:
    """The ways and the degree of a part (see `Cost`). `is_last`: no part after it can fail, so that the library never
    comes back for another match of it."""
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
            ways, degree = _cost(inner, True)  # matched in one way, but read again from each place
            return ways, degree if is_last else max(degree, _looks_far(inner))
        case Look(_, inner):
            if inner is None:
                return 1, 0
            ways, degree = _cost(inner, True)  # consumes no characters: the part after it reads them again
            return ways, max(degree, _looks_far(inner))
        case Choice(branches):
            costs = [_cost(branch, is_last) for branch in branches]
            ways = max(ways for ways, _ in costs) * (1 if is_last else len(branches))
            return min(ways, _MOST_WAYS + 1), max(degree for _, degree in costs)
        case Sequence(parts):
            ways, degree = 1, 0
            for inner in reversed(parts):
                inner_ways, inner_degree = _cost(inner, is_last)
                ways, degree = min(ways * inner_ways, _MOST_WAYS + 1), degree + inner_degree
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
            pairs = zip(parts, (*parts[1:], None), strict=True)
            return any(_has_choice(inner) and not _is_decided(inner, following) for inner, following in pairs)
        case Atomic(inner):
            return _has_choice(inner)
    return isinstance(part, Look) and part.inner is not None


def _is_decided(part: Part, following: Part | None) -> bool:
    r"""True for an optional character that differs from the character after it, as in `\r?\n`: one way to match."""
    inner = part.inner if isinstance(part, Repeat) else part
    sources = {atom.source for atom in (inner, following) if isinstance(atom, Atom)}
    return isinstance(part, Repeat) and part.most == 1 and len(sources) == 2 and sources <= _LINE_ENDS


def _looks_far(part: Part) -> int:
    """1 if the part has a repetition without limit, else 0."""
    return int(next(_repeated(part, False), None) is not None)


def _may_fail(part: Part) -> bool:
    """False if the part matches at every place of every text, if only the empty text."""
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
    """Number of atoms once counted repetitions are written out."""
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
    """True if the first branch, or a later one when the first fails, matches all characters that the first has read.
    Then the search goes on behind them, and they are not read again from each place before."""
    first, *later = branches
    _, degree = _cost(first, True)
    if degree == 0:
        return True
    if degree > 1 or not later:
        return False
    kind = _repeated_atom(first)
    if kind is None:
        return False
    if _is_all_but_one(later[0], kind):
        later = later[1:]
    return bool(later) and _takes_all(later[0], kind)


def _repeated_atom(branch: Part) -> Atom | None:
    """The atom whose repetition makes a branch slow. None if something else than an atom follows the repetition."""
    parts = branch.parts if isinstance(branch, Sequence) else (branch,)
    for index, part in enumerate(parts):
        if isinstance(part, Repeat) and isinstance(part.inner, Atom) and part.most is None:
            following = [after.inner if isinstance(after, Repeat) else after for after in parts[index + 1 : index + 2]]
            is_plain = all(isinstance(after, Atom) for after in following)
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
    """True if the branch matches a whole run of one kind of character, and no part after the run can fail."""
    parts = branch.parts if isinstance(branch, Sequence) else (branch,)
    for index, part in enumerate(parts):
        if part == Repeat(kind, 1, None):
            return not any(map(_may_fail, parts[index + 1 :]))
        if _may_fail(part):
            return False
    return False
