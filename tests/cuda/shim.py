"""Devices without a GPU for the tests here, which are skipped where kernels cannot run on the CPU.

Owns: the reason for the skip, one device for each seed, and the seeds that a result is compared at. With "gpu" in the
environment variable FERRUM_CUDA_TESTS the same tests run every kernel on a GPU.
Refuses to know: kernels. Next: `ferrum.testing.cuda_shim.device`.
"""

from __future__ import annotations

import os
import sys
from functools import cache

import pytest

from ferrum.testing.cuda_shim.compiler import compiler

if os.environ.get("FERRUM_CUDA_TESTS", "shim") not in ("shim", "gpu"):
    raise pytest.UsageError(f"FERRUM_CUDA_TESTS is shim or gpu, not {os.environ['FERRUM_CUDA_TESTS']!r}")
if os.environ.get("FERRUM_CUDA_TESTS") != "gpu" and (not sys.platform.startswith("linux") or compiler() is None):
    pytest.skip("CUDA kernels run on the CPU only on Linux with a C++ compiler: install g++", allow_module_level=True)

from ferrum.testing.cuda_shim.device import ShimDevice

ON_GPU = os.environ.get("FERRUM_CUDA_TESTS") == "gpu"
SCHEDULES = (1, 2, 3)
"""Seeds of orders of threads. A result has the same bits at each of them."""


@cache
def device_at(seed: int) -> ShimDevice:
    """The device whose threads run in the orders that follow from this seed."""
    if ON_GPU:
        from tests.gpu.on_gpu import on_gpu

        return on_gpu()
    return ShimDevice(seed=seed)
