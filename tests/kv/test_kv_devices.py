"""KV-47, KV-48: how often a move waits for the device, and which error a move raises if the device fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.errors import DeviceError, ResourceExhausted
from ferrum.kv import storage as storage_module
from ferrum.kv.storage import KvStorage, block_bytes
from ferrum.tensor.ops import Tensor
from ferrum.testing.strict import StrictOps
from tests.tiny import tiny_config

CONFIG = tiny_config(layers=5)
SIZE = 4
MOVES: dict[str, tuple[int, int]] = {"swap_out": (1, 1), "swap_in": (0, 2), "read": (1, 1), "write": (0, 2)}
"""Synchronisations and uploads of one piece: the numbers of its blocks, and their contents."""


def move(storage: KvStorage, name: str, blocks: list[int]) -> None:
    if name == "read":
        storage.read(blocks)
    elif name == "write":
        storage.write(blocks, {key: value.copy() for key, value in storage.read(blocks).items()})
    else:
        getattr(storage, name)(blocks, blocks)


@pytest.mark.clause("KV-47")
@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize(("blocks", "pieces"), [(0, 0), (1, 1), (3, 1), (4, 2), (9, 3)])
def test_a_move_waits_once_for_each_piece(name: str, blocks: int, pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    one = block_bytes(CONFIG, SIZE, "float32")
    monkeypatch.setattr(storage_module, "MOST_MOVED", 4 * one - 1)
    ops = StrictOps()
    storage = KvStorage(ops, CONFIG, 9, SIZE, "float32", 9)
    move(storage, name, list(range(blocks)))
    found, (waits, uploads) = ops.counted(), MOVES[name]
    if name == "write":  # `write` got the contents that `read` had returned
        waits, uploads = waits + MOVES["read"][0], uploads + MOVES["read"][1]
    assert (found.synchronisations, found.uploads) == (waits * pieces, uploads * pieces)
    if name in ("swap_out", "read"):
        assert found.bytes_down == blocks * one


@pytest.mark.clause("KV-47")
def test_a_block_larger_than_a_piece_travels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "MOST_MOVED", 1)
    ops = StrictOps()
    storage = KvStorage(ops, CONFIG, 2, SIZE, "float32", 2)
    storage.swap_out([0, 1], [1, 0])
    assert ops.counted().synchronisations == 2


@pytest.mark.clause("KV-47")
@pytest.mark.parametrize("name", MOVES)
def test_what_is_stored_in_two_types_waits_once_for_each(name: str) -> None:
    config, ops = tiny_config(layers=5, head_dim=32), StrictOps()
    storage = KvStorage(ops, config, 3, SIZE, "q8_0", 3)
    move(storage, name, [2, 0, 1])
    found = ops.counted()
    assert found.synchronisations == (2 if name in ("swap_out", "read", "write") else 0)
    if name in ("swap_out", "read"):
        assert found.bytes_down == 3 * block_bytes(config, SIZE, "q8_0")


@pytest.mark.clause("KV-47")
def test_memory_is_made_without_a_wait() -> None:
    for dtype in ("float32", "float16", "bfloat16", "q8_0"):
        ops = StrictOps()
        KvStorage(ops, tiny_config(head_dim=32), 2, SIZE, dtype, 2)
        assert ops.counted().synchronisations == 0


class Failing(NumpyOps):
    """A backend that raises `error` in the call named `failing`."""

    def __init__(self, failing: str, error: Exception) -> None:
        super().__init__()
        self._failing, self._error = failing, error
        self.broken = False

    def _perhaps(self, name: str) -> None:
        if self.broken and name == self._failing:
            raise self._error

    def take(self, x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
        self._perhaps("take")
        return super().take(x, indices, axis)

    def put(self, x: Tensor, indices: Any, values: Tensor) -> None:
        self._perhaps("put")
        super().put(x, indices, values)

    def asarray(self, values: Any, dtype: str) -> Tensor:
        self._perhaps("asarray")
        return super().asarray(values, dtype)

    def to_numpy(self, x: Tensor) -> np.ndarray:
        self._perhaps("to_numpy")
        return super().to_numpy(x)


FAILURES: list[tuple[str, Callable[[KvStorage], object]]] = [
    ("take", lambda storage: storage.copy([0], [1])),
    ("put", lambda storage: storage.copy([0], [1])),
    ("take", lambda storage: storage.swap_out([0], [1])),
    ("to_numpy", lambda storage: storage.swap_out([0], [1])),
    ("asarray", lambda storage: storage.swap_in([0], [1])),
    ("put", lambda storage: storage.swap_in([0], [1])),
    ("to_numpy", lambda storage: storage.read([0])),
    ("put", lambda storage: storage.write([0], storage.read([0]))),
]


@pytest.mark.clause("KV-48")
@pytest.mark.parametrize(
    "error", [RuntimeError("cudaErrorUnknown"), MemoryError("no"), ResourceExhausted("no"), DeviceError("gone")]
)
@pytest.mark.parametrize("place", range(len(FAILURES)))
def test_a_move_that_fails_is_a_device_error(place: int, error: Exception) -> None:
    failing, act = FAILURES[place]
    ops = Failing(failing, error)
    storage = KvStorage(ops, CONFIG, 2, SIZE, "float32", 2)
    act(storage)
    ops.broken = True
    with pytest.raises(DeviceError) as found:
        act(storage)
    assert found.value is error or found.value.__cause__ is error
    ops.broken = False
    act(storage)


@pytest.mark.clause("KV-48")
def test_a_mistake_is_no_device_error() -> None:
    storage = KvStorage(NumpyOps(), CONFIG, 2, SIZE, "float32", 2)
    with pytest.raises(IndexError):
        storage.swap_out([5], [0])
