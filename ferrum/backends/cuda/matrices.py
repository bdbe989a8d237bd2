"""Products of large matrices by cuBLAS, run at once or captured, after a trial of both.

Owns: cuBLAS for the two streams of a device, and a trial at the first use. The trial multiplies small matrices of each
type whose product is exact in float32 for any order of additions, so it detects every rounding in between (TF32, sums
in bfloat16). If a captured product fails, a warning says so once, and steps that contain such a product are not
captured.
Refuses to know: which matrices are multiplied.
Specs: CUDA-07, CUDA-08. Next: `ferrum.backends.cuda.swaps`.
"""

from __future__ import annotations

import warnings
from typing import Any, Protocol

import numpy as np

from ferrum.backends.cuda.cublas import WORKSPACE_BYTES, Cublas, load_cublas
from ferrum.backends.cuda.device import Array, Device, NotCapturable
from ferrum.errors import DeviceError, InternalError
from ferrum.tensor.ops import host_dtype

TOKENS, ROWS, COLUMNS = 24, 40, 64
"""Sizes of the trial."""


class Recording(Device, Protocol):
    """A device that can record a graph without allocating memory for it."""

    def record(self, run: Any) -> tuple[Any, Any]: ...

    def replay(self, recorded: Any) -> None: ...


class Matrices:
    """Products on one device."""

    def __init__(self, device: Recording, capturing_stream: Any) -> None:
        """Raises DeviceError if a product of the trial is wrong."""
        self._device, self._capturing_stream = device, capturing_stream
        library = load_cublas()
        self._workspace = device.empty((WORKSPACE_BYTES,), "uint8")
        address = device.address(self._workspace)
        # work at once and graphs run one after the other, so both can use one workspace
        self._eager = Cublas(library, 0, address)
        self._captured = Cublas(library, capturing_stream.ptr, address)
        if self._eager.tf32 or self._captured.tf32:
            raise DeviceError("cuBLAS rounds float32 to TF32 and cannot be told not to")
        self._try()
        self.capturable = True
        self.capturable = self._captures()

    def product(self, x: Array, weight: Array, out: Array, captured: bool) -> None:
        """out = x · weightᵀ, for x [tokens, columns] and weight [rows, columns] of the same type, out float32 [tokens,
        rows]. Raises NotCapturable in a capture if the trial of captured products failed."""
        if captured and not self.capturable:
            raise NotCapturable("a product by cuBLAS, whose trial in a capture failed")
        (tokens, columns), (rows, _) = x.shape, weight.shape
        if x.dtype != weight.dtype or weight.shape[1] != columns:
            raise InternalError(f"no product of {x.dtype} {x.shape} and {weight.dtype} {weight.shape}")
        if not (x.flags.c_contiguous and weight.flags.c_contiguous):
            raise InternalError("a product of matrices with gaps")
        if tokens and rows:
            place, cublas = self._device.address, self._captured if captured else self._eager
            cublas.product(place(x), place(weight), place(out), str(x.dtype), (tokens, rows, columns))

    def _try(self) -> None:
        device = self._device
        for dtype in ("float32", "bfloat16"):
            x, weight, expected = trial(dtype)
            out = device.upload(np.full(expected.shape, np.nan, np.float32))
            self.product(device.upload(x), device.upload(weight), out, captured=False)
            if not np.array_equal(device.download(out), expected):
                raise DeviceError(f"cuBLAS multiplies {dtype} wrongly, or less precisely than it was told to")

    def _captures(self) -> bool:
        device = self._device
        cases = [trial(dtype) for dtype in ("float32", "bfloat16")]
        operands = [(device.upload(x), device.upload(weight)) for x, weight, _ in cases]

        def empty() -> list[Array]:
            return [device.upload(np.full(expected.shape, np.nan, np.float32)) for *_, expected in cases]

        def run(outs: list[Array]) -> None:
            for (x, weight), out in zip(operands, outs, strict=True):
                self.product(x, weight, out, captured=True)

        first, outs = empty(), empty()
        device.download(first[0])  # waits for the uploads: the capturing stream does not
        run(first)  # not captured: the first call prepares the library, which a capture does not allow
        self._capturing_stream.synchronize()
        try:
            recorded, _ = device.record(lambda: run(outs))
            device.replay(recorded)
            right = all(np.array_equal(device.download(out), case[2]) for out, case in zip(outs, cases, strict=True))
        except (NotCapturable, DeviceError) as error:
            return _warned(str(error))
        return right or _warned("its products were wrong")


def _warned(reason: str) -> bool:
    warnings.warn(f"cuBLAS does not work in a CUDA graph, so large steps run without a graph: {reason}", stacklevel=2)
    return False


def trial(dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x [tokens, columns], weight [rows, columns], and their product, float32 [tokens, rows], which is exact: all
    partial sums are multiples of 2^-12 below 2^11."""
    tokens, rows, columns = (np.arange(count) for count in (TOKENS, ROWS, COLUMNS))
    x = 1.0 + (tokens[:, None] + 2 * columns) % 4
    if dtype == "float32":
        x *= 1 + 2.0**-12  # more bits than TF32 has
    weight = 1.0 + (3 * rows[:, None] + 5 * columns) % 7
    product = (x @ weight.T).astype(np.float32)
    return x.astype(host_dtype(dtype)), weight.astype(host_dtype(dtype)), product
