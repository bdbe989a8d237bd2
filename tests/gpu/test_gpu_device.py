"""CUDA-06 to CUDA-09 on a GPU: copies, products, graphs, failures."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ferrum.backends.cuda import elementwise
from ferrum.backends.cuda.device import Device, NotCapturable
from ferrum.backends.cuda.matrices import trial
from ferrum.backends.cupy_backend import CupyOps
from ferrum.conformance.tolerances import TOLERANCES
from ferrum.errors import ResourceExhausted
from ferrum.tensor.ops import DTYPES, host_dtype
from tests.gpu.device import ON_SHIM, gpu

MEBIBYTE = 1 << 20
TYPES = st.sampled_from(["float32", "bfloat16"])


def normal(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32).astype(host_dtype(dtype))


def poison(device: Device, *sizes: int) -> None:
    """Fills memory of these sizes with NaN and frees it: its next owner must not rely on its content."""
    for array in [device.upload(np.full(size, np.nan, np.float32)) for size in sizes]:
        del array


# ---- copies
@pytest.mark.clause("CUDA-09")
@given(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6), st.booleans())
def test_what_was_uploaded_comes_back(dtype: str, shape: tuple[int, ...], turned: bool) -> None:
    kind, device = host_dtype(dtype), gpu()
    values = np.random.default_rng(0).integers(0, 2, (*shape, kind.itemsize), np.uint8).view(kind)[..., 0]
    source = values.T.copy().T if turned else values.copy()
    array = device.upload(source)
    source[...] = 0
    assert str(array.dtype) == dtype and device.download(array).tobytes() == values.tobytes()
    assert device.download(array.T).tobytes() == np.ascontiguousarray(values.T).tobytes()


@pytest.mark.clause("CUDA-09")
@pytest.mark.parametrize("size", [1, 15 * MEBIBYTE, 17 * MEBIBYTE, 100 * MEBIBYTE])
def test_big_copies(size: int) -> None:
    """On both sides of where copies are made in another way."""
    device, values = gpu(), np.random.default_rng(0).integers(0, 256, size, np.uint8)
    arrays, expected = [], values.copy()
    for _ in range(3):
        arrays.append(device.upload(values))
        values += 1
    for number, array in enumerate(arrays):
        assert np.array_equal(device.download(array), expected + np.uint8(number))


@pytest.mark.clause("CUDA-09")
def test_rows_travel_beside_the_work() -> None:
    device, random = gpu(), np.random.default_rng(0)
    places, expected = device.pinned((64, 1 << 18), "float32"), np.zeros((64, 1 << 18), np.float32)
    for number in range(40):
        rows = random.permutation(64)[: random.integers(1, 8)].tolist()
        values = normal((len(rows), 1 << 18), seed=number)
        if number % 3 == 2:
            assert np.array_equal(device.download(device.fetch(places, rows)), expected[rows])
        expected[rows] = values
        x = device.upload(values)
        device.store(x, places, rows)
        poison(device, *[values.size] * 2)
    assert np.array_equal(device.download(device.fetch(places, range(64)))[:, :1], expected[:, :1])


@pytest.mark.clause("CUDA-09")
def test_threads_take_turns() -> None:
    device, found = gpu(), []

    def work() -> None:
        x = device.upload(normal((300, 64)))
        y = elementwise.binary(device, "add", x, x)
        found.append(device.download(device.product(y, x)))

    for _ in range(4):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len({each.tobytes() for each in found}) == 1 and len(found) == 4


# ---- products
@pytest.mark.clause("CUDA-07")
@given(TYPES, st.integers(0, 300), st.integers(0, 300), st.integers(1, 3000), st.integers(0, 1000))
def test_products_beside_float64(dtype: str, tokens: int, rows: int, columns: int, seed: int) -> None:
    x, weight = (normal((count, columns), dtype, seed + count) for count in (tokens, rows))
    device = gpu()
    poison(device, tokens * rows)
    found = device.download(device.product(device.upload(x), device.upload(weight)))
    wide = x.astype(np.float64), weight.astype(np.float64).T
    size = np.abs(wide[0]) @ np.abs(wide[1])
    assert found.dtype == np.float32
    assert (np.abs(found - wide[0] @ wide[1]) <= TOLERANCES["float32"].relative * size).all()


@pytest.mark.clause("CUDA-07")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_float32_is_not_rounded_to_tf32(dtype: str) -> None:
    """An exact result, of which TF32, or a sum in bfloat16, would lose bits; in sizes that Tensor Cores like, too."""
    device = gpu()
    x, weight, expected = trial(dtype)
    if dtype == "float32":  # by the array library
        ops = CupyOps(device)
        assert np.array_equal(ops.to_numpy(ops.matmul(device.upload(x), device.upload(weight).T)), expected)
    for copies in (1, 16):
        many = device.upload(np.concatenate([x] * copies)), device.upload(np.concatenate([weight] * copies))
        assert np.array_equal(device.download(device.product(*many)), np.tile(expected, (copies, copies)))


@pytest.mark.clause("CUDA-07")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tokens", [9, 512])
def test_products_have_the_same_bits_in_every_run_and_in_a_graph(dtype: str, tokens: int) -> None:
    device = gpu()
    x, weight = (device.upload(normal(shape, dtype)) for shape in ((tokens, 2048), (4096, 2048)))
    first = device.download(device.product(x, weight))
    graph, result = device.capture(lambda: device.product(x, weight))
    for _ in range(5):
        poison(device, first.size)
        graph.launch()
        assert device.download(result).tobytes() == first.tobytes()
        assert device.download(device.product(x, weight)).tobytes() == first.tobytes()


# ---- graphs
@pytest.mark.clause("CUDA-08")
def test_a_graph_takes_its_place_among_launches() -> None:
    device = gpu()
    x, one = device.upload(np.zeros(1000, np.float32)), device.upload(np.ones(1000, np.float32))

    def run() -> Any:
        y = elementwise.binary(device, "add", x, one)
        return elementwise.binary(device, "add", y, one)

    run()
    graph, result = device.capture(run)
    graph.launch()
    assert (device.download(result) == 2).all()
    poison(device, 1000, 1000, 1000)
    x[...] = elementwise.binary(device, "add", result, one)  # 3, without a wait
    graph.launch()
    assert (device.download(elementwise.binary(device, "add", result, result)) == 10).all()


@pytest.mark.clause("CUDA-08")
def test_what_a_graph_cannot_contain_is_refused() -> None:
    device = gpu()
    x = device.upload(np.ones(4, np.float32))
    refused = {
        "host array": lambda: device.upload(np.ones(3, np.float32)),
        "copy to the host": lambda: device.download(x),
        "for which there is no kernel": lambda: device.xp.sort(x),
    }
    for sentence, call in refused.items():
        with pytest.raises(NotCapturable, match=sentence):
            device.capture(call)
        graph, result = device.capture(lambda: elementwise.binary(device, "add", x, x))
        graph.launch()
        assert device.download(result).tolist() == [2, 2, 2, 2]


# ---- failures
@pytest.mark.clause("CUDA-06")
@pytest.mark.skipif(ON_SHIM, reason="the host's memory is not the device's")
def test_memory_that_is_not_there() -> None:
    device = gpu()
    free, whole = device.memory()
    assert 0 < free <= whole
    for _ in range(2):
        with pytest.raises(ResourceExhausted, match="out of memory"):
            device.empty((whole,), "uint8")
    assert device.download(device.upload(np.ones(3, np.float32))).tolist() == [1, 1, 1]
