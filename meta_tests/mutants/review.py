"""Survivors that were reviewed: `survivors.toml` says which are accepted, and why.

Owns: reading that file and finding the entry of a mutant. Refuses to know: how mutants are made.
Specs: PROOF-31. Next: `meta_tests.mutants.table`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

from meta_tests.mutants.tool import Mutant

FILE = Path(__file__).with_name("survivors.toml")
Kind = Literal["equivalent", "accepted"]


@dataclass(frozen=True)
class Entry:
    """`place`: a function, with `*` for any text; `was` and `becomes`: regular expressions found in the changed lines.

    `equivalent`: no test can tell the mutant from the code, so it does not count. `accepted`: a test could, and none
    should; it counts as a survivor."""

    place: str
    was: str
    becomes: str
    kind: Kind
    why: str

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or not self.why:
            raise ValueError(f"{self.place}: `kind` is one of {get_args(Kind)}, and `why` says something")

    def is_about(self, mutant: Mutant) -> bool:
        return (
            fnmatchcase(mutant.place, self.place)
            and re.search(self.was, mutant.was) is not None
            and re.search(self.becomes, mutant.becomes) is not None
        )


def read(path: Path = FILE) -> tuple[Entry, ...]:
    return tuple(Entry(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"])


def entry_of(mutant: Mutant, entries: Sequence[Entry]) -> Entry | None:
    """The first entry that matches the mutant, or None."""
    return next((entry for entry in entries if entry.is_about(mutant)), None)
