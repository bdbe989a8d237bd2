"""Devices without a GPU for the tests here, which are skipped where kernels cannot run on the CPU.

Owns: the reason for the skip, one device for each seed, and the seeds that a result is compared at.
Refuses to know: kernels. Next: `ferrum.testing.cuda_shim.device`.
"""

from __future__ import annotations

import sys
from functools import cache

import pytest

from ferrum.testing.cuda_shim.module import compiler

if not sys.platform.startswith("linux") or compiler() is None:
    pytest.skip("CUDA kernels run on the CPU only on Linux with a C++ compiler: install g++", allow_module_level=True)

from ferrum.testing.cuda_shim.device import ShimDevice

SCHEDULES = (1, 2, 3)
"""Seeds of orders of threads. A result has the same bits at each of them."""


@cache
def device_at(seed: int) -> ShimDevice:
    """The device whose threads run in the orders that follow from this seed."""
    return ShimDevice(seed=seed)
