"""What a backend hands out: an array of some library under the name that ferrum has for its element type.

Owns: `Tensor`. Refuses to know: which library, and what is computed.
"""

from __future__ import annotations

from typing import Any

from ferrum.tensor.ops import host_dtype


class Tensor:
    """ferrum reads `.shape` and `.dtype` of a tensor, and `str(x.dtype)` must be one of its own names: "float32", where
    a library may say "torch.float32". Hence the wrapper. It is no dataclass, tuple or list: ferrum looks into those."""

    __slots__ = ("array", "dtype")

    def __init__(self, array: Any, dtype: str) -> None:
        self.array = array
        self.dtype = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)


def pattern(name: str) -> str:
    """The signed integer as wide as the type of that name: what holds its bits where a library lacks the type."""
    return f"int{8 * host_dtype(name).itemsize}"
