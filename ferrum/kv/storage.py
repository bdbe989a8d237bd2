"""The memory behind the blocks: keys and values of every layer, on the backend and, as a second tier, on the host.

Owns: the arrays, one block-id space for all layers, what a block costs in bytes, and moving blocks within and between
the tiers. The arrays are made by `ops.empty` and its like on the host: an operating system gives a page when it is
first written, so an unused pool costs nothing on a CPU.
Refuses to know: which block is whose.
Specs: KV-07, KV-08, KV-15, KV-44. Next: `ferrum.kv.pressure`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ferrum.config import ModelConfig
from ferrum.errors import InvalidParameter, Unsupported
from ferrum.tensor.batch import KvLayer
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor

ELEMENT_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}

LEFT_OVER = 256 << 20
"""Bytes that must be there for everything else where memory is limited."""


class BlockStore(Protocol):
    """What the manager needs of whoever keeps the contents of blocks: `KvStorage`, or a test double. Lists of ids have
    equal lengths. Raises DeviceError where a move fails; the targets then hold anything, the sources what they held."""

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Within the device."""
        ...

    def swap_out(self, blocks: Sequence[int], host_blocks: Sequence[int]) -> None:
        """From the device to the host."""
        ...

    def swap_in(self, host_blocks: Sequence[int], blocks: Sequence[int]) -> None:
        """From the host to the device."""
        ...

    def read(self, blocks: Sequence[int]) -> dict[str, NDArray[Any]]:
        """The contents of blocks on the device, by name; each array's first axis is the block."""
        ...

    def write(self, blocks: Sequence[int], contents: dict[str, NDArray[Any]]) -> None:
        """The inverse of `read`. Raises KeyError or ValueError for contents of another shape or type."""
        ...


class KvStorage:
    """`layers`: one KvLayer per decoder layer, each with room for `blocks` blocks; contents undefined at first."""

    def __init__(
        self, ops: TensorOps, config: ModelConfig, blocks: int, block_size: int, dtype: str, host_blocks: int = 0
    ) -> None:
        self.blocks = blocks
        self.host_blocks = host_blocks
        self.block_size = block_size
        self.dtype = dtype
        self.bytes = blocks * block_bytes(config, block_size, dtype)
        keys = (config.kv_heads, config.head_dim, block_size)
        values = (config.kv_heads, block_size, config.head_dim)
        self._ops = ops
        with _fitting("kv_memory", self.bytes):
            self.layers = tuple(
                KvLayer(ops.empty((blocks, *keys), dtype), ops.empty((blocks, *values), dtype))
                for _ in range(config.layers)
            )
        on_host = ops.to_numpy(ops.empty((0,), dtype)).dtype
        with _fitting("host_kv_memory", host_blocks * block_bytes(config, block_size, dtype)):
            self._host = [
                np.empty((host_blocks, *shape), on_host) for _ in range(config.layers) for shape in (keys, values)
            ]

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Blocks of the device, to other blocks of the device."""
        source, target = self._place(sources), self._place(targets)
        for array in self._arrays():
            self._ops.put(array, (target,), self._ops.take(array, source))

    def swap_out(self, blocks: Sequence[int], host_blocks: Sequence[int]) -> None:
        """Blocks of the device, to blocks of the host."""
        source, target = self._place(blocks), list(host_blocks)
        for array, kept in zip(self._arrays(), self._host, strict=True):
            kept[target] = self._ops.to_numpy(self._ops.take(array, source))

    def swap_in(self, host_blocks: Sequence[int], blocks: Sequence[int]) -> None:
        """Blocks of the host, to blocks of the device."""
        source, target = list(host_blocks), self._place(blocks)
        for array, kept in zip(self._arrays(), self._host, strict=True):
            self._ops.put(array, (target,), self._ops.asarray(kept[source], self.dtype))

    def read(self, blocks: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Blocks of the device by "layer.0.keys" [blocks, kv_heads, head_dim, block_size], "layer.0.values", …"""
        source = self._place(blocks)
        taken = [self._ops.to_numpy(self._ops.take(array, source)) for array in self._arrays()]
        return dict(zip(self._names(), taken, strict=True))

    def write(self, blocks: Sequence[int], contents: dict[str, NDArray[Any]]) -> None:
        """What `read` returned, to as many blocks of the device."""
        target = self._place(blocks)
        for name, array in zip(self._names(), self._arrays(), strict=True):
            found = contents[name]
            if found.shape != (len(blocks), *array.shape[1:]) or str(found.dtype) != self.dtype:
                raise ValueError(f"{name} is {found.dtype} of shape {found.shape}")
        for name, array in zip(self._names(), self._arrays(), strict=True):
            self._ops.put(array, (target,), self._ops.asarray(contents[name], self.dtype))

    def _place(self, blocks: Sequence[int]) -> Tensor:
        return self._ops.asarray(list(blocks), "int64")

    def _arrays(self) -> Iterator[Tensor]:
        for layer in self.layers:
            yield layer.keys
            yield layer.values

    def _names(self) -> Iterator[str]:
        for index in range(len(self.layers)):
            yield f"layer.{index}.keys"
            yield f"layer.{index}.values"


@contextmanager
def _fitting(name: str, size: int) -> Iterator[None]:
    """What is made inside may be more than there is, or leave nothing to the rest of the program, parts of which end
    the process where they get no memory; `name` is the parameter that asked for it."""
    try:
        yield
        np.empty(LEFT_OVER, np.uint8)  # asked for, never touched, given back
    except (MemoryError, ValueError) as error:  # NumPy's word for more than any machine has
        raise InvalidParameter(name, f"asks for {size} bytes, more than this process can have") from error


def block_bytes(config: ModelConfig, block_size: int, dtype: str) -> int:
    """Bytes of one block: keys and values of `block_size` positions in every layer."""
    if dtype not in ELEMENT_BYTES:
        raise Unsupported(f"keys and values cannot be stored as {dtype!r}; known: {', '.join(ELEMENT_BYTES)}")
    return 2 * config.layers * config.kv_heads * config.head_dim * block_size * ELEMENT_BYTES[dtype]


def blocks_within(memory: int, config: ModelConfig, block_size: int, dtype: str) -> int:
    """How many whole blocks `memory` bytes hold; may be none."""
    return memory // block_bytes(config, block_size, dtype)
