"""CUDA-07, CUDA-08: products by cuBLAS and graphs of the device made of CuPy, on a CuPy without a GPU."""

from __future__ import annotations

import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.backends.cuda.device import NotCapturable
from ferrum.backends.cuda.gpu import GpuDevice
from ferrum.backends.cuda.matrices import trial
from ferrum.errors import DeviceError, FerrumError, InternalError, ResourceExhausted
from tests.cuda.fake_cupy import CUDARuntimeError, Machine, device_of, installed, launch

pytestmark = pytest.mark.usefixtures("own_cache")


# ---- products
@pytest.mark.clause("CUDA-07")
@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.booleans(), st.integers(0, 2**32))
def test_a_product_is_that_of_the_definition(tokens: int, rows: int, columns: int, rounded: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    dtype = np.dtype(ml_dtypes.bfloat16 if rounded else np.float32)
    x, weight = (random.standard_normal((count, columns)).astype(dtype) for count in (tokens, rows))
    with installed(Machine()) as machine:
        device = device_of(machine)
        found = device.download(device.product(device.upload(x), device.upload(weight)))
    assert found.dtype == np.float32 and found.shape == (tokens, rows)
    np.testing.assert_allclose(found, x.astype(np.float64) @ weight.astype(np.float64).T, rtol=1e-6, atol=1e-6)


@pytest.mark.clause("CUDA-07")
def test_operands_that_do_not_fit_are_refused() -> None:
    with installed(Machine()) as machine:
        device = device_of(machine)
        x = device.upload(np.ones((4, 8), np.float32))
        for other in (np.ones((4, 7), np.float32), np.ones((4, 8), np.float64)):
            with pytest.raises(InternalError):
                device.product(x, device.upload(other))
        with pytest.raises(InternalError, match="float64"):
            device.product(*(device.upload(np.ones((4, 8))) for _ in range(2)))
        with pytest.raises(InternalError, match="gaps"):
            device.product(x[:, :4], x[:, 4:])


@pytest.mark.clause("CUDA-07")
def test_the_trial_would_see_any_rounding() -> None:
    for dtype in ("float32", "bfloat16"):
        x, weight, expected = trial(dtype)
        exact = x.astype(np.float64) @ weight.astype(np.float64).T
        assert np.array_equal(exact, expected) and len({*map(bytes, expected)}) > 3
        backwards = np.zeros_like(expected)
        for column in reversed(range(x.shape[1])):  # whatever the order, float32 holds every part of a sum
            backwards += np.outer(x[:, column].astype(np.float32), weight[:, column].astype(np.float32))
        assert np.array_equal(backwards, expected)
        tf32 = (x.astype(np.float32).view(np.uint32) & ~np.uint32(0x1FFF)).view(np.float32) @ weight.astype(
            np.float32
        ).T
        assert (dtype == "bfloat16") == np.array_equal(tf32, expected)
        sums = np.zeros(expected.shape, ml_dtypes.bfloat16)
        for column in range(x.shape[1]):
            sums += np.outer(x[:, column], weight[:, column]).astype(ml_dtypes.bfloat16)
        assert not np.array_equal(sums.astype(np.float32), expected)


@pytest.mark.clause("CUDA-07")
def test_a_library_that_rounds_is_not_used() -> None:
    with installed(Machine()) as machine:
        machine.blas.rounds = True
        device = device_of(machine)
        x = device.upload(np.ones((2, 2), np.float32))
        with pytest.raises(DeviceError, match="cuBLAS multiplies float32 wrongly, or less precisely"):
            device.product(x, x)


@pytest.mark.clause("CUDA-06")
@pytest.mark.clause("CUDA-07")
@pytest.mark.parametrize(
    ("call", "status", "kind", "told"),
    [
        ("create", 1, DeviceError, "cublasCreate_v2 failed: CUBLAS_STATUS_NOT_INITIALIZED"),
        ("create", 3, ResourceExhausted, "cublasCreate_v2 failed: CUBLAS_STATUS_ALLOC_FAILED"),
        ("gemm", 13, DeviceError, "cublasGemmEx failed: CUBLAS_STATUS_EXECUTION_FAILED"),
        ("gemm", 99, DeviceError, "cublasGemmEx failed: CUBLAS_STATUS_99"),
    ],
)
def test_every_status_is_looked_at(call: str, status: int, kind: type[FerrumError], told: str) -> None:
    with installed(Machine()) as machine:
        machine.blas.status[call] = status
        device = device_of(machine)
        x = device.upload(np.ones((2, 2), np.float32))
        with pytest.raises(kind, match=told):
            device.product(x, x)


@pytest.mark.clause("CUDA-08")
@pytest.mark.parametrize("fault", ["refuses_captures", "wrong_in_captures"])
def test_where_captured_products_fail_steps_run_without_a_graph(fault: str) -> None:
    with installed(Machine()) as machine:
        setattr(machine.blas, fault, True)
        device = device_of(machine)
        x = device.upload(np.ones((2, 3), np.float32))
        with pytest.warns(UserWarning, match="cuBLAS does not work in a CUDA graph"):
            device.product(x, x)
        with warnings.catch_warnings():  # it is said once
            warnings.simplefilter("error")
            for _ in range(2):
                with pytest.raises(NotCapturable, match="trial in a capture failed"):
                    device.capture(lambda: device.product(x, x))
            assert device.download(device.product(x, x)).tolist() == [[3, 3], [3, 3]]


# ---- graphs
@pytest.mark.clause("CUDA-08")
@given(st.lists(st.sampled_from(["launch", "graph", "upload", "product", "wait"]), max_size=12))
def test_a_graph_runs_in_the_order_of_all_launches(steps: list[str]) -> None:
    """x is doubled by a kernel and by a graph, and copied into y by the graph; everything sees what came before."""
    with installed(Machine()) as machine:
        device = device_of(machine)
        x = device.upload(np.ones((2, 2), np.float32))
        square = np.array([[1, 2], [3, 4]], np.float32)
        weight = device.upload(square)

        def run() -> Any:
            launch(device, "double", x)
            out = device.empty((2, 2), "float32")
            launch(device, "copy", x, out)
            return device.product(out, weight)

        run()
        graph, result = device.capture(run)
        host, latest = np.full((2, 2), 4, np.float32), None  # two eager runs; nothing ran in the capture
        for step in steps:
            if step == "launch":
                launch(device, "double", x)
                host *= 2
            elif step == "graph":
                graph.launch()
                host *= 2
                latest = host @ square.T
            elif step == "product":
                assert np.array_equal(device.download(device.product(x, weight)), host @ square.T)
            elif step == "upload":
                launch(device, "copy", device.upload(np.ones((2, 2), np.float32)), x)
                host[...] = 1
            else:
                assert np.array_equal(device.download(x), host)
        assert np.array_equal(device.download(x), host)
        assert latest is None or np.array_equal(device.download(result), latest)


REFUSED = {
    "a host array": lambda device, x: device.upload(np.ones(3)),
    "a copy to the host": lambda device, x: device.download(x),
    "add, for which there is no kernel": lambda device, x: device.xp.add(x, x),
    "more memory in the capture than in the run before it": lambda device, x: device.empty((1000,), "float32"),
}


@pytest.mark.clause("CUDA-08")
@pytest.mark.parametrize("what", REFUSED)
def test_what_a_graph_cannot_contain_is_refused(what: str) -> None:
    with installed(Machine()) as machine:
        device = device_of(machine)
        x = device.upload(np.ones(4, np.float32))
        runs: list[None] = []

        def run() -> Any:
            runs.append(None)
            launch(device, "double", x)
            if len(runs) > 1:
                REFUSED[what](device, x)
            return x

        with pytest.raises(NotCapturable, match=f"^{what}$"):
            device.capture(run)
        assert_as_before(device, x, [2, 2, 2, 2])


@pytest.mark.clause("CUDA-08")
@pytest.mark.parametrize("error", [CUDARuntimeError("cudaErrorInvalidValue: no"), InternalError("a defect")])
def test_a_failure_within_a_capture_ends_it(error: Exception) -> None:
    """A step that CUDA refuses is not captured; any other error is raised."""
    with installed(Machine()) as machine:
        device = device_of(machine)
        x = device.upload(np.ones(4, np.float32))
        runs: list[None] = []

        def run() -> Any:
            runs.append(None)
            launch(device, "double", x)
            if len(runs) > 1:
                raise error
            return x

        with pytest.raises(NotCapturable if isinstance(error, CUDARuntimeError) else InternalError):
            device.capture(run)
        assert_as_before(device, x, [2, 2, 2, 2])


@pytest.mark.clause("CUDA-08")
def test_a_graph_that_has_no_memory_is_not_captured() -> None:
    with installed(Machine()) as machine:
        device = device_of(machine)
        x = device.upload(np.ones(4, np.float32))

        def run() -> Any:
            out = device.empty((4,), "float32")
            launch(device, "copy", x, out)
            machine.memory_left = 100
            return out

        with pytest.raises(NotCapturable, match="256 bytes"):
            device.capture(run)
        machine.memory_left = 1 << 30
        assert_as_before(device, x, [1, 1, 1, 1])


def assert_as_before(device: GpuDevice, x: Any, values: list[float]) -> None:
    assert device.download(x).tolist() == values
    launch(device, "double", x)
    assert device.download(device.upload(np.ones(1))).tolist() == [1]
    graph, _ = device.capture(lambda: launch(device, "double", x))
    graph.launch()
    assert device.download(x).tolist() == [8 * value for value in values]
