"""The rooms that are mutated, and the tests that judge each.

Owns: that list. Refuses to know: how mutants are made. Specs: PROOF-21. Next: `meta_tests.mutants.tool`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """A package, `source`, and the paths of its tests."""

    source: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.source.rpartition("/")[2]


ROOMS = {
    room.name: room
    for room in (
        Room("ferrum/kv", ("tests/kv",)),
        Room("ferrum/sched", ("tests/sched",)),
        Room("ferrum/sample", ("tests/sample",)),
        Room("ferrum/tensor", ("ferrum/conformance", "tests/backends")),
        Room("ferrum/load", ("tests/load",)),
        Room("ferrum/text", ("tests/text",)),
    )
}
