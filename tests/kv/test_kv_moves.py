"""KV-08, KV-15, KV-17 on real arrays: bytes are moved as they are, and nothing else."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.backends.registry import load_backend
from ferrum.config import EngineConfig
from ferrum.engine.setup import capacity
from ferrum.errors import InvalidParameter
from ferrum.kv.eviction import make_policy
from ferrum.kv.manager import KvManager
from ferrum.kv.pool import BlockPool
from ferrum.kv.storage import KvStorage, block_bytes
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import host_dtype
from tests.tiny import tiny_config

DEVICE, HOST, SIZE = 6, 5, 3
PROBE = DEVICE  # one more block on the device, to look at the host through
CONFIG = tiny_config(layers=2, kv_heads=2, head_dim=2)
Q8_CONFIG = tiny_config(layers=2, kv_heads=2, head_dim=64)

Contents = dict[str, NDArray[Any]]

combinations = [
    ("numpy", "float32"),
    ("numpy", "float16"),
    ("numpy", "bfloat16"),
    ("numpy64", "float64"),
    ("numpy64", "float16"),
    ("numba", "float32"),
    ("numba", "float16"),
    ("numba", "bfloat16"),
    ("numpy", "q8_0"),
    ("numba", "q8_0"),
]


@cache
def backend(name: str) -> TensorOps:
    return NumpyOps("float64") if name == "numpy64" else load_backend(name)


def storage_of(name: str, dtype: str) -> KvStorage:
    return KvStorage(backend(name), Q8_CONFIG if dtype == "q8_0" else CONFIG, DEVICE + 1, SIZE, dtype, HOST)


def arrays_of(dtype: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """The arrays of a layer: by name, the shape of a block and the element type."""
    if dtype == "q8_0":
        scales = (2, 2, SIZE), "float16"
        codes = {"keys": ((2, 16, SIZE, 4), "int8"), "values": ((2, SIZE, 64), "int8")}
        return {**codes, "key_scales": scales, "value_scales": scales}
    return {"keys": ((2, 2, SIZE), dtype), "values": ((2, SIZE, 2), dtype)}


def noise(seed: int, blocks: int, dtype: str) -> Contents:
    """Contents made of random bytes: large and small numbers, infinities, every kind of NaN."""
    random = np.random.default_rng(seed)
    return {
        f"layer.{layer}.{name}": np.frombuffer(
            random.bytes(blocks * int(np.prod(shape)) * host_dtype(kind).itemsize), host_dtype(kind)
        ).reshape(blocks, *shape)
        for layer in range(2)
        for name, (shape, kind) in arrays_of(dtype).items()
    }


def as_bytes(contents: Contents, blocks: int) -> list[bytes]:
    """All bytes of each block."""
    return [b"".join(contents[name][block].tobytes() for name in sorted(contents)) for block in range(blocks)]


TIERS = {"copy": (DEVICE, DEVICE), "swap_out": (DEVICE, HOST), "swap_in": (HOST, DEVICE), "write": (DEVICE, DEVICE)}


@st.composite
def one_move(draw: st.DrawFn) -> tuple[str, list[int], list[int]]:
    """Draws the name of a move, its source blocks and its target blocks: the targets are distinct, and no source is a
    target."""
    kind = draw(st.sampled_from(sorted(TIERS)))
    near, far = TIERS[kind]
    targets = draw(st.lists(st.integers(0, far - 1), unique=True, min_size=1, max_size=4))
    sources = [block for block in range(near) if kind != "copy" or block not in targets]
    return kind, [draw(st.sampled_from(sources)) for _ in targets], targets


@pytest.mark.clause("KV-15", "KV-17")
@pytest.mark.parametrize(("name", "dtype"), combinations)
@given(moves=st.lists(one_move(), max_size=12), seed=st.integers(0, 99))
def test_any_moves_change_the_bytes_they_name_and_no_others(
    name: str, dtype: str, moves: list[tuple[str, list[int], list[int]]], seed: int
) -> None:
    storage, first = storage_of(name, dtype), noise(seed, DEVICE, dtype)
    storage.write(range(DEVICE), first)
    storage.swap_out(range(HOST), range(HOST))
    device = as_bytes(first, DEVICE)
    host = device[:HOST]
    for step, (kind, sources, targets) in enumerate(moves):
        if kind == "write":
            contents = noise(seed + step + 1, len(targets), dtype)
            storage.write(targets, contents)
            moved = as_bytes(contents, len(targets))
        else:
            getattr(storage, kind)(sources, targets)
            moved = [(host if kind == "swap_in" else device)[source] for source in sources]
        for target, block in zip(targets, moved, strict=True):
            (host if kind == "swap_out" else device)[target] = block
    assert as_bytes(storage.read(range(DEVICE)), DEVICE) == device
    assert [look(storage, block) for block in range(HOST)] == host
    assert as_bytes(storage.read(range(DEVICE)), DEVICE) == device


def look(storage: KvStorage, block: int) -> bytes:
    """The contents of a block of the host."""
    storage.swap_in([block], [PROBE])
    return as_bytes(storage.read([PROBE]), 1)[0]


@pytest.mark.clause("KV-07", "KV-15")
@pytest.mark.parametrize(("name", "dtype"), combinations)
def test_what_is_read_is_what_the_layers_hold(name: str, dtype: str) -> None:
    """Compares `read` with the arrays that the model reads: `read` and `write` could be wrong in the same way."""
    storage, contents = storage_of(name, dtype), noise(7, 2, dtype)
    storage.write([4, 1], contents)
    for index, layer in enumerate(storage.layers):
        for kind, (_, stored) in arrays_of(dtype).items():
            array = getattr(layer, kind)
            for place, block in enumerate([4, 1]):
                there = backend(name).to_numpy(array)[block]
                assert there.tobytes() == contents[f"layer.{index}.{kind}"][place].tobytes()
                assert there.dtype == host_dtype(stored)
    assert list(storage.read([1])) == [f"layer.{index}.{kind}" for index in range(2) for kind in arrays_of(dtype)]


@pytest.mark.clause("KV-15", "KV-35")
def test_contents_of_another_shape_are_refused() -> None:
    storage, contents = storage_of("numpy", "float32"), noise(0, 2, "float32")
    for wrong in (
        {name: array for name, array in contents.items() if name != "layer.1.values"},
        {**contents, "layer.1.values": contents["layer.1.values"][:1]},  # would be broadcast
        {**contents, "layer.0.keys": contents["layer.0.keys"][..., :1]},
        {name: array.swapaxes(2, 3) for name, array in contents.items()},
    ):
        with pytest.raises((KeyError, ValueError)):
            storage.write([0, 1], wrong)
    with pytest.raises(ValueError):
        storage.write([0, 1, 2], contents)


@pytest.mark.clause("KV-16", "KV-17", "KV-24")
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_a_manager_moves_arrays(name: str) -> None:
    """One sequence of steps on real memory: swap, evict to the host, promote, copy on write."""
    storage, text = storage_of(name, "float32"), [0] * 8  # two blocks and two tokens more
    manager = KvManager(storage, BlockPool(4, make_policy("lru")), BlockPool(5, make_policy("lru")), SIZE)
    table, contents = manager.new_table(), noise(3, 3, "float32")
    manager.reserve(table, 0, 8)
    storage.write(table.blocks, contents)
    manager.record(table, text, 8)
    expected = as_bytes(contents, 3)
    manager.swap_out(table, 8)
    other = manager.new_table()
    manager.reserve(other, 0, 12)
    storage.write(other.blocks, noise(4, 4, "float32"))
    manager.close(other)
    manager.swap_in(table)
    assert as_bytes(storage.read(table.blocks), 3) == expected
    copy = manager.new_table()
    manager.fork(table, copy, 7)
    manager.reserve(copy, 7, 8)
    assert copy.blocks[2] != table.blocks[2]
    assert as_bytes(storage.read(copy.blocks), 3) == as_bytes(storage.read(table.blocks), 3) == expected
    for each in (table, copy):
        manager.close(each)
    manager.reserve(other, 0, 12)
    manager.close(other)
    assert manager.open(table, text) == 6
    assert manager.counters().promoted == 2
    assert as_bytes(storage.read(table.blocks), 2) == expected[:2]


@pytest.mark.clause("KV-08")
@given(
    memory=st.integers(10 * 1024, 1 << 18),
    host_memory=st.integers(0, 1 << 18),
    size=st.integers(2, 9),
    dtype=st.sampled_from(["float32", "float16", "q8_0"]),
)
def test_a_budget_is_used_and_kept_on_each_tier(memory: int, host_memory: int, size: int, dtype: str) -> None:
    model = Q8_CONFIG if dtype == "q8_0" else CONFIG
    config = EngineConfig(kv_memory=memory, host_kv_memory=host_memory, block_size=size)
    one = block_bytes(model, size, dtype)
    if 0 < host_memory < one:
        with pytest.raises(InvalidParameter, match="host_kv_memory"):
            capacity(model, config, dtype)
        return
    found = capacity(model, config, dtype)
    storage = KvStorage(backend("numpy"), model, found.blocks, size, dtype, found.host_blocks)
    used = sum(array.nbytes for layer in storage.layers for array in vars(layer).values())
    kept = sum(share.host.nbytes for share in storage._shares)
    assert used == storage.bytes == found.blocks * one <= memory < used + one
    assert kept == found.host_blocks * one <= host_memory < kept + one
