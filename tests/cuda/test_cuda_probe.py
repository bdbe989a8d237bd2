"""CUDA-03, CUDA-04: whether there is a device, and the sentence where there is none."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ferrum.backends.cuda import probe
from ferrum.errors import BackendError


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


def fails(error: Exception) -> Any:
    def call(*_: Any) -> Any:
        raise error

    return call


class Machine:
    """A stand-in for CuPy on a machine with a GPU. Each field can be replaced by that of a machine with a fault."""

    def __init__(self) -> None:
        self.runtime = SimpleNamespace(
            driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13020, getDeviceCount=lambda: 2, is_hip=False,
            CUDARuntimeError=CUDARuntimeError,
        )  # fmt: skip
        self.capability = "90"
        self.version = "14.2.0"
        self.nvrtc = SimpleNamespace(getVersion=lambda: (13, 0))

    def install(self, patch: pytest.MonkeyPatch) -> None:
        device = SimpleNamespace(compute_capability=self.capability)
        cuda = SimpleNamespace(runtime=self.runtime, Device=lambda _: device)
        cupy = ModuleType("cupy")
        vars(cupy).update(__version__=self.version, cuda=cuda, __spec__=SimpleNamespace())
        patch.setitem(sys.modules, "cupy", cupy)
        patch.setitem(sys.modules, "cupy_backends.cuda.libs.cublas", ModuleType("cublas"))
        patch.setitem(sys.modules, "cupy_backends.cuda.libs.nvrtc", self.nvrtc)
        patch.setattr(probe, "_has_driver", lambda: self.runtime.driverGetVersion() > 0)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def set_driver(machine: Machine, version: int) -> None:
    machine.runtime.driverGetVersion = lambda: version


def make_count_fail(machine: Machine, text: str) -> None:
    machine.runtime.getDeviceCount = fails(CUDARuntimeError(text))


WORSE: dict[str, tuple[Any, str]] = {
    "old CuPy": (lambda m: setattr(m, "version", "13.6.0"), "CuPy 13.6.0 has no bfloat16"),
    "AMD": (lambda m: setattr(m.runtime, "is_hip", True), "AMD"),
    "no driver": (lambda m: set_driver(m, 0), "there is no NVIDIA driver"),
    "older driver": (
        lambda m: set_driver(m, 12080),
        r"supports CUDA 12\.8, and CuPy was built for CUDA 13\.2; .*cuda12",
    ),
    "ancient driver": (lambda m: set_driver(m, 11040), r"supports CUDA 11\.4, .*; update the driver$"),
    "count 0": (lambda m: setattr(m.runtime, "getDeviceCount", lambda: 0), "there is no CUDA device; "),
    "none": (
        lambda m: make_count_fail(m, "cudaErrorNoDevice: no CUDA-capable device is detected"),
        "there is no CUDA device; ",
    ),
    "not ready": (
        lambda m: make_count_fail(m, "cudaErrorSystemNotReady: system not yet initialized\nmore"),
        "does not start: cudaErrorSystemNotReady: system not yet initialized; ",
    ),
    "old device": (lambda m: setattr(m, "capability", "75"), r"compute capability is 7\.5, and the kernels need 8\.0"),
    "no NVRTC": (
        lambda m: setattr(m.nvrtc, "getVersion", fails(RuntimeError("no libnvrtc.so.13"))),
        "NVRTC is missing",
    ),
}


@pytest.mark.clause("CUDA-03")
@pytest.mark.parametrize("worse", WORSE)
def test_each_cause_has_one_sentence(worse: str, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    change, sentence = WORSE[worse]
    change(machine)
    machine.install(monkeypatch)
    with pytest.raises(BackendError, match=sentence) as caught:
        probe.check()
    assert "\n" not in str(caught.value)
    assert not probe.available()


@pytest.mark.clause("CUDA-03")
def test_nothing_is_said_where_all_is_well(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.install(monkeypatch)
    probe.check()
    probe.check(1)
    assert probe.available() and probe.available(1)
    for capability in ("80", "100", "121"):
        machine.capability = capability
        machine.install(monkeypatch)
        probe.check()


@pytest.mark.clause("CUDA-03")
@pytest.mark.parametrize("number", [-1, 2, 7])
def test_a_device_that_is_not_there(number: int, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.install(monkeypatch)
    with pytest.raises(BackendError, match=f"there is no CUDA device {number}: the 2 here are numbered from 0"):
        probe.check(number)


@pytest.mark.clause("CUDA-03")
def test_devices_that_are_hidden(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine.runtime.getDeviceCount = lambda: 0
    machine.install(monkeypatch)
    with pytest.raises(BackendError, match="CUDA_VISIBLE_DEVICES is '', which hides all others"):
        probe.check()


@pytest.mark.clause("CUDA-03")
def test_a_missing_cublas(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.install(monkeypatch)
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs.cublas", None)
    with pytest.raises(BackendError, match="cuBLAS is missing or does not load"):
        probe.check()


@pytest.mark.clause("CUDA-03", "CUDA-66")
@pytest.mark.parametrize("where", ["driverGetVersion", "runtimeGetVersion"])
@pytest.mark.parametrize("error", [RuntimeError("cudaErrorDevicesUnavailable: busy"), SystemExit("no"), KeyError("x")])
def test_whatever_fails_is_one_sentence_and_no_gpu_for_auto(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    setattr(machine.runtime, where, fail)
    machine.install(monkeypatch)
    with pytest.raises(BackendError, match="numba needs no GPU"):
        probe.check()
    monkeypatch.setattr(probe, "_has_driver", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert not probe.available()


@pytest.mark.clause("CUDA-03")
@pytest.mark.parametrize("version", ["", "__version__ = None", "__version__ = 'unknown'"])
def test_a_module_that_is_no_cupy(version: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cupy.py").write_text(version)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(BackendError, match="is not CuPy"):
        probe.check()


@pytest.mark.clause("CUDA-03")
def test_no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BackendError, match=r"CuPy, which is not installed: pip install 'cupy-cuda13x\[ctk\]'"):
        probe.check()
    assert not probe.available()


@pytest.mark.clause("CUDA-03")
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("import no_such_module_at_all", "CuPy cannot be imported: No module named 'no_such_module_at_all'"),
        ("raise OSError('bad ELF\\nand more')", "CuPy cannot be imported: bad ELF; install it again"),
        ("raise ValueError", "CuPy cannot be imported: ValueError; install it again"),
    ],
)
def test_a_broken_cupy(body: str, sentence: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cupy.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(BackendError, match=sentence):
        probe.check()


@pytest.mark.clause("CUDA-04")
def test_without_a_driver_cupy_is_not_imported() -> None:
    """The answer for `--backend auto` on most machines: no GPU, and it must not cost anything."""
    program = (
        "import sys\nfrom ferrum.backends.cuda import probe\nprobe.DRIVER = 'libno-such-driver.so.1'\n"
        "print(probe.available(), 'cupy' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


@pytest.mark.clause("CUDA-03")
@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_the_real_one_agrees_with_itself() -> None:
    """On the machine of the test either a device is found, or there is one sentence that says why not."""
    program = (
        "from ferrum.backends.cuda import probe\nfrom ferrum.errors import BackendError\n"
        "try:\n    probe.check()\n    print('well')\nexcept BackendError as error:\n    print(error)\n"
        "print(probe.available())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    said, available = ran.stdout.splitlines()
    assert (said == "well") == (available == "True")
    if not probe._has_driver():
        assert said.startswith("there is no NVIDIA driver on this machine")
