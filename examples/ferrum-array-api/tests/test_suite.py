"""The conformance suite on every backend of this package, and what is said of a device that cannot be used."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ferrum_array_api.ops import DEVICE

from ferrum.backends.registry import load_backend
from ferrum.errors import DeviceError, Unsupported

HERE = Path(__file__).parent
STRICT = "ferrum_array_api:ArrayApiOps"
TORCH = "ferrum_array_api:TorchOps"
METAL = "metal:MetalImitation"

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


@pytest.mark.parametrize(
    ("backend", "device"),
    [
        (STRICT, None),
        (STRICT, "no_float64"),
        pytest.param(TORCH, None, marks=needs_torch),
        pytest.param(METAL, None, marks=needs_torch),
    ],
)
def test_the_suite_passes(backend: str, device: str | None) -> None:
    command = [sys.executable, "-m", "ferrum", "conformance", backend, "--level", "smoke"]
    chosen = {} if device is None else {DEVICE: device}
    # `metal` is found because it lies where the command is started
    path = os.pathsep.join(place for place in sys.path if place != str(HERE))
    ran = subprocess.run(
        command, env={**os.environ, **chosen, "PYTHONPATH": path}, capture_output=True, text=True, cwd=HERE
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("backend", [STRICT, pytest.param(TORCH, marks=needs_torch)])
def test_a_device_that_is_not_there_is_named(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICE, "nowhere")
    with pytest.raises(DeviceError, match="nowhere"):
        load_backend(backend)


def test_a_device_without_the_type_of_activations_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICE, "no_float64")
    with pytest.raises(Unsupported, match="float64"):
        load_backend(STRICT, float_dtype="float64")
