"""The same backend where the library is PyTorch: what PyTorch has beyond the standard replaces the trips to the host.

Owns: `TorchOps`. This is what to write for a library of your own, once the suite passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ferrum_array_api.ops import ArrayApiOps
from ferrum_array_api.tensor import Tensor

HALVES = {"float16", "bfloat16"}


class TorchOps(ArrayApiOps):
    """Its devices are called "cpu", "cuda", "mps", "xpu", …"""

    name = "torch"
    module = "torch"

    def find_device(self, name: str | None) -> str | None:
        return name  # PyTorch takes names for devices

    def to_numpy(self, x: Tensor) -> np.ndarray:
        return super().to_numpy(Tensor(x.array.cpu(), x.dtype))

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        if {x.dtype, dtype} & (self.patterns.keys() - HALVES):
            return super().cast(x, dtype)
        rounded = x.array.view(self._own(x.dtype)).to(self._own(dtype))
        return Tensor(rounded.view(self._type(dtype)), dtype)

    def bitcast(self, x: Tensor, dtype: str) -> Tensor:
        # a copy: PyTorch refuses views of other width at odd addresses
        whole = x.array.clone(memory_format=self.xp.contiguous_format)
        return Tensor(whole.view(self._type(dtype)), dtype)

    def put(self, x: Tensor, indices: Sequence[Tensor], values: Tensor) -> None:
        x.array[tuple(each.array for each in indices)] = values.array

    def erf(self, x: Tensor) -> Tensor:
        return super().erf(x) if x.dtype in self.patterns else Tensor(self.xp.erf(x.array), x.dtype)

    def _own(self, dtype: str) -> Any:
        return getattr(self.xp, dtype)
