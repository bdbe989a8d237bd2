"""A cuBLAS without a GPU: it reads its arguments as the manual describes them.

Owns: the functions that are called, with statuses; their faults can be chosen. Matrices lie by columns.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from tests.cuda.fake_cupy import Machine


class Function:
    """Of a C library: it has types, and a status is what it returns."""

    def __init__(self, run: Callable[..., int]) -> None:
        self.run, self.argtypes, self.restype = run, [], None

    def __call__(self, *arguments: Any) -> int:
        assert len(arguments) == len(self.argtypes)
        for kind, value in zip(self.argtypes, arguments, strict=True):
            kind.from_param(value)  # as ctypes would
        return self.run(*arguments)


class FakeCublas:
    """cuBLAS as its manual describes it: matrices by columns, a leading dimension each."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.streams: dict[int, int] = {}
        self.workspaces: dict[int, int] = {}
        self.status: dict[str, int] = {}
        self.refuses_captures = self.rounds = self.wrong_in_captures = False
        self.destroyed = 0
        for name in ("Create_v2", "Destroy_v2", "SetStream_v2", "SetWorkspace_v2", "SetMathMode", "GetMathMode"):
            setattr(self, f"cublas{name}", Function(getattr(self, f"_{name}")))
        self.cublasGemmEx = Function(self._gemm)

    def _Create_v2(self, handle: Any) -> int:
        handle._obj.value = 1000 + len(self.streams)
        self.streams[handle._obj.value] = 0
        return self.status.get("create", 0)

    def _Destroy_v2(self, handle: Any) -> int:
        self.destroyed += 1
        return 0

    def _SetStream_v2(self, handle: Any, stream: int) -> int:
        self.streams[handle.value] = stream
        self.workspaces.pop(handle.value, None)  # the manual: unconditionally
        return 0

    def _SetWorkspace_v2(self, handle: Any, place: int, size: int) -> int:
        assert place and size == 32 << 20
        self.workspaces[handle.value] = place
        return 0

    def _SetMathMode(self, handle: Any, mode: int) -> int:
        assert mode == 0
        return 0

    def _GetMathMode(self, handle: Any, mode: Any) -> int:
        mode._obj.value = 0
        return 0

    def _gemm(
        self, handle: Any, turn_a: int, turn_b: int, m: int, n: int, k: int, alpha: int, a: int, a_type: int, lda: int,
        b: int, b_type: int, ldb: int, beta: int, c: int, c_type: int, ldc: int, compute: int, algorithm: int,
    ) -> int:  # fmt: skip
        assert compute == 68 and c_type == 0 and a_type == b_type and algorithm == -1
        assert handle.value in self.workspaces, "a workspace must be set after the stream"
        if (status := self.status.get("gemm", 0)) or min(m, n, k) <= 0:
            return status or 7
        capturing = self._machine.capturing == self.streams[handle.value] != 0
        if capturing and self.refuses_captures:
            self._machine.invalid = True
            return 14
        one, zero = ctypes.c_float.from_address(alpha).value, ctypes.c_float.from_address(beta).value
        assert (one, zero) == (1, 0)

        def run() -> None:
            left = columns(a, a_type, (k, m) if turn_a else (m, k), lda)
            right = columns(b, b_type, (n, k) if turn_b else (k, n), ldb)
            if self.rounds:
                left, right = (matrix.astype(ml_dtypes.bfloat16).astype(np.float64) for matrix in (left, right))
            product = (left.T if turn_a else left) @ (right.T if turn_b else right)
            if capturing and self.wrong_in_captures:
                product = product + 1
            columns(c, 0, (m, n), ldc, writable=True)[...] = product

        self._machine.enqueue(run, self.streams[handle.value])
        return 0


def columns(place: int, kind: int, shape: tuple[int, int], leading: int, writable: bool = False) -> np.ndarray:
    """A matrix by columns at an address; a copy in float64 unless it is to be written."""
    rows, count = shape
    assert leading >= rows
    dtype = {0: np.dtype(np.float32), 14: np.dtype(ml_dtypes.bfloat16)}[kind]
    size = ((count - 1) * leading + rows) * dtype.itemsize
    flat = np.frombuffer((ctypes.c_char * size).from_address(place), np.uint8).view(dtype)
    view = np.lib.stride_tricks.as_strided(flat, shape, (dtype.itemsize, leading * dtype.itemsize))
    return view if writable else view.astype(np.float64)
