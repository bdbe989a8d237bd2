"""The memory behind the blocks: keys and values of every layer, on the backend and, as a second tier, on the host.

Owns: the arrays, one block-id space for all layers, what a block costs in bytes, and moving blocks within and between
the tiers: whole blocks, all layers in one piece, so that a move waits for the device once. The arrays are made by
`ops.empty` and its like on the host: an operating system gives a page when it is first written, so an unused pool costs
nothing on a CPU.
Refuses to know: which block is whose.
Specs: KV-07, KV-08, KV-15, KV-44, KV-47, KV-48. Next: `ferrum.kv.pressure`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ferrum.config import ModelConfig
from ferrum.errors import DeviceError, InvalidParameter, ResourceExhausted, Unsupported
from ferrum.tensor.batch import KvLayer
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor

ELEMENT_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}

MOST_MOVED = 8 << 20
"""Bytes that travel between the tiers in one piece, at least a block. Meanwhile there is a copy of them, so the size is
bounded; twice as much takes no less time for each byte, on a CPU or over a bus."""

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
        one = block_bytes(config, block_size, dtype)
        self._blocks_at_once = max(1, MOST_MOVED // one)
        self._host_shape = (2 * config.layers, math.prod(keys))  # of a block: its arrays, in the order of `_arrays`
        with _fitting("host_kv_memory", host_blocks * one):
            self._host = ops.host_array((host_blocks, *self._host_shape), dtype)

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Blocks of the device, to other blocks of the device."""
        with _device_errors():
            source, target = self._place(sources), self._place(targets)
            for array in self._arrays():
                self._ops.put(array, (target,), self._ops.take(array, source))

    def swap_out(self, blocks: Sequence[int], host_blocks: Sequence[int]) -> None:
        """Blocks of the device, to blocks of the host."""
        for source, target in zip(self._pieces(blocks), self._pieces(host_blocks), strict=True):
            with _device_errors():
                if self._ops.on_host:
                    self._move_out(source, target)
                else:
                    self._ops.store(self._packed(source), self._host, target)

    def _move_out(self, blocks: Sequence[int], host_blocks: Sequence[int]) -> None:
        """The same where a look at tensors costs nothing: array by array, without a copy of all of them together."""
        source = self._place(blocks)
        for index, array in enumerate(self._arrays()):
            taken = self._ops.to_numpy(self._ops.take(array, source))
            self._host[list(host_blocks), index] = taken.reshape(len(blocks), -1)

    def swap_in(self, host_blocks: Sequence[int], blocks: Sequence[int]) -> None:
        """Blocks of the host, to blocks of the device."""
        for source, target in zip(self._pieces(host_blocks), self._pieces(blocks), strict=True):
            with _device_errors():
                self._unpack(self._ops.fetch(self._host, source, self.dtype), target)

    def read(self, blocks: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Blocks of the device by "layer.0.keys" [blocks, kv_heads, head_dim, block_size], "layer.0.values", …"""
        found = {
            name: np.empty((len(blocks), *array.shape[1:]), self._host.dtype) for name, array in self._named_arrays()
        }
        start = 0
        for source in self._pieces(blocks):
            end = start + len(source)
            for array, part in zip(found.values(), self._download(source).swapaxes(0, 1), strict=True):
                array[start:end] = part.reshape(-1, *array.shape[1:])
            start = end
        return found

    def write(self, blocks: Sequence[int], contents: dict[str, NDArray[Any]]) -> None:
        """What `read` returned, to as many blocks of the device."""
        for name, array in self._named_arrays():
            found = contents[name]
            if found.shape != (len(blocks), *array.shape[1:]) or str(found.dtype) != self.dtype:
                raise ValueError(f"{name} is {found.dtype} of shape {found.shape}")
        start = 0
        for target in self._pieces(blocks):
            end = start + len(target)
            parts = [contents[name][start:end].reshape(len(target), -1) for name, _ in self._named_arrays()]
            self._upload(np.stack(parts, 1), target)
            start = end

    def _pieces(self, blocks: Sequence[int]) -> list[list[int]]:
        """The same blocks in order, as many at a time as travel together."""
        count = self._blocks_at_once
        return [list(blocks[start : start + count]) for start in range(0, len(blocks), count)]

    def _download(self, blocks: Sequence[int]) -> NDArray[Any]:
        """-> [blocks, *host shape], by one synchronisation."""
        with _device_errors():
            return self._ops.to_numpy(self._packed(blocks))

    def _upload(self, packed: NDArray[Any], blocks: Sequence[int]) -> None:
        """packed [blocks, *host shape], which is nobody else's."""
        with _device_errors():
            self._unpack(self._ops.asarray(packed, self.dtype), blocks)

    def _packed(self, blocks: Sequence[int]) -> Tensor:
        """-> [blocks, *host shape]: what the blocks hold, as one tensor."""
        ops, shape, source = self._ops, (len(blocks), 1, -1), self._place(blocks)
        return ops.concat([ops.reshape(ops.take(array, source), shape) for array in self._arrays()], 1)

    def _unpack(self, packed: Tensor, blocks: Sequence[int]) -> None:
        """Puts what `_packed` made into blocks."""
        ops, arrays, target = self._ops, list(self._arrays()), self._place(blocks)
        for array, part in zip(arrays, ops.split(packed, [1] * len(arrays), 1), strict=True):
            ops.put(array, (target,), ops.reshape(part, (len(blocks), *array.shape[1:])))

    def _place(self, blocks: Sequence[int]) -> Tensor:
        return self._ops.asarray(np.array(blocks, np.int64), "int64")

    def _arrays(self) -> Iterator[Tensor]:
        for _, array in self._named_arrays():
            yield array

    def _named_arrays(self) -> Iterator[tuple[str, Tensor]]:
        for index, layer in enumerate(self.layers):
            yield f"layer.{index}.keys", layer.keys
            yield f"layer.{index}.values", layer.values


@contextmanager
def _device_errors() -> Iterator[None]:
    """Whatever word a backend's library has for a device that fails, those who can do without a move know one."""
    try:
        yield
    except (RuntimeError, MemoryError, ResourceExhausted) as error:
        raise DeviceError(f"blocks could not be moved: {error!r}") from error


@contextmanager
def _fitting(name: str, size: int) -> Iterator[None]:
    """What is made inside may be more than there is, or leave nothing to the rest of the program, parts of which end
    the process where they get no memory; `name` is the parameter that asked for it."""
    try:
        yield
        np.empty(LEFT_OVER, np.uint8)  # asked for, never touched, given back
    except (MemoryError, ResourceExhausted, ValueError) as error:  # NumPy's word for more than any machine has
        raise InvalidParameter(name, f"asks for {size} bytes, more than this process can have") from error


def block_bytes(config: ModelConfig, block_size: int, dtype: str) -> int:
    """Bytes of one block: keys and values of `block_size` positions in every layer."""
    if dtype not in ELEMENT_BYTES:
        raise Unsupported(f"keys and values cannot be stored as {dtype!r}; known: {', '.join(ELEMENT_BYTES)}")
    return 2 * config.layers * config.kv_heads * config.head_dim * block_size * ELEMENT_BYTES[dtype]


def blocks_within(memory: int, config: ModelConfig, block_size: int, dtype: str) -> int:
    """How many whole blocks `memory` bytes hold; may be none."""
    return memory // block_bytes(config, block_size, dtype)
