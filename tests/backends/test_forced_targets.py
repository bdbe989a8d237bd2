"""OPS-51: the backend on every target that this processor can be forced to, each in new processes.

Numba and this backend read the target once, when they are imported. Each target has its own kernel cache, so that
every kernel is compiled once for its logits and its tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from ferrum.backends.numba_kernels.loading import features
from ferrum.backends.numba_kernels.loading.target import _asked
from tests.backends.under_target import CASES, HALF_CACHE, Q8_CACHE
from tests.house.source import ROOT
from tests.tiny import distance

FORCING = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX")
SUITE = ("ferrum/conformance", "tests/backends/test_kernel_bits.py")
OPTIONS = ("--backend", "numba", "-p", "no:cacheprovider")
FEW = {"HYPOTHESIS_PROFILE": "few"}
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"


@dataclass(frozen=True)
class Target:
    """A processor with LLVM's name for it, and the features that the backend must find on it."""

    processor: str
    features: frozenset[str]

    @property
    def environment(self) -> dict[str, str]:
        listed = ",".join(f"+{name}" for name in sorted(self.features))
        return {"NUMBA_CPU_NAME": self.processor, "NUMBA_CPU_FEATURES": listed}


BASELINE = frozenset({"sse2"})
FUSED = BASELINE | {"avx", "f16c", "fma"}
SHUFFLED = FUSED | {"avx2", "bmi", "bmi2", "lzcnt", "movbe", "popcnt"}
WIDE = SHUFFLED | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
TARGETS = {
    "plain": Target("generic", BASELINE),
    "avx": Target("x86-64", FUSED),
    "avx2": Target("haswell", SHUFFLED),
    "avx512": Target("skylake-avx512", WIDE),
}
SUITED = tuple(TARGETS) if NIGHTLY else ("plain",)
"""The targets on which the whole suite runs; the logits of models are compared on all targets. By default the suite
runs on the target that shares least with this processor; compiling all kernels takes a minute for each."""
HOST = frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    """The name of a target that this processor can execute."""
    missing = TARGETS[request.param].features - HOST
    if missing:
        pytest.skip(f"this processor cannot execute {request.param}: it has no {', '.join(sorted(missing))}")
    return str(request.param)


@dataclass(frozen=True)
class Finished:
    """The results of the processes of one target."""

    logits: dict[str, np.ndarray]
    suite: subprocess.CompletedProcess[str] | None


