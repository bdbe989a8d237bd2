"""The rooms that are mutated, and the tests that judge each.

Owns: that list. Refuses to know: how mutants are made. Specs: PROOF-30. Next: `meta_tests.mutants.tool`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """A package, `source`, and the paths of its tests.

    What mutmut adds to every function (a frame on the stack, copies beside it) is seen by some code: `left_out` are
    files that are not mutated, `options` are pytest's, and leave out tests that see it.
    """

    source: str
    tests: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.source.rpartition("/")[2]


QUICK = ("-p", "meta_tests.planted")
"""A test that fails stops at its first failing example: the smallest one is not needed."""

ROOMS = {
    room.name: room
    for room in (
        Room("ferrum/kv", ("tests/kv",), options=QUICK),
        Room("ferrum/sched", ("tests/sched", "tests/engine/test_speculation.py"), options=QUICK),  # drafts in a plan
        Room(
            "ferrum/sample",
            ("tests/sample",),
            options=(  # a deep stack, and time
                *QUICK,
                "--deselect=tests/sample/test_sampling_any.py",
                "-k",
                "not refusal_tells_the_place and not in_time and not takes_long and not no_time "
                "and not as_long_as_a_vocabulary",
            ),
        ),
        # what stands in the protocol is what every backend must have
        Room(
            "ferrum/tensor",
            ("ferrum/conformance",),
            ("ferrum/tensor/ops.py",),
            (*QUICK, "--backend=numpy", "-k", "not no_operation_is_forgotten"),
        ),
        # a process without the packages of this one
        Room(
            "ferrum/load",
            ("tests/load",),
            ("ferrum/load/pip.py", "ferrum/load/pip_child.py"),
            (*QUICK, "--deselect=tests/load/test_load_pip.py"),
        ),
        Room("ferrum/text", ("tests/text",), options=QUICK),
    )
}
