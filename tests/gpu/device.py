"""The GPU for the tests here, which are skipped where there is none, with the one sentence that says why.

Owns: the reason for the skip, and one device for all tests. FERRUM_CUDA_TESTS=shim takes a device without a GPU
instead, to try the tests themselves. Refuses to know: what is tested.
"""

from __future__ import annotations

import os
from functools import cache

import pytest

from ferrum.backends.cuda import probe
from ferrum.backends.cuda.device import Device
from ferrum.errors import BackendError

ON_SHIM = os.environ.get("FERRUM_CUDA_TESTS") == "shim"

if not ON_SHIM:
    try:
        probe.check()
    except BackendError as error:
        pytest.skip(str(error), allow_module_level=True)


@cache
def gpu() -> Device:
    if ON_SHIM:
        from ferrum.testing.cuda_shim.device import ShimDevice

        return ShimDevice(captures_products=True)
    from ferrum.backends.cuda.gpu import GpuDevice

    return GpuDevice()
