"""What one rendering of a chat template may use: time, size of values, text.

Owns: the budget of a rendering, how the size of a value is counted, and which values have a text.
Refuses to know: which operations there are (`template_checks`), and where a template calls them (`template_sandbox`).
Specs: TEXT-21 to TEXT-24. Next: `ferrum.text.template_checks`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import NoneType
from typing import Any, NoReturn

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined

from ferrum.text.template_data import ELEMENT

BETWEEN_LOOKS = 64  # steps between two readings of the clock, each of which costs as much as several steps
HELD_FROM = 256  # smaller values are not remembered
VIEWS: tuple[type[Collection[Any]], ...] = (type({}.keys()), type({}.items()), type({}.values()))
_NUMBERS = frozenset((int, bool, float, NoneType))
_SIMPLE = (str, int, float, complex, NoneType, range, Undefined)
"""Types of values without members that have a text of their own."""


@dataclass(frozen=True)
class Limits:
    """A prompt for a million tokens has about four million characters."""

    rendering: float = 0.5  # seconds of this thread's processor time, so that a busy machine refuses no template
    rendering_each: float = 6e-6  # seconds for each character of the variables, if that makes more
    rendering_most: float = 10.0  # seconds, however large the variables are
    size: int = 4 << 20  # of one value, as `Budget.measure` counts
    written: int = 16 << 20  # characters, text that a macro or a variable catches included
    held: int = 32 << 20  # size of all values of at least HELD_FROM that exist at one time
    depth: int = 100  # of containers in containers: C code that walks them would overflow its stack
    bits: int = 8192  # of an integer; Python prints no more than 4300 digits either


LIMITS = Limits()
clock: Callable[[], float] = time.thread_time


class LimitExceeded(SecurityError):
    """The template asks for more than it may have."""


class Budget:
    """Counts what one rendering uses. `input_size` returns the size of the variables; it is called when a limit is
    reached that suffices for nearly all conversations. Then a value may be twice as large as the variables, and there
    is more time: the time of some honest templates grows with the square of a conversation."""

    def __init__(self, input_size: Callable[[], int] | None = None) -> None:
        self.limits = LIMITS
        self._input_size = input_size
        self._seconds = LIMITS.rendering
        self._deadline = clock() + self._seconds
        self._largest = LIMITS.size
        self._before_look = BETWEEN_LOOKS
        self._written = 0
        self._large: list[tuple[Any, int]] = []  # values made by the template, with their sizes
        self._large_size = 0

    def step(self, size: int = 0) -> None:
        """Called before each operation that a template can repeat; `size` is that of its operands."""
        self._before_look -= 1 + size // ELEMENT
        if self._before_look < 0:
            self._before_look = BETWEEN_LOOKS
            if clock() > self._deadline:
                self._widen()
                if clock() > self._deadline:
                    refuse(f"it takes more than {self._seconds:.1f} seconds")

    def write(self, size: int) -> None:
        """Counts text that is written."""
        self._written += size
        if self._written > self.limits.written:
            refuse(f"it writes more than {self.limits.written} characters")
        self._before_look -= 1 + size // ELEMENT  # a step, without another call
        if self._before_look < 0:
            self.step()

    def require(self, size: int) -> None:
        """Refuses a value of this size."""
        if size > self._largest:
            self._widen()
            if size > self._largest:
                refuse(f"it makes a value larger than {self._largest} characters")

    def _widen(self) -> None:
        if self._input_size is not None:
            size, self._input_size = self._input_size(), None
            self._largest = max(self._largest, 2 * size)
            extra = min(size * self.limits.rendering_each, self.limits.rendering_most) - self._seconds
            if extra > 0:
                self._seconds += extra
                self._deadline += extra

    def weigh(self, value: Any, as_text: bool = False) -> int:
        """The size of an operand with all its members. Refuses one that is too large, and with `as_text` one that has
        no text."""
        kind = type(value)
        if kind is str:
            size = len(value)
        else:
            size = self._size_of_one(value) if kind in _NUMBERS else self.measure(value, as_text)[0]
        if size > self._largest:
            self.require(size)
        self.step(size)
        return size

    def measure(self, value: Any, as_text: bool = False) -> tuple[int, int]:
        """Size and depth of a value. A member that is contained several times counts several times, since it is
        written and compared several times."""
        size, depth, level = 0, 0, [value]
        while level:
            members: list[Any] = []
            for item in level:
                if isinstance(item, str):
                    size += len(item)
                    continue
                if type(item) in _NUMBERS:
                    size += self._size_of_one(item)
                    continue
                size += ELEMENT
                inner = None if as_text and isinstance(item, Items) else members_of(item)
                if inner is not None:
                    self.require(size + ELEMENT * (len(members) + len(inner)))
                    members += inner
                elif as_text and not isinstance(item, _SIMPLE):
                    refuse(f"it turns {_described(item)} into text, which has none")
            level = members
            if level:
                size += ELEMENT * len(level)
                depth += 1
                if depth > self.limits.depth:
                    refuse(f"it nests containers more than {self.limits.depth} deep")
        return size, depth

    def _size_of_one(self, value: Any) -> int:
        if isinstance(value, int) and value.bit_length() > self.limits.bits:
            refuse(f"it computes an integer of more than {self.limits.bits} bits")
        return ELEMENT

    def charge(self, value: Any) -> Any:
        """Counts a value that an operation has made, without the members of its members. Returns the value."""
        if isinstance(value, str):
            size = len(value)
        elif isinstance(value, (list, tuple, Items)):
            items = value._items if isinstance(value, Items) else value
            size = ELEMENT * len(items) + sum(len(item) for item in items if isinstance(item, str))
        elif isinstance(value, dict):
            size = 2 * ELEMENT * len(value)
        else:
            size = self._size_of_one(value)
        if size >= HELD_FROM:
            self.require(size)
            self._hold(value, size)
        self.step(size)
        return value

    def _hold(self, value: Any, size: int) -> None:
        self._large.append((value, size))
        self._large_size += size
        if self._large_size > self.limits.held:
            self.step(ELEMENT * len(self._large))
            # a value that only the tuple here and the argument of the call refer to is garbage
            self._large = [entry for entry in self._large if sys.getrefcount(entry[0]) > 2]
            self._large_size = sum(size for _, size in self._large)
            if self._large_size > self.limits.held:
                refuse(f"it holds values of more than {self.limits.held} characters")


class Items:
    """The iterator that a filter returns, with its items computed already. An iterator that computes its items from
    another one, and so on, would overflow the stack."""

    __slots__ = ("_items", "_iterator")  # the sandbox hides names that start with an underscore from templates

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = []
        for item in items:
            budget().step()
            self._items.append(item)
        self._iterator = iter(self._items)

    def __iter__(self) -> Iterator[Any]:
        return self._iterator

    def __next__(self) -> Any:
        return next(self._iterator)


Items.__name__ = "generator"  # as Python's errors call what it stands for


def members_of(value: Any) -> Collection[Any] | None:
    """The members that are written with a container; None for a value that is none."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, dict):
        return (*value, *value.values())
    if isinstance(value, Items):
        return value._items
    return tuple(value) if isinstance(value, VIEWS) else None


_current: ContextVar[Budget] = ContextVar("budget")
budget = _current.get  # the budget of the rendering that runs


class limited:  # a class, since `contextmanager` would take longer than a short rendering
    """Within it, `budget()` is a fresh one. `input_size`: see `Budget`."""

    def __init__(self, input_size: Callable[[], int] | None = None) -> None:
        self._budget = Budget(input_size)

    def __enter__(self) -> None:
        self._token = _current.set(self._budget)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def refuse(reason: str) -> NoReturn:
    """Ends the rendering with a sentence that continues "the chat template failed: "."""
    raise LimitExceeded(reason)


def _described(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
