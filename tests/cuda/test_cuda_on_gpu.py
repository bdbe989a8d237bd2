"""CUDA-19: tests of kernels run on a GPU as they are. Here a shim stands for the GPU: it is given addresses only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ferrum.backends.cuda import elementwise
from ferrum.errors import DeviceError
from ferrum.testing.cuda_shim.module import ShimModule
from tests.cuda.shim import ON_GPU
from tests.gpu.on_gpu import OnGpu

if ON_GPU:
    pytest.skip("a GPU is there", allow_module_level=True)

WRITES = 'extern "C" __global__ void writes(float* x, int n) { if (threadIdx.x < n) x[threadIdx.x] += 1; }'


class StandIn:
    """A GPU that refuses arrays and reaches pinned memory alone."""

    def __init__(self) -> None:
        self.waits = 0

    def _load(self, text: str, options: tuple[str, ...]) -> Any:
        module = ShimModule(text, options)

        class Addresses:
            def get_function(self, name: str) -> Any:
                launch = module.get_function(name)

                def run(grid: Any, block: Any, arguments: tuple[Any, ...], shared_mem: int) -> None:
                    assert not any(isinstance(each, np.ndarray) for each in arguments)
                    launch(grid, block, arguments, shared_mem=shared_mem)

                return run

        return Addresses()

    def pinned(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return np.empty(shape, dtype)

    def _wait(self) -> None:
        self.waits += 1


@pytest.mark.clause("CUDA-19")
def test_kernels_run_on_the_arrays_of_a_test() -> None:
    gpu = StandIn()
    device = OnGpu(gpu)
    x = np.arange(6, dtype=np.float32)  # a test's own array, which no GPU reaches
    here = device.upload(x)
    for left, right in ((here, here), (here, x), (x, here), (x, x)):
        found = elementwise.binary(device, "add", left, right)
        assert found is not None and found.tolist() == [0, 2, 4, 6, 8, 10]
    assert gpu.waits == 4
    kernel = device._load(WRITES, ()).get_function("writes")
    for each in (x, here):
        kernel((1, 1, 1), (32, 1, 1), (each, np.int32(6)))
        assert each.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.clause("CUDA-19")
def test_the_checks_of_the_shim_stay() -> None:
    device = OnGpu(StandIn())
    assert np.isnan(device.empty((4,), "float32")).all()
    x = device.upload(np.zeros(6, np.float32))
    kernel = device._load(WRITES, ()).get_function("writes")
    kernel((1, 1, 1), (32, 1, 1), (x, np.int32(7)))
    del x
    with pytest.raises(DeviceError, match="beyond the end"):
        elementwise.unary(device, "exp", device.upload(np.zeros(1, np.float32)))
