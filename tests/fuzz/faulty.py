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
    """Accepts even numbers and refuses odd ones, but fails at one."""

    def make(self, random: Random) -> int:
        return random.randrange(10)

    def run(self, case: int) -> None:
        if case == FAILS:
            self.fail()
        if case % 2:
            raise InvalidFormat("odd")

    def fail(self) -> None:
        """Does not."""


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
    """Like those of native libraries: no `except Exception` sees it."""


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
    """Writes a great deal, and is right."""

    def fail(self) -> None:
        os.write(2, b"thread panicked\n" * 10_000)
