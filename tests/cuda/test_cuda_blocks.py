"""CUDA-37: blocks are gathered, scattered and copied, whatever they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ferrum.backends.cuda.blocks import BlockKernels
from ferrum.backends.cuda.device import Array, Device
from ferrum.conformance.tolerances import assert_same
from ferrum.errors import InternalError
from ferrum.tensor.ops import host_dtype
from tests.cuda.operands import at_every_schedule, laid, layouts
from tests.cuda.shim import device_at

pytestmark = pytest.mark.clause("CUDA-37")
dtypes = st.sampled_from(["float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool"])
numbers = st.sampled_from(["int32", "int64"])


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Blocks of any size and type, also of more bytes than one thread block copies, and any bits."""
    within = draw(st.sampled_from([(), (1,), (3,), (2, 4), (5, 1, 7), (2, 16, 8), (3, 1367), (2, 4096), (0,)]))
    shape, dtype = (draw(st.integers(1, 6)), *within), host_dtype(draw(dtypes))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    bits = random.integers(0, 2 if dtype.name == "bool" else 256, int(np.prod(shape)) * dtype.itemsize, np.uint8)
    return bits.view(dtype).reshape(shape)


@given(array=arrays(), number=numbers, layout=layouts, data=st.data())
def test_blocks_are_gathered(array: np.ndarray, number: str, layout: str, data: st.DataObject) -> None:
    ids = np.array(data.draw(st.lists(st.integers(0, len(array) - 1), max_size=9)), number)

    def run(device: Device) -> Array:
        return BlockKernels(device).gather(laid(device, array, layout), laid(device, ids, layout))

    actual = at_every_schedule(run)
    assert actual.dtype == array.dtype
    assert actual.tobytes() == array[ids].tobytes()


@given(array=arrays(), number=numbers, layout=layouts, data=st.data())
def test_blocks_are_scattered(array: np.ndarray, number: str, layout: str, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, len(array) - 1), unique=True))
    values = np.ascontiguousarray(array[::-1])[: len(ids)]

    def run(device: Device) -> Array:
        target = device.upload(array)
        BlockKernels(device).scatter(target, device.upload(np.array(ids, number)), laid(device, values, layout))
        return target

    wanted = array.copy()
    wanted[ids] = values
    assert at_every_schedule(run).tobytes() == wanted.tobytes()


@given(array=arrays(), number=numbers, data=st.data())
def test_blocks_are_copied_within_an_array(array: np.ndarray, number: str, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(array))))
    count = data.draw(st.integers(0, len(array) // 2))
    sources, targets = (np.array(order[part], number) for part in (slice(0, count), slice(count, 2 * count)))

    def run(device: Device) -> Array:
        changed = device.upload(array)
        BlockKernels(device).copy(changed, *(device.upload(each) for each in (sources, targets)))
        return changed

    wanted = array.copy()
    wanted[targets] = array[sources]
    assert at_every_schedule(run).tobytes() == wanted.tobytes()


def test_what_is_not_at_an_even_address_is_copied_in_smaller_units() -> None:
    device = device_at(1)
    values: Any = device.upload(np.arange(1 + 64, dtype=np.uint8))[1:].reshape(4, 16)
    gathered = BlockKernels(device).gather(values, device.upload(np.array([3, 0], np.int32)))
    assert gathered.tolist() == [list(range(49, 65)), list(range(1, 17))]


def test_nothing_is_written_to_an_array_with_gaps() -> None:
    device = device_at(1)
    array, ids = device.upload(np.ones((4, 4), np.float32)), device.upload(np.arange(2))
    with pytest.raises(InternalError):
        BlockKernels(device).scatter(array[:, ::2], ids, array[:2, ::2])


@given(
    st.data(), st.sampled_from(["float32", "float16", "uint8", "int64"]), st.sampled_from(["int32", "int64"]), layouts
)
def test_rows_by_number(data: Any, dtype: str, number_type: str, layout: str) -> None:
    shape = data.draw(st.sampled_from([(1,), (7,), (3, 5), (4, 1025), (2, 3, 4), (5, 0)]))
    values = (np.arange(int(np.prod(shape))) % 251).astype(dtype).reshape(shape)
    where = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=5)
    numbers = data.draw(hnp.arrays(number_type, where, elements=st.integers(0, shape[0] - 1)))
    run = lambda device: BlockKernels(device).gather(laid(device, values, layout), laid(device, numbers))  # noqa: E731
    assert_same(at_every_schedule(run), values[numbers])


def test_a_number_that_is_no_rows_gives_nan() -> None:
    values, numbers = np.ones((3, 5), np.float32), np.array([2, -1, 3, 1 << 40])
    taken = at_every_schedule(lambda device: BlockKernels(device).gather(laid(device, values), laid(device, numbers)))
    assert np.isnan(taken).any(-1).tolist() == [False, True, True, True]
    assert np.isnan(taken[1:]).all()
