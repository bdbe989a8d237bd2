"""Targets with a fault each, for the tests of the runner.

Owns: every way in which code can fail that the fuzzers look for. Case 3 of each fails and the others do not.
Refuses to know: the runner.
Next: `tests.fuzz.target`.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from random import Random

from ferrum.errors import InternalError, InvalidFormat
from tests.fuzz.target import Target, Wrong

FAILS = 3


class Faulty(Target):
    """Accepts even numbers and refuses odd ones, but has a fault at one number."""

    def make(self, random: Random) -> int:
        return random.randrange(10)

    def run(self, case: int) -> None:
        if case == FAILS:
            self.fail()
        if case % 2:
            raise InvalidFormat("odd")

    def fail(self) -> None:
        """The fault. This class has none."""


class Dies(Faulty):
    def fail(self) -> None:
        ctypes.string_at(0)


class Hangs(Faulty):
    def fail(self) -> None:
        time.sleep(1000)


class Eats(Faulty):
    def fail(self) -> None:
        bytearray(4 << 30)


class Raises(Faulty):
    def fail(self) -> None:
        raise KeyError("bare")


class Defects(Faulty):
    def fail(self) -> None:
        raise InternalError("a bare error inside a wrapped one")


class Panic(BaseException):
    """An error like those of native libraries, which `except Exception` does not catch."""


class Panics(Faulty):
    def fail(self) -> None:
        raise Panic


class Exits(Faulty):
    def fail(self) -> None:
        sys.exit(0)


class Vanishes(Faulty):
    def fail(self) -> None:
        os._exit(0)


class Recurses(Faulty):
    def fail(self) -> None:
        self.fail()


class Answers(Faulty):
    def fail(self) -> None:
        raise Wrong("two and two are five")


class Noisy(Faulty):
    """Writes a long log, and gives right answers."""

    def fail(self) -> None:
        os.write(2, b"thread panicked\n" * 10_000)
