"""CUDA-05 to CUDA-09: the device made of CuPy, on a CuPy without a GPU."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ferrum.backends.cuda import gpu
from ferrum.backends.cuda.cubins import Cubins
from ferrum.backends.cuda.failures import TranslatingModule, translated
from ferrum.errors import DeviceError, FerrumError, ResourceExhausted
from ferrum.tensor.ops import host_dtype
from tests.cuda.fake_cupy import BLOCK, CUDARuntimeError, Machine, OutOfMemoryError, device_of, installed, launch

pytestmark = pytest.mark.usefixtures("own_cache")

host_arrays = st.sampled_from(["float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool"]).flatmap(
    lambda dtype: hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5).flatmap(
        lambda shape: hnp.arrays(np.uint8, (*shape, host_dtype(dtype).itemsize), elements=st.integers(0, 1)).map(
            lambda raw: raw.view(host_dtype(dtype))[..., 0]
        )
    )
)


@pytest.mark.clause("CUDA-06")
def test_failures_of_the_array_library_are_told() -> None:
    def fail(*_: object) -> None:
        raise OutOfMemoryError("Out of memory allocating 4 bytes")

    module = SimpleNamespace(add=fail, sort=lambda x: x, ndarray=np.ndarray, pi=3.0)
    told = TranslatingModule(module)
    with pytest.raises(ResourceExhausted, match="the GPU is out of memory"):
        told.add(1, 2)
    assert (told.sort(5), told.ndarray, told.pi) == (5, np.ndarray, 3.0)


# ---- copies
@pytest.mark.clause("CUDA-09")
@example(np.arange(6, dtype=np.int32).reshape(2, 3), True, 0)
@given(host_arrays, st.booleans(), st.sampled_from([0, 1 << 20]))
def test_what_was_uploaded_comes_back(values: np.ndarray, turned: bool, staged: int) -> None:
    """Even where the host array changes as soon as `upload` has returned, and has gaps."""
    with installed(Machine()) as machine, pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "STAGED", staged)
        device = device_of(machine)
        source = values.copy().T if turned else values.copy()
        expected = source.copy()
        array = device.upload(source)
        source[...] = source ^ 1 if source.dtype.kind in "uib" else source + 1
        assert array.shape == expected.shape and str(array.dtype) == str(expected.dtype)
        found = device.download(array)
        assert found.dtype == expected.dtype and found.tobytes() == expected.tobytes()
        assert device.download(array.T).tobytes() == np.ascontiguousarray(expected.T).tobytes()


@pytest.mark.clause("CUDA-09")
def test_a_download_waits_for_what_was_launched_before_and_keeps_its_own_memory() -> None:
    with installed(Machine()) as machine:
        device = device_of(machine)
        array = device.upload(np.arange(4.0, dtype=np.float32))
        launch(device, "double", array)
        first = device.download(array)
        launch(device, "double", array)
        second = device.download(array)
        assert first.tolist() == [0, 2, 4, 6] and second.tolist() == [0, 4, 8, 12]


@pytest.mark.clause("CUDA-09")
def test_memory_that_copies_come_from_does_not_pile_up() -> None:
    with installed(Machine()) as machine, pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "MOST_STAGED", 10_000)
        device = device_of(machine)
        arrays = [device.upload(np.full(1000, number, np.float32)) for number in range(20)]
        assert sum(machine.pinned.values()) <= 10_000
        assert machine.waits >= 20 * 4000 // 14_000
        assert [device.download(array)[0] for array in arrays] == list(range(20))
        assert sum(machine.pinned.values()) == 0


@pytest.mark.clause("CUDA-09")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool"])
def test_pinned_memory_can_be_written(dtype: str) -> None:
    with installed(Machine()) as machine:
        device = device_of(machine)
        array = device.pinned((3, 5), dtype)
        array[...] = 1
        assert array.shape == (3, 5) and str(array.dtype) == dtype and array.astype(int).sum() == 15
        assert device.pinned((0, 5), dtype).shape == (0, 5)


moves = st.tuples(st.sampled_from(["out", "in", "work"]), st.permutations(range(6)), st.integers(0, 5))


@pytest.mark.clause("CUDA-09")
@given(st.lists(moves), st.booleans())
def test_rows_travel_beside_the_work(steps: list[tuple[str, list[int], int]], is_prompt: bool) -> None:
    """As if every step ran at once: rows go to the host and come back, while sources are freed and written over."""
    with installed(Machine()) as machine:
        device, machine.is_prompt = device_of(machine), is_prompt
        places, expected = device.pinned((6, 3), "float32"), np.zeros((6, 3), np.float32)
        places[...] = 0
        for number, (step, order, count) in enumerate(steps):
            rows = order[:count]
            if step == "out":
                values = np.arange(3.0 * count, dtype=np.float32).reshape(count, 3) + number
                x = device.upload(values)
                launch(device, "double", x)
                device.store(x, places, rows)
                launch(device, "copy", device.upload(np.full_like(values, np.nan)), x)  # it may change afterwards
                expected[rows] = 2 * values
            elif step == "in":
                x = device.fetch(places, rows)
                launch(device, "double", x)
                assert np.array_equal(device.download(x), 2 * expected[rows])
            else:
                launch(device, "double", device.upload(np.ones(4, np.float32)))
        assert np.array_equal(device.download(device.fetch(places, range(6))), expected)


@pytest.mark.clause("CUDA-09")
def test_what_is_on_its_way_is_kept_and_not_much_of_it() -> None:
    with installed(Machine()) as machine:
        device = device_of(machine)
        places = device.pinned((1, 3), "float32")
        places[...] = 5
        x = device.fetch(places, [0])
        del places
        assert device.download(x).tolist() == [[5, 5, 5]]
        for _ in range(50):
            device.store(x, device.pinned((1, 3), "float32"), [0])
        assert machine.given_back >= 40 and len(machine.pinned) <= 10


@pytest.mark.clause("CUDA-09")
def test_what_the_pool_keeps_is_free() -> None:
    with installed(Machine()) as machine:
        assert device_of(machine).memory() == (6000, 9000)


# ---- failures
@pytest.mark.clause("CUDA-06")
@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (OutOfMemoryError("Out of memory allocating 4 bytes"), ResourceExhausted, "the GPU is out of memory: Out of"),
        (CUDARuntimeError("cudaErrorMemoryAllocation: out of memory"), ResourceExhausted, "smaller kv_memory"),
        (
            CUDARuntimeError("cudaErrorInvalidValue: invalid argument"),
            DeviceError,
            "failed: cudaErrorInvalidValue: inv",
        ),
        (
            CUDARuntimeError("cudaErrorIllegalAddress: an illegal"),
            DeviceError,
            "this process cannot use the GPU any more",
        ),
        (
            type("CUDADriverError", (RuntimeError,), {})("CUDA_ERROR_OUT_OF_MEMORY: x"),
            ResourceExhausted,
            "out of memory",
        ),
    ],
)
def test_failures_are_told_in_our_own_errors(error: Exception, kind: type[FerrumError], told: str) -> None:
    with installed(Machine()) as machine:
        device = device_of(machine)
        x = device.upload(np.ones(4, np.float32))
        device.download(x)
        for call in (lambda: launch(device, "double", x), lambda: device.upload(np.ones(4))):
            machine.fail_next = error
            with pytest.raises(kind, match=told) as caught:
                call()
            assert caught.value.__cause__ is error
        assert device.download(x).tolist() == [1, 1, 1, 1]


@pytest.mark.clause("CUDA-06")
def test_other_errors_stay_what_they_are() -> None:
    assert translated(ValueError("cudaErrorMemoryAllocation")) is None
    with installed(Machine()) as machine:
        device = device_of(machine)
        machine.fail_next = ValueError("x")
        with pytest.raises(ValueError):
            launch(device, "double", device.empty((1,), "float32"))
        with pytest.raises(ResourceExhausted):
            device.empty((1 << 40,), "uint8") if machine.memory_left < 1 << 40 else None


@pytest.mark.clause("CUDA-09")
def test_every_thread_uses_the_same_device() -> None:
    with installed(Machine(devices=3)) as machine:
        device = device_of(machine, 2)
        x = device.upload(np.ones(4, np.float32))
        kernel = device._load("text", ()).get_function("double")
        work = [lambda: kernel((1, 1, 1), BLOCK, (x,)), lambda: device.upload(np.ones(3)), lambda: device.product(y, y)]
        y = device.upload(np.ones((2, 2), np.float32))
        for each in work:
            thread = threading.Thread(target=each)
            thread.start()
            thread.join()
        assert len({thread for thread, _ in machine.used_by}) > 1
        assert {number for _, number in machine.used_by} == {2}


# ---- compiling
@pytest.mark.clause("CUDA-05")
def test_a_source_is_compiled_once_for_all_processes_and_keeps_small_numbers() -> None:
    with installed(Machine()) as machine:
        for _ in range(2):
            device = device_of(machine)
            device._load("some text", ("-DTYPE=float",))
            device._load("some text", ("-DTYPE=half_t",))
            device._load("other text", ())
        assert [text for text, _ in machine.compiled] == ["some text", "some text", "other text"]
        for _, options in machine.compiled:
            assert options[:3] == ("--gpu-architecture=sm_90", "--std=c++17", "--fmad=false")
            assert not any("ftz" in option or "fast" in option for option in options)
        assert {options[3:] for _, options in machine.compiled} == {("-DTYPE=float",), ("-DTYPE=half_t",), ()}


@pytest.mark.clause("CUDA-05")
def test_without_a_place_to_keep_it_everything_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRUM_CACHE", "/dev/null/nowhere")
    with installed(Machine()) as machine:
        for _ in range(2):
            device_of(machine)._load("some text", ())
        assert len(machine.compiled) == 2


@pytest.mark.clause("CUDA-05")
@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_the_real_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRUM_CACHE", str(tmp_path))
    nvrtc = importlib.import_module("cupy_backends.cuda.libs.nvrtc")
    try:
        nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"NVRTC does not load: {str(error).splitlines()[0]}")
    cubins = Cubins(nvrtc, "90")
    text = 'extern "C" __global__ void f(VALUE* x) { *x = 1; }'
    code = cubins.get(text, ("-DVALUE=float",))
    assert code.startswith(b"\x7fELF") and code == cubins.get(text, ("-DVALUE=float",))
    assert code != cubins.get(text, ("-DVALUE=double",))
    with pytest.raises(DeviceError, match=r"a kernel does not compile: kernels\.cu\(1\): error"):
        cubins.get(text, ())
