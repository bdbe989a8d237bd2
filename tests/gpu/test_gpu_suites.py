"""CUDA-19 and CUDA-60 on a GPU: the conformance suite, and the tests of every kernel beside float64."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.device import ON_SHIM

ROOT = Path(__file__).parents[2]
KERNELS = ("attention", "backend", "blocks", "choose", "elementwise", "experts", "families", "products", "rows")

if ON_SHIM:
    pytest.skip("these suites run on the shim as they are", allow_module_level=True)


def run(*arguments: str, **environment: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment})
    assert ran.returncode == 0, ran.stdout[-8000:]


@pytest.mark.clause("CUDA-60")
def test_the_conformance_suite() -> None:
    run("--pyargs", "ferrum.conformance", "--backend", "cupy")


@pytest.mark.clause("CUDA-19")
@pytest.mark.parametrize("kernels", KERNELS)
def test_kernels_beside_float64(kernels: str) -> None:
    run(f"tests/cuda/test_cuda_{kernels}.py", FERRUM_CUDA_TESTS="gpu")
