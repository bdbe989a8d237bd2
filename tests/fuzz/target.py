"""The targets of the fuzzers: the interface of a kind of input, and the list of kinds.

Owns: the protocol `Target`, the names of the targets, and the decisions of a case: a case is a pure function of its
target and its seed. Refuses to know: processes.
Specs: SEC. Next: `tests.fuzz.child`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

TARGETS = {
    "gguf": "gguf:GgufFiles",
    "safetensors": "safetensors:SafetensorsFolders",
    "configurations": "configurations:Configurations",
    "tokenizers": "tokenizers:Tokenizers",
    "templates": "templates:Templates",
    "prefixes": "prefixes:PrefixFiles",
    "conversations": "conversations:Conversations",
    "structures": "structures:Structures",
    "parameters": "parameters:Parameters",
}
"""From the name of a target to the place of its class below `tests.fuzz.targets`."""


class Wrong(Exception):
    """Raised if the code under test gives a wrong answer."""


class Target(ABC):
    """One kind of input. Whatever `run` raises, apart from ferrum's own errors, is a finding."""

    def __init__(self, folder: Path) -> None:
        """`folder`: an empty one, to write files to."""
        self.folder = folder

    @abstractmethod
    def make(self, random: Random) -> Any:
        """A valid input that decisions of `random` have damaged."""

    @abstractmethod
    def run(self, case: Any) -> None:
        """Uses the input as a user would. Raises FerrumError if the input is refused, and `Wrong` if the answer is
        wrong."""

    def show(self, case: Any) -> str:
        """The input, as far as a reader of a finding needs it."""
        text = repr(case)
        return text if len(text) <= 600 else f"{text[:400]} … {text[-200:]}"


def find_target(name: str) -> type[Target]:
    """The class of a target, by its name or as "module:Class"."""
    module, _, kind = TARGETS.get(name, name).partition(":")
    if name in TARGETS:
        module = f"tests.fuzz.targets.{module}"
    found: type[Target] = getattr(import_module(module), kind)
    return found


def decisions(target: str, seed: int | bytes) -> Random:
    """The decisions of a case: of a number, or of the bytes that a coverage-guided fuzzer has found."""
    return BytesRandom(seed) if isinstance(seed, bytes) else Random(f"{target}:{seed}")


class BytesRandom(Random):
    """A source of decisions that reads them from bytes, and decides 0 when there are none left."""

    def __new__(cls, data: bytes) -> BytesRandom:
        return super().__new__(cls)

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data, self._place = data, 0

    def getrandbits(self, k: int) -> int:
        size = -(-k // 8)
        piece = self._data[self._place : self._place + size]
        self._place += size
        return int.from_bytes(piece, "little") & ((1 << k) - 1)

    def random(self) -> float:
        return self.getrandbits(16) / 65536

    def randbytes(self, n: int) -> bytes:
        return self.getrandbits(8 * n).to_bytes(n, "little")


def seed_text(seed: int | bytes) -> str:
    """A seed as it is typed: a number, or x and hexadecimal digits."""
    return f"x{seed.hex()}" if isinstance(seed, bytes) else str(seed)


def read_seed(text: str) -> int | bytes:
    """The inverse of `seed_text`. Raises ValueError."""
    return bytes.fromhex(text[1:]) if text.startswith("x") else int(text)
