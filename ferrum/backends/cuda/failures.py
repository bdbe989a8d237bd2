"""What goes wrong on a device, in this project's own errors.

Owns: one translation for whatever CuPy, the driver and the compiler raise. Errors are known by the names of their
classes, so that nothing here imports CuPy.
Refuses to know: what was tried.
Specs: CUDA-06. Next: `ferrum.backends.cuda.cublas`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from ferrum.errors import DeviceError, FerrumError, ResourceExhausted

NO_MEMORY = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY")
LAST = (
    "cudaErrorIllegalAddress", "cudaErrorLaunchFailure", "cudaErrorMisalignedAddress", "cudaErrorIllegalInstruction",
    "cudaErrorInvalidAddressSpace", "cudaErrorInvalidPc", "cudaErrorHardwareStackError", "cudaErrorAssert",
    "cudaErrorLaunchTimeout", "cudaErrorECCUncorrectable",
)  # fmt: skip
"""After these every further call of the process fails likewise."""
_CUDA = {"CUDARuntimeError", "CUDADriverError", "CUBLASError", "NVRTCError", "CompileException"}

P = ParamSpec("P")
R = TypeVar("R")


def is_cuda_error(error: BaseException) -> bool:
    """Does it come from the device, its driver or its libraries?"""
    return not _CUDA.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def translated(error: BaseException) -> FerrumError | None:
    """What it is in this project's terms; None where it is no failure of a device."""
    text = str(error).strip()
    if isinstance(error, MemoryError) or (is_cuda_error(error) and text.startswith(NO_MEMORY)):
        return ResourceExhausted(
            f"the GPU is out of memory: {text}; a smaller kv_memory, max_model_len or model may fit"
        )
    if not is_cuda_error(error):
        return None
    end = "; this process cannot use the GPU any more: start it again" if text.startswith(LAST) else ""
    return DeviceError(f"the GPU failed: {text[:2000]}{end}")


def failures_told(call: Callable[P, R]) -> Callable[P, R]:
    """The same function, whose failures on a device are DeviceError, or ResourceExhausted where memory ran out."""

    @wraps(call)
    def told(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            return call(*arguments, **options)
        except Exception as error:
            ours = translated(error)
            if ours is None:
                raise
            raise ours from error

    return told


class Told:
    """A module whose functions tell their failures so."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        told = failures_told(found) if callable(found) and not isinstance(found, type) else found
        setattr(self, name, told)  # asked for once
        return told
