"""The suite covers every operation, every type and distant memory. Independent of any backend."""

from __future__ import annotations

from ferrum.conformance.calls import CALLS
from ferrum.conformance.record import ABOUT_THE_BACKEND
from ferrum.conformance.test_edges import BY_HAND, FUNCTIONS
from ferrum.conformance.test_long_contexts import WRITES
from ferrum.tensor.compositions import COMPOSITIONS
from ferrum.tensor.ops import DTYPES, NEEDED, PRIMITIVES

SHARING = ("asarray", "to_numpy", "constant", "scalar", "reshape", "permute", "transpose", "broadcast_to", "split")
"""Operations whose result may be a view, a constant, or memory of the host."""
WITHOUT = ("empty", "ones", "arange", "put", "kv_write", "host_array", "store", "fetch", "run_step")
"""Operations that have properties of their own."""


def test_no_operation_is_forgotten() -> None:
    called = {name for name, _ in CALLS.values()}
    assert called | {*SHARING, *WITHOUT, *ABOUT_THE_BACKEND} == {*PRIMITIVES, *COMPOSITIONS}


def test_no_type_is_forgotten() -> None:
    assert {*BY_HAND, *FUNCTIONS} == set(NEEDED)
    assert {dtype for dtypes in NEEDED.values() for dtype in dtypes} <= set(DTYPES)


def test_far_slots_are_far() -> None:
    assert max(WRITES["slots beyond 16 bits"].slots()) > 65536
