"""What one compilation or rendering of a chat template may use: time, size of values, text.

Owns: the budget, how large a value is, and the sentences that refuse more. Refuses to know: which operations there
are (`template_growth`), and where a template calls them (`template_environment`).
Specs: TEXT-21, TEXT-22, TEXT-24. Next: `ferrum.text.template_growth`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set, ValuesView
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain
from types import GeneratorType
from typing import Any, Literal, NoReturn

from jinja2.exceptions import SecurityError

from ferrum.text.template_data import ELEMENT

SMALL = 256  # smaller containers are counted whenever they are met; larger ones are remembered
SMALL_TEXT = 1024  # smaller texts are not remembered; only containers, which are counted, could hold many
SINGLE = frozenset((bool, float, type(None)))  # types of values without parts that always have the same size
BETWEEN_LOOKS = 256  # steps between two readings of the clock, each of which costs as much as several steps


@dataclass(frozen=True)
class Limits:
    """A prompt for a million tokens has about four million characters."""

    rendering: float = 0.5  # seconds of this thread's processor time, so that a busy machine refuses nobody
    rendering_each: float = 6e-6  # seconds for each character of what is given to a template, if that makes more
    rendering_most: float = 10.0  # seconds, whatever is given
    compiling: float = 1.0  # several times what the longest templates in use need
    size: int = 4 << 20  # of one value, as `Budget.measure` counts
    written: int = 16 << 20  # characters, those that only a macro or a variable catches included
    held: int = 32 << 20  # of all large values that a template holds at one time
    depth: int = 100  # of containers in containers: C code that walks them would overflow its stack
    bits: int = 8192  # of an integer; Python prints no more than 4300 digits either


LIMITS = Limits()
clock: Callable[[], float] = time.thread_time


class LimitExceeded(SecurityError):
    """The template asks for more than it may have."""


class Budget:
    """What is left to one compilation or rendering, which may take `seconds`. `given` tells the size of what a template
    is given, and is asked when a limit is reached that is wide enough for nearly all: values may be twice as large as
    that, and there is more time, for there are honest templates whose time grows with the square of a conversation."""

    def __init__(self, seconds: float, given: Callable[[], int] | None = None) -> None:
        self.limits = LIMITS
        self._largest = LIMITS.size
        self._seconds = seconds
        self._given = given
        self._deadline = clock() + seconds
        self._before_look = BETWEEN_LOOKS
        self._written = 0
        self._held = 0
        self._patience = min(self.limits.size, self.limits.held)
        self._known: dict[int, tuple[Any, int, int]] = {}  # by identity: a large value, its size and depth

    def step(self, size: int = 0) -> None:
        """Called before whatever a template can repeat; `size` is that of what the step works on."""
        self._before_look -= 1 + size // ELEMENT
        if self._before_look < 0:
            self._look()

    def _look(self) -> None:
        self._before_look = BETWEEN_LOOKS
        if clock() > self._deadline:
            self._widen()
            if clock() > self._deadline:
                refuse(f"it takes more than {self._seconds:.1f} seconds")

    def _widen(self) -> None:
        if self._given is not None:
            size, self._given = self._given(), None
            self._largest = max(self._largest, 2 * size)
            more = min(size * self.limits.rendering_each, self.limits.rendering_most) - self._seconds
            if more > 0:
                self._seconds += more
                self._deadline += more

    def write(self, size: int) -> None:
        """Pays for text that is added to what is written so far."""
        self._written += size
        if self._written > self.limits.written:
            refuse(f"it writes more than {self.limits.written} characters")
        self._before_look -= 1 + size // ELEMENT  # a step, without the cost of another call
        if self._before_look < 0:
            self._look()

    def require(self, size: int) -> None:
        """Refuses an operation whose result would have this size, before it runs."""
        if size > self._largest:
            self._widen()
            if size > self._largest:
                refuse(f"it makes a value larger than {self._largest} characters")

    def weigh(self, value: object) -> int:
        """The size of what goes into an operation; refuses it where it is too large."""
        kind = type(value)
        if kind in SINGLE:
            self._before_look -= 1
            return ELEMENT
        size = len(value) if kind is str else self.measure(value)[0]  # type: ignore[arg-type]  # looked at
        if size > self._largest:
            self.require(size)
        self.step(size)
        return size

    def made(self, value: Any, known: tuple[int, int] | None = None, sources: Iterable[Any] = ()) -> Any:
        """`value`, made by an operation from `sources`. `known` is its size and depth where that is cheaper than to
        count."""
        if isinstance(value, str):
            size, depth = len(value), 0
            if size < SMALL_TEXT:  # as are nearly all values of ordinary templates
                self._before_look -= 1
                if size > self._largest:
                    self.require(size)
                return value
        elif isinstance(value, GeneratorType):
            return Lazy(self, value, self._below(sources))
        else:
            size, depth = known or self.measure(value)
        self.require(size)
        self.step(size)
        if size >= SMALL:
            self._hold(value, size, depth)
        return value

    def measure(self, value: Any, above: int = 0) -> tuple[int, int]:
        """Size and depth of a value. What is contained several times counts several times, since it is printed so;
        counting ends where the value is too large."""
        if isinstance(value, (str, bytes)):
            return len(value), 0
        known = self._known.get(id(value))
        if known is None:
            members = members_of(value)
            if members is None:
                depth = value._depth if isinstance(value, Lazy) else 0
                self._require_depth(above + depth)
                return (self._size_of_integer(value) if isinstance(value, int) else ELEMENT), depth
            known = (value, *self._count(members, above))
            if known[1] >= SMALL:
                self._hold(*known)
        self._require_depth(above + known[2])
        return known[1], known[2]

    def _count(self, members: Iterable[Any], above: int) -> tuple[int, int]:
        self._require_depth(above + 1)
        size, deepest = ELEMENT, 0
        for member in members:
            kind = type(member)
            if kind is str:
                size += ELEMENT + len(member)
            elif kind in SINGLE:
                size += 2 * ELEMENT
            else:
                inner, depth = self.measure(member, above + 1)
                size += ELEMENT + inner
                deepest = max(deepest, depth)
            if size > self._largest:
                self.require(size)
        return size, deepest + 1

    def _require_depth(self, depth: int) -> None:
        if depth > self.limits.depth:
            refuse(f"it nests containers more than {self.limits.depth} deep")

    def _below(self, sources: Iterable[Any]) -> int:
        """The depth of what takes its items from `sources`."""
        depth = 1 + max((self.measure(source)[1] for source in sources), default=0)
        self._require_depth(depth)
        return depth

    def _size_of_integer(self, value: int) -> int:
        bits = value.bit_length()
        if bits > self.limits.bits:
            refuse(f"it computes an integer of more than {self.limits.bits} bits")
        return bits // 3  # about its digits

    def _hold(self, value: Any, size: int, depth: int) -> None:
        """Remembers a large value. The reference kept here keeps its identity from being used again."""
        if id(value) in self._known:
            return
        self._known[id(value)] = (value, size, depth)
        self._held += size
        if self._held > self._patience:
            self._forget()
            # twice what is really held, so that each value is looked at a few times only
            self._patience = min(max(self._largest, 2 * self._held), self.limits.held)
            if self._held > self.limits.held:
                refuse(f"it holds values of more than {self.limits.held} characters")

    def _forget(self) -> None:
        """Forgets the values that nobody else refers to."""
        self._before_look -= len(self._known)
        kept = {}
        for value, size, depth in self._known.values():
            if sys.getrefcount(value) > 3:  # more than the entry, the name `value` and the argument
                kept[id(value)] = (value, size, depth)
        self._known = kept
        self._held = sum(size for _, size, _ in kept.values())


class Lazy:
    """Items that a filter computes when they are asked for. They weigh nothing, but where they are computed from items
    that are lazy as well, each of these takes its part of the stack: when it is asked, and when it is thrown away."""

    __slots__ = ("_depth", "_items")  # the sandbox hides names that start with an underscore from templates

    def __init__(self, budget: Budget, items: Iterator[Any], depth: int) -> None:
        self._items = self._watched(budget, items)
        self._depth = depth

    @staticmethod
    def _watched(budget: Budget, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            budget.step()
            yield item

    def __iter__(self) -> Iterator[Any]:
        return self._items

    def __next__(self) -> Any:
        return next(self._items)


Lazy.__name__ = "generator"  # as errors call what it stands for


_current: ContextVar[Budget] = ContextVar("budget")
budget = _current.get  # what is left to the compilation or rendering that runs


class limited:  # used as a function; one made by `contextmanager` takes longer than a short rendering
    """Within it, `budget()` is a fresh one. `given`: see `Budget`."""

    def __init__(self, what: Literal["compiling", "rendering"], given: Callable[[], int] | None = None) -> None:
        self._budget = Budget(getattr(LIMITS, what), given)

    def __enter__(self) -> None:
        self._token = _current.set(self._budget)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def refuse(reason: str) -> NoReturn:
    raise LimitExceeded(reason)


def members_of(value: Any) -> Iterable[Any] | None:
    """What is printed with a value; None where it has no parts. A range prints as two numbers."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, dict):
        return chain(value, value.values())
    if value is None or isinstance(value, (int, float, range)):
        return None
    if isinstance(value, Mapping):
        return chain(value.keys(), value.values())
    return value if isinstance(value, (Set, Sequence, ValuesView)) else None