class Runs:
    """Runs processes under forced targets, two targets at a time, since compiling keeps one processor busy."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self._folder = folder
        able = [name for name, target in TARGETS.items() if target.features <= HOST]
        self._runs: dict[str, Future[Finished]] = {name: pool.submit(self._finish, name) for name in able}
        self._host = pool.submit(self._logits, "host", unforced())

    def finished(self, target: str) -> Finished:
        return self._runs[target].result()

    def host_logits(self) -> dict[str, np.ndarray]:
        return self._host.result()

    def _finish(self, target: str) -> Finished:
        environment = {**unforced(), **TARGETS[target].environment, "FERRUM_CACHE": str(self._folder / target)}
        logits = self._logits(target, environment)
        suite = run(["pytest", *OPTIONS, *SUITE], {**environment, **FEW}) if target in SUITED else None
        return Finished(logits, suite)

    def _logits(self, name: str, environment: dict[str, str]) -> dict[str, np.ndarray]:
        path = self._folder / f"{name}.npz"
        done = run(["tests.backends.under_target", "logits", str(path)], environment)
        assert done.returncode == 0, done.stderr
        with np.load(path) as saved:
            return dict(saved)


def unforced() -> dict[str, str]:
    """The environment of this process without a forced target, and with this source tree first in the path."""
    kept = {name: value for name, value in os.environ.items() if name not in (*FORCING, "NUMBA_CACHE_DIR")}
    return {**kept, "PYTHONPATH": str(ROOT)}


def run(module: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *module], env=environment, capture_output=True, text=True, cwd=ROOT, check=False
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with ThreadPoolExecutor(2) as pool:
        yield Runs(tmp_path_factory.mktemp("targets"), pool)


@pytest.mark.clause("OPS-51")
@pytest.mark.parametrize("target", SUITED, indirect=True)
def test_a_forced_target_passes_the_suite(target: str, runs: Runs) -> None:
    suite = runs.finished(target).suite
    assert suite is not None
    assert suite.returncode == 0, suite.stdout[-10000:] + suite.stderr[-2000:]


@pytest.mark.clause("OPS-51")
def test_logits_of_a_forced_target_are_those_of_this_processor(target: str, runs: Runs) -> None:
    """The logits have the same bits if the target fuses multiplication and addition. Otherwise they differ by rounding,
    also of keys and values that are stored in 16 bits."""
    found, expected = runs.finished(target).logits, runs.host_logits()
    assert found.keys() == expected.keys() == CASES.keys()
    if "fma" in TARGETS[target].features:
        assert [name for name in CASES if found[name].tobytes() != expected[name].tobytes()] == []
    else:
        distances = {name: distance(found[name].ravel(), expected[name].ravel()) for name in CASES}
        most = {HALF_CACHE: 1e-4, Q8_CACHE: 1e-2}  # a rounded key may be one step off
        assert {name: far for name, far in distances.items() if far > most.get(name, 1e-5)} == {}


# ---- what is forced is what is compiled, on any x86 processor: nothing here is executed
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"WIDTH": 4, "REGISTERS": 16, "HAS_AVX512": False, "HAS_BYTE_SHUFFLE": False, "HAS_HALF": False},
    "avx": {"WIDTH": 8, "REGISTERS": 16, "HAS_AVX512": False, "HAS_BYTE_SHUFFLE": False, "HAS_HALF": True},
    "avx2": {"WIDTH": 8, "REGISTERS": 16, "HAS_AVX512": False, "HAS_BYTE_SHUFFLE": True, "HAS_HALF": True},
    "avx512": {"WIDTH": 16, "REGISTERS": 32, "HAS_AVX512": True, "HAS_BYTE_SHUFFLE": True, "HAS_HALF": True},
}
REGISTERS = {"plain": {"xmm"}, "avx": {"xmm", "ymm"}, "avx2": {"xmm", "ymm"}, "avx512": {"xmm", "ymm", "zmm"}}
TYPICAL = {
    "plain": {"mulps", "addps"},
    "avx": {"vfmadd231ps", "vcvtph2ps"},
    "avx2": {"vfmadd231ps", "vcvtph2ps", "vpshufb"},
    "avx512": {"vfmadd231ps", "vcvtph2ps", "vrndscaleps"},
}
"""Mnemonics of each feature: fused multiply-add, native float16, shuffle of bytes, rounding in the widest register."""


@pytest.mark.clause("OPS-51")
@pytest.mark.skipif(not HOST >= BASELINE, reason="the targets are of x86 processors")
@pytest.mark.parametrize("name", TARGETS)
def test_machine_code_is_of_the_forced_target(name: str, tmp_path: Path) -> None:
    environment = {**unforced(), **TARGETS[name].environment, "FERRUM_CACHE": str(tmp_path)}
    done = run(["tests.backends.under_target", "code"], environment)
    assert done.returncode == 0, done.stderr
    code = json.loads(done.stdout)
    assert code["variants"] == VARIANTS[name]
    assert set(code["registers"]) == REGISTERS[name]
    assert TYPICAL[name] <= set(code["mnemonics"])
    if name == "plain":
        assert [mnemonic for mnemonic in code["mnemonics"] if mnemonic.startswith("v")] == []  # VEX and EVEX


@pytest.mark.clause("OPS-51")
def test_features_are_those_that_numba_compiles_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: {"sse2": True, "avx512f": True, "sve": False})
    monkeypatch.setattr(features, "this_processor", _asked)
    for name in FORCING:
        monkeypatch.delenv(name, raising=False)
    assert features.cpu_features() == {"sse2", "avx512f"}
    monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")  # Numba adds what this processor has
    assert features.cpu_features() == {"sse2", "avx512f"}
    monkeypatch.setenv("NUMBA_ENABLE_AVX", "0")
    assert features.cpu_features() == {"sse2"}
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    assert features.cpu_features() == set()
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+sse2,-avx,+avx512f")
    assert features.cpu_features() == {"sse2", "avx512f"}
