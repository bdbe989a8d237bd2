"""CUDA-14, -15, -17: the memory and the captures of the shim's device, and the libraries that are kept for it."""

from __future__ import annotations

import gc
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum.backends.cuda.device import NotCapturable
from ferrum.backends.cuda.launch import Kernel
from ferrum.backends.cuda.source import signatures
from ferrum.errors import DeviceError
from ferrum.testing.cuda_shim import compiler
from ferrum.testing.cuda_shim.compiler import compiled
from tests.cuda.shim import ShimDevice

TEXT = """
extern "C" __global__ void add(const float* x, float* y, int at, float value) {
    if (threadIdx.x == 0) y[at] = x[0] + value;
}
"""
LIBRARY = f'#include "shim.h"\n{TEXT}'


@pytest.fixture
def device() -> ShimDevice:
    return ShimDevice()


def launcher(device: ShimDevice) -> Callable[..., None]:
    """add(x, y, at, value): y[at] = x[0] + value"""
    kernel = Kernel("add", signatures(TEXT)["add"], device._load(TEXT, ()).get_function("add"))
    return lambda *arguments: kernel((1,), (32,), *arguments)


# ---- memory
@pytest.mark.clause("CUDA-14")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int32", "int64", "uint8"])
def test_new_memory_holds_no_number(device: ShimDevice, dtype: str) -> None:
    for _ in range(2):
        x = device.empty((3, 5), dtype)
        assert x.shape == (3, 5) and str(x.dtype) == dtype and device.address(x) % 16 == 0
        assert (np.ascontiguousarray(x).view(np.uint8) == 0xFF).all()
        x[...] = 1
        del x


@pytest.mark.clause("CUDA-14")
def test_what_was_given_back_holds_no_number(device: ShimDevice) -> None:
    """A piece comes back with the last view of it, and may be the next one that is handed out."""
    x = device.upload(np.arange(6, dtype=np.float32))
    view, address = x[2:].reshape(2, 2), device.address(x)
    del x
    gc.collect()
    assert view.tolist() == [[2, 3], [4, 5]]
    later = device.empty((6,), "float32")
    assert device.address(later) != address
    del view
    gc.collect()
    again = device.empty((6,), "float32")
    assert device.address(again) == address and np.isnan(again).all()


@pytest.mark.clause("CUDA-14")
@pytest.mark.parametrize("place", [-1, -16, 6, 7, 21])
def test_a_kernel_that_wrote_beside_an_array_is_an_error(device: ShimDevice, place: int) -> None:
    add = launcher(device)
    x, y = (device.upload(np.arange(6, dtype=np.float32)) for _ in range(2))
    add(x, y, 5, 1.0)
    add(x, y, place, 1.0)
    del y
    gc.collect()
    with pytest.raises(DeviceError, match="wrote beyond the end of an array"):
        add(x, x, 0, 1.0)
    add(x, x, 0, 1.0)


@pytest.mark.clause("CUDA-14")
def test_an_upload_is_a_copy_and_a_download_another(device: ShimDevice) -> None:
    host = np.arange(6, dtype=np.float32)
    x = device.upload(host)
    host[:] = 7
    back = device.download(x)
    x[:] = 8
    assert back.tolist() == [0, 1, 2, 3, 4, 5]


# ---- captures
@pytest.mark.clause("CUDA-15")
def test_a_capture_runs_nothing_and_a_replay_everything(device: ShimDevice) -> None:
    add = launcher(device)
    given = device.upload(np.array([10], np.float32))

    def run() -> Any:
        first, second = device.empty((1,), "float32"), device.empty((1,), "float32")
        add(given, first, 0, 1.0)
        add(first, second, 0, 2.0)
        return second

    graph, result = device.capture(run)
    assert np.isnan(result).all()
    graph.launch()
    assert result.tolist() == [13]
    given[0] = 20
    graph.launch()
    assert result.tolist() == [23]


@pytest.mark.clause("CUDA-15")
def test_a_replay_starts_from_memory_without_numbers(device: ShimDevice) -> None:
    """What a run before has left there is not read by accident."""
    add, kept = launcher(device), list[Any]()
    given = device.upload(np.array([10], np.float32))

    def run() -> Any:
        kept.append(device.empty((1,), "float32"))
        result = device.empty((1,), "float32")
        add(kept[-1], result, 0, 1.0)
        add(given, kept[-1], 0, 0.0)
        return result

    graph, result = device.capture(run)
    for _ in range(2):
        graph.launch()
        assert np.isnan(result).all()


