"""OPS-84: weights in units take about as much private memory as in the file, whose pages are released."""

from __future__ import annotations

import gc
import mmap
import weakref
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from ferrum.backends.numba_kernels.launching import kernel_calls, weight_units
from ferrum.backends.numba_kernels.sizes import GROUP, UNIT_GROUPS, UNIT_ROWS, unit_bytes
from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.conformance.strategies import WEIGHT_TYPES
from ferrum.tensor.weights import BlockWeight, Linear
from ferrum.testing.blocks import BLOCKS
from tests.backends.test_int8 import activations, make_weight
from tests.core.test_mapping import linux, resident

DEFINITION = NumpyOps(compute="int8")
ROWS, COLUMNS = 200, 512


@pytest.fixture
def made() -> Iterator[list[weight_units.Units]]:
    """A list of all units that are made while the test runs."""
    found: list[weight_units.Units] = []

    def remembering(*arguments: object) -> weight_units.Units:
        found.append(weight_units.make_units(*arguments))
        return found[-1]

    with patch.object(kernel_calls, "make_units", remembering):
        yield found


def mapped(kind: str, path: Path) -> BlockWeight:
    """A weight in a mapped file. It begins in the middle of a page."""
    random = np.random.default_rng(3)
    data = make_weight(kind, ROWS, COLUMNS // BLOCKS[kind].size, random).data
    path.write_bytes(bytes(1000) + data.tobytes())
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return WEIGHT_TYPES[kind](np.frombuffer(memoryview(memory), np.uint8)[1000:].reshape(data.shape))


@pytest.mark.clause("OPS-84")
@linux
@pytest.mark.parametrize("kind", sorted(BLOCKS))
def test_pages_of_the_file_are_given_back_and_rows_of_it_still_found(
    kind: str, made: list[weight_units.Units], tmp_path: Path
) -> None:
    path = tmp_path / "weights"
    weight = mapped(kind, path)
    head, x = Linear(weight), activations((3, COLUMNS), np.random.default_rng(1))
    expected, table = DEFINITION.linear(x, head), NumpyOps().dequantize(weight)
    assert resident(path) > weight.data.nbytes - mmap.PAGESIZE
    ops, ids = NumbaOps(1, compute="int8"), np.array([0, 7, ROWS - 1], np.int32)
    np.testing.assert_array_equal(ops.linear(x, head), expected)
    assert resident(path) <= 2 * mmap.PAGESIZE, "a page at each end is not the weight's alone"
    np.testing.assert_array_equal(ops.embed(weight, ids), table[ids])
    np.testing.assert_array_equal(ops.linear(x, Linear(weight, np.ones(ROWS, np.float32))), expected + 1)
    assert len(made) == 1, "embedding and head, with and without a bias, share the units of their weight"
    np.testing.assert_array_equal(NumbaOps(2, compute="int8").linear(x, head), expected)  # another engine, one file
    assert len(made) == 2


@pytest.mark.clause("OPS-84", "OPS-56")
def test_units_are_gone_with_their_weight(made: list[weight_units.Units]) -> None:
    random, ops = np.random.default_rng(1), NumbaOps(1, compute="int8")
    linear = Linear(make_weight("q4_0", 64, 4, random))
    ops.linear(activations((2, 128), random), linear)
    memory = weakref.ref(made.pop())
    gc.collect()
    assert memory() is not None
    del linear
    gc.collect()
    assert memory() is None


@pytest.mark.clause("OPS-84")
@pytest.mark.parametrize("kind", sorted(BLOCKS))
def test_units_are_as_large_as_what_is_stored(kind: str) -> None:
    """A padded group, and one percent in Q6_K, may be added."""
    columns = 32 * 256
    stored = UNIT_ROWS * columns // BLOCKS[kind].size * BLOCKS[kind].bytes
    assert 1 <= unit_bytes(kind, columns) / stored <= 1.0096
    together = GROUP * UNIT_GROUPS[kind]
    assert unit_bytes(kind, together + GROUP) == 2 * unit_bytes(kind, together) == 2 * unit_bytes(kind, GROUP)


@pytest.mark.clause("OPS-84")
@pytest.mark.parametrize("kind", sorted(BLOCKS))
def test_every_bit_that_is_stored_is_in_the_units(kind: str, made: list[weight_units.Units]) -> None:
    """As many bits are set as in the file: no bit is lost or added, and padding is zeros."""
    random, ops = np.random.default_rng(2), NumbaOps(1, compute="int8")
    weight = make_weight(kind, 37, 1 if BLOCKS[kind].size == 256 else 5, random)
    ops.linear(activations((1, weight.columns), random), Linear(weight))
    (own,) = made
    assert own.place % 64 == 0 and own.bytes % 64 == 0
    assert int(np.unpackbits(own.memory).sum()) == int(np.unpackbits(weight.data).sum())


@pytest.mark.clause("OPS-84")
def test_all_kinds_of_blocks_have_units() -> None:
    assert UNIT_GROUPS.keys() == BLOCKS.keys()


@pytest.mark.clause("OPS-84")
@linux
def test_a_weight_is_rearranged_in_pieces_of_which_one_is_in_memory_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = mapped("q8_0", tmp_path / "weight")
    whole = weight_units.make_units(NumbaOps(2, compute="int8")._kernels.launcher, weight)
    monkeypatch.setattr(
        weight_units, "PIECE_BYTES", 3 * UNIT_ROWS * weight.data.shape[1]
    )  # not every share of 200 rows
    returned: list[int] = []
    monkeypatch.setattr(weight_units, "give_back", lambda data: returned.append(len(data)))
    pieces = weight_units.make_units(NumbaOps(2, compute="int8")._kernels.launcher, weight)
    assert returned == [48, 48, 48, 48, 8, ROWS]
    assert [bytes(_units_of(each, weight)) for each in (whole, pieces)] == [bytes(_units_of(whole, weight))] * 2


def _units_of(made: weight_units.Units, weight: BlockWeight) -> np.ndarray:
    start = made.place - made.memory.__array_interface__["data"][0]
    return made.memory[start : start + -(-weight.rows // UNIT_ROWS) * made.bytes]
