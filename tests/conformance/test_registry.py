"""Backends by name, and the errors for names without a backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ferrum.backends import registry
from ferrum.backends.cuda import probe
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.backends.registry import load_backend
from ferrum.errors import BackendError, InvalidParameter, NotFound

MODULE = """
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.compositions import Compositions

class Works(NumpyOps):
    name = "works"

class Half(Compositions):
    name, float_dtype = "half", "float32"
    add = NumpyOps.add

class Fails(NumpyOps):
    def __init__(self):
        raise OSError("no such device")

class Leaves(NumpyOps):
    def __init__(self):
        raise SystemExit(0)
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere_backends.py").write_text(MODULE)
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.clause("OPS-40")
@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("numpyy", {}, NotFound, "'numpyy'"),
        ("nowhere.to.be.found:Ops", {}, BackendError, "nowhere"),
        ("elsewhere_backends:Missing", {}, NotFound, "Missing"),
        ("os:path", {}, NotFound, r"module 'os' is .*os\.py and has no backend class 'path'"),
        ("sys:path", {}, NotFound, "module 'sys' has no backend class 'path'"),
        ("./mine:MyOps", {}, BackendError, "name a module, not a file"),
        ("mine.py:MyOps", {}, BackendError, "name a module, not a file"),
        ("leaving:MyOps", {}, BackendError, "'leaving:MyOps' cannot be imported: it ends the process with 3"),
        ("elsewhere_backends:Leaves", {}, BackendError, "cannot run: it ends the process with 0"),
        (":", {}, BackendError, "cannot be imported"),
        (".x:Y", {}, BackendError, "cannot be imported"),
        (None, {}, InvalidParameter, "backend must be a name"),
        (5, {}, InvalidParameter, "backend must be a name"),
        ("elsewhere_backends:Fails", {}, BackendError, "no such device"),
        ("elsewhere_backends:Half", {}, BackendError, "lacks primitives: asarray, to_numpy"),
        ("numpy", {"threads": 2}, InvalidParameter, "threads"),
        ("elsewhere_backends:Works", {"float_dtype": "float16"}, InvalidParameter, "float32 or float64"),
    ],
)
@pytest.mark.usefixtures("elsewhere")
def test_what_cannot_run_says_why(name: str, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load_backend(name, **options)


@pytest.mark.usefixtures("elsewhere")
def test_a_class_of_another_package_is_found() -> None:
    assert load_backend("elsewhere_backends:Works").name == "works"


def test_options_reach_the_backend_and_none_means_not_given() -> None:
    ops = load_backend("numpy", float_dtype="float64", threads=None)
    assert isinstance(ops, NumpyOps)
    assert ops.float_dtype == "float64"


@pytest.mark.clause("CUDA-66")
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "available", lambda: True)
    assert registry._best({}) == "cupy"
    assert registry._best({"threads": 2}) == "numba"
    monkeypatch.setattr(probe, "available", lambda: False)
    assert registry._best({}) == "numba"
    assert load_backend("auto").name == "numba"


@pytest.mark.clause("CUDA-66")
def test_a_gpu_that_is_named_and_cannot_be_used_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise BackendError("there is no NVIDIA driver on this machine")

    monkeypatch.setattr(probe, "check", refuse)
    with pytest.raises(BackendError, match="no NVIDIA driver"):
        load_backend("cupy")