@pytest.mark.clause("CUDA-15")
@pytest.mark.parametrize(
    ("step", "word"),
    [
        (lambda device, x: device.upload(np.ones(1)), "a host array"),
        (lambda device, x: device.download(x), "a copy to the host"),
        (lambda device, x: device.product(x, x), "a product of many tokens"),
        (lambda device, x: device.xp.exp(x), "exp"),
    ],
)
def test_what_cannot_be_captured_is_refused_by_name(device: ShimDevice, step: Any, word: str) -> None:
    x, runs = device.upload(np.ones((1, 1), np.float32)), list[int]()

    def run() -> Any:
        runs.append(1)
        return x if len(runs) == 1 else step(device, x)

    with pytest.raises(NotCapturable, match=word):
        device.capture(run)
    step(device, x)  # the device is as it was
    launcher(device)(x, x, 0, 1.0)
    assert x.tolist() == [[2.0]]


# ---- kept libraries
@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FERRUM_CACHE", str(tmp_path))
    yield tmp_path / "shim"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the compiler was asked for."""
    texts: list[str] = []
    whole = compiler._compile

    def counted(program: str, text: str, options: tuple[str, ...]) -> bytes:
        texts.append(text)
        return whole(program, text, options)

    monkeypatch.setattr(compiler, "_compile", counted)
    return texts


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/*.o"))


@pytest.mark.clause("CUDA-17")
def test_a_text_is_compiled_once_for_each_set_of_options(cache: Path, made: list[str]) -> None:
    libraries = [compiled(LIBRARY, options) for options in [(), (), ("-DA=1",), ("-DA=1",), ()]]
    assert len(made) == 2 and len(set(libraries)) <= 2
    compiled(LIBRARY + "\n", ())
    assert len(made) == 3 == len(kept(cache))
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o077 for path in [cache, *cache.rglob("*")])


@pytest.mark.clause("CUDA-17")
@pytest.mark.parametrize(
    ("name", "other"),
    [("COMPILING", ("-O1", *compiler.COMPILING)), ("HEADERS", ("shim.h",)), ("LINKING", ("-shared",))],
)
def test_what_was_made_in_another_way_is_not_taken(
    cache: Path, made: list[str], name: str, other: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(LIBRARY, ())
    monkeypatch.setattr(compiler, name, other)
    compiled(LIBRARY, ())
    assert len(made) == 2 == len(kept(cache))


@pytest.mark.clause("CUDA-17")
@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b[:-1], lambda b: b[:100] + b"\0" + b[101:], lambda b: b"x"]
)
def test_a_damaged_library_is_made_again(cache: Path, made: list[str], damage: Callable[[bytes], bytes]) -> None:
    whole = compiled(LIBRARY, ())
    (path,) = kept(cache)
    intact = path.read_bytes()
    path.write_bytes(damage(intact))
    assert compiled(LIBRARY, ()) == whole and len(made) == 2
    assert path.read_bytes() == intact


@pytest.mark.clause("CUDA-17")
@pytest.mark.parametrize("open_to_others", ["", "*", "*/*.o"])
def test_what_others_could_have_written_is_not_run(cache: Path, made: list[str], open_to_others: str) -> None:
    compiled(LIBRARY, ())
    place = next(cache.glob(open_to_others)) if open_to_others else cache
    place.chmod(place.stat().st_mode | stat.S_IWOTH)
    compiled(LIBRARY, ())
    assert len(made) == 2


@pytest.mark.clause("CUDA-17")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_not_run(cache: Path, made: list[str]) -> None:
    compiled(LIBRARY, ())
    os.chown(cache, 65534, 65534)
    compiled(LIBRARY, ())
    assert len(made) == 2


@pytest.mark.clause("CUDA-17")
def test_where_nothing_can_be_kept_kernels_run_all_the_same(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ["/dev/null/no", "~nobody-has-this-name/cache"]:
        monkeypatch.setenv("FERRUM_CACHE", place)
        assert compiled(LIBRARY, ()).startswith(b"\x7fELF")
    assert len(made) == 2


@pytest.mark.clause("CUDA-17")
def test_processes_may_compile_the_same_text_at_once(cache: Path) -> None:
    code = f"""
from ferrum.testing.cuda_shim.module import ShimModule
import numpy as np
y = np.zeros(1, np.float32)
ShimModule({TEXT!r}).get_function("add")((1, 1, 1), (32, 1, 1), (y + 1, y, np.int32(0), np.float32(2)))
assert y[0] == 3
"""
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [each.wait() for each in running] == [0, 0, 0]
    assert len(kept(cache)) == 1 and not list(cache.rglob("*.part"))


@pytest.mark.clause("CUDA-17")
def test_a_text_that_does_not_compile_says_why(cache: Path) -> None:
    with pytest.raises(DeviceError, match=r"^a kernel does not compile: (?s:.)*nonsense"):
        compiled(LIBRARY + "nonsense;", ())
    assert kept(cache) == []


@pytest.mark.clause("CUDA-17")
def test_without_a_compiler_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeviceError, match=r"install g\+\+$"):
        compiled(LIBRARY, ())
