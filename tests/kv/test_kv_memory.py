"""KV-05 to KV-08: slots and the arrays behind them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.errors import InternalError, InvalidParameter, Unsupported
from ferrum.kv.block_table import BlockTable, blocks_for
from ferrum.kv.storage import KvStorage, block_bytes, blocks_within
from tests.house.source import ROOT
from tests.tiny import tiny_config

tables = st.builds(
    BlockTable, st.integers(1, 9), st.lists(st.integers(0, 50), unique=True, min_size=1, max_size=8).map(tuple)
)


@pytest.mark.clause("KV-05")
@given(table=tables, data=st.data())
def test_slots_follow_the_definition(table: BlockTable, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, table.capacity))
    count = data.draw(st.integers(0, table.capacity - start))
    slots = table.slots(start, count)
    size = table.block_size
    expected = [table.blocks[p // size] * size + p % size for p in range(start, start + count)]
    assert slots.tolist() == expected
    assert slots.dtype == np.int32
    assert [table.slot(p) for p in range(start, start + count)] == expected
    assert len(set(expected)) == count


@pytest.mark.clause("KV-06")
@given(table=tables, start=st.integers(-5, 80), count=st.integers(1, 80))
@example(table=BlockTable(4, [7, 2]), start=6, count=3)
@example(table=BlockTable(4, [7, 2]), start=-1, count=2)
def test_positions_outside_the_table_are_errors(table: BlockTable, start: int, count: int) -> None:
    if start >= 0 and start + count <= table.capacity:
        table.slots(start, count)
    else:
        with pytest.raises(InternalError):
            table.slots(start, count)


@pytest.mark.clause("KV-06")
def test_a_single_position_outside_is_an_error_too() -> None:
    table = BlockTable(4, [7])
    assert table.slot(3) == 31
    for position in (-1, 4):
        with pytest.raises(InternalError):
            table.slot(position)


@pytest.mark.clause("KV-05")
@given(positions=st.integers(0, 1000), size=st.integers(1, 64))
def test_blocks_for_is_the_least_number_that_suffices(positions: int, size: int) -> None:
    blocks = blocks_for(positions, size)
    assert blocks * size >= positions
    assert blocks == 0 or (blocks - 1) * size < positions


@pytest.mark.clause("KV-05")
@given(steps=st.lists(st.one_of(st.lists(st.integers(0, 50), max_size=9), st.integers(0, 50)), max_size=9))
def test_a_row_is_the_blocks_however_they_came(steps: list[list[int] | int]) -> None:
    """A step that is a list calls `extend`, a number `append`. After each step the block in the middle is replaced."""
    table, blocks = BlockTable(4), []
    for step in steps:
        blocks += step if isinstance(step, list) else [step]
        table.extend(step) if isinstance(step, list) else table.append(step)
        if blocks:
            blocks[len(blocks) // 2] = 99
            table.replace(len(blocks) // 2, 99)
        assert table.row.tolist() == table.blocks == blocks
        assert (table.row.dtype, table.capacity) == (np.int32, 4 * len(blocks))
    table.clear()
    assert (table.row.tolist(), table.blocks, table.capacity) == ([], [], 0)


@pytest.mark.clause("KV-07")
def test_every_layer_has_room_for_every_block() -> None:
    config = tiny_config(layers=3, kv_heads=2, head_dim=4)
    storage = KvStorage(NumpyOps(), config, blocks=5, block_size=8, dtype="float32")
    assert len(storage.layers) == 3
    for layer in storage.layers:
        assert layer.keys.shape == (5, 2, 4, 8)
        assert layer.values.shape == (5, 2, 8, 4)
        assert layer.keys.dtype == layer.values.dtype == np.float32
    arrays = [array for layer in storage.layers for array in (layer.keys, layer.values)]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


@pytest.mark.clause("KV-08")
@given(memory=st.integers(0, 1 << 20), size=st.integers(1, 33), dtype=st.sampled_from(["float64", "float32"]))
def test_a_budget_is_used_and_kept(memory: int, size: int, dtype: str) -> None:
    config = tiny_config()
    blocks = blocks_within(memory, config, size, dtype)
    storage = KvStorage(NumpyOps(), config, blocks, size, dtype)
    used = sum(layer.keys.nbytes + layer.values.nbytes for layer in storage.layers)
    assert used == storage.bytes <= memory
    assert used + block_bytes(config, size, dtype) > memory


@pytest.mark.clause("KV-08")
def test_a_type_that_cannot_be_stored_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match=r"'int8'; known: float64, float32, float16, bfloat16, q8_0$"):
        block_bytes(tiny_config(), 16, "int8")


@pytest.mark.clause("KV-50")
@pytest.mark.parametrize("head_dim", [8, 80])
def test_heads_that_are_not_whole_groups_are_refused_by_name(head_dim: int) -> None:
    with pytest.raises(Unsupported, match=f"q8_0 need a head_dim that is a multiple of 32, .* is {head_dim}: choose"):
        block_bytes(tiny_config(head_dim=head_dim), 16, "q8_0")


@pytest.mark.clause("KV-07", "KV-50")
@pytest.mark.parametrize("head_dim", [32, 96])
def test_a_block_in_q8_0_takes_34_bytes_where_float32_takes_128(head_dim: int) -> None:
    config = tiny_config(layers=3, kv_heads=2, head_dim=head_dim)
    storage = KvStorage(NumpyOps(), config, blocks=5, block_size=8, dtype="q8_0")
    assert storage.bytes * 128 == 5 * block_bytes(config, 8, "float32") * 34
    assert storage.bytes == sum(array.nbytes for layer in storage.layers for array in vars(layer).values())
    for layer in storage.layers:
        found = {name: (array.shape, str(array.dtype)) for name, array in vars(layer).items()}
        assert found == {
            "keys": ((5, 2, head_dim // 4, 8, 4), "int8"),
            "values": ((5, 2, 8, head_dim), "int8"),
            "key_scales": ((5, 2, head_dim // 32, 8), "float16"),
            "value_scales": ((5, 2, head_dim // 32, 8), "float16"),
        }


class FullOps(NumpyOps):
    """A backend without memory on one tier: `full` is "device" or "host"."""

    def __init__(self, full: str) -> None:
        super().__init__()
        self.full = full

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        if self.full == "device":
            raise MemoryError
        return super().empty(shape, dtype)

    def host_array(self, shape: tuple[int, ...], dtype: str) -> Any:
        if self.full == "host":
            raise MemoryError
        return super().host_array(shape, dtype)


@pytest.mark.clause("KV-44")
@pytest.mark.parametrize(("full", "field", "blocks"), [("device", "kv_memory", 3), ("host", "host_kv_memory", 5)])
def test_a_tier_without_memory_is_told_by_its_parameter_and_its_bytes(full: str, field: str, blocks: int) -> None:
    size = blocks * block_bytes(tiny_config(), 4, "float32")
    with pytest.raises(InvalidParameter, match=f"^{field} asks for {size} bytes") as caught:
        KvStorage(FullOps(full), tiny_config(), 3, 4, "float32", 5)
    assert caught.value.field == field


LIMITED = """
import resource, sys
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.errors import InvalidParameter
from ferrum.kv.storage import KvStorage, block_bytes
from tests.house.source import ROOT
from tests.tiny import tiny_config
config, (limit, device, host) = tiny_config(), map(int, sys.argv[1:])
if limit:
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))
size = block_bytes(config, 16, "float32")
try:
    KvStorage(NumpyOps(), config, device // size, 16, "float32", host // size)
    print("fits")
except InvalidParameter as error:
    print(error)
"""


@pytest.mark.clause("KV-44")
@pytest.mark.parametrize(
    ("limit", "device", "host", "told"),
    [
        (0, 1 << 20, 1 << 20, "fits"),
        (1 << 30, 1 << 29, 0, "fits"),
        (1 << 30, 1 << 31, 0, "kv_memory asks for"),
        (1 << 30, 900 << 20, 0, "kv_memory asks for"),  # it fits, and nothing else would
        (1 << 30, 1 << 20, 900 << 20, "host_kv_memory asks for"),
        (0, 1 << 47, 0, "kv_memory asks for"),
        (0, 1 << 60, 0, "kv_memory asks for"),
        (0, 1 << 20, 1 << 60, "host_kv_memory asks for"),
    ],
)
def test_memory_that_cannot_be_had_is_an_error_that_names_the_parameter(
    limit: int, device: int, host: int, told: str
) -> None:
    command = [sys.executable, "-c", LIMITED, str(limit), str(device), str(host)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.startswith(told)
