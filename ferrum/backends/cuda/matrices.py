"""Products of big matrices, eagerly and within a capture, once cuBLAS has shown that it can do both.

Owns: cuBLAS for the two streams of a device, and the trial at the first use: a small product of each type, whose exact
result float32 holds in whatever order it is added up, so that any rounding in between (TF32, sums in bfloat16) is seen.
Where a captured product fails, steps that contain one are not captured, and it is said once.
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
"""Of the trial."""


class Recording(Device, Protocol):
    """A device that can record without memory of the graph's own."""

    def record(self, run: Any) -> tuple[Any, Any]: ...

    def replay(self, recorded: Any) -> None: ...


class Matrices:
    """Products on one device."""

    def __init__(self, device: Recording, capturing_stream: Any) -> None:
        """Raises DeviceError where a product is wrong."""
        self._device, self._capturing_stream = device, capturing_stream
        library = load_cublas()
        self._workspace = device.empty((WORKSPACE_BYTES,), "uint8")
        address = device.address(self._workspace)
        # eager work and graphs run one after the other, so that one workspace serves both
        self._eager = Cublas(library, 0, address)
        self._captured = Cublas(library, capturing_stream.ptr, address)
        if self._eager.tf32 or self._captured.tf32:
            raise DeviceError("cuBLAS rounds float32 to TF32 and cannot be told not to")
        self._try()
        self.capturable = True
        self.capturable = self._captures()

    def product(self, x: Array, weight: Array, out: Array, captured: bool) -> None:
        """[tokens, columns], [rows, columns], both of one type -> out, float32 [tokens, rows]. Raises NotCapturable
        in a capture where the trial has failed."""
        if captured and not self.capturable:
            raise NotCapturable("a product by cuBLAS, which failed in a trial")
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
        device.download(first[0])  # the two streams do not wait for each other
        run(first)  # as it is: a library prepares itself at its first call, by more than a capture allows
        self._capturing_stream.synchronize()
        try:
            recorded, _ = device.record(lambda: run(outs))
            device.replay(recorded)
            right = all(np.array_equal(device.download(out), case[2]) for out, case in zip(outs, cases, strict=True))
        except (NotCapturable, DeviceError) as error:
            return _said(str(error))
        return right or _said("its products were wrong")


def _said(why: str) -> bool:
    warnings.warn(f"cuBLAS does not work within a CUDA graph, so that big steps run without one: {why}", stacklevel=2)
    return False


def trial(dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x [tokens, columns], weight [rows, columns], and float32 [tokens, rows]: their product, which is exact. Each sum
    is a multiple of 2^-12 below 2^11, and so is every part of it."""
    tokens, rows, columns = (np.arange(count) for count in (TOKENS, ROWS, COLUMNS))
    x = 1.0 + (tokens[:, None] + 2 * columns) % 4
    if dtype == "float32":
        x *= 1 + 2.0**-12  # more bits than TF32 has
    weight = 1.0 + (3 * rows[:, None] + 5 * columns) % 7
    product = (x @ weight.T).astype(np.float32)
    return x.astype(host_dtype(dtype)), weight.astype(host_dtype(dtype)), product
