"""Errors of a device translated into errors of this project.

Owns: the translation of all errors that CuPy, the driver and the compiler raise. Errors are recognised by the names of
their classes, so this module does not import CuPy.
Refuses to know: which operation failed.
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
"""After one of these errors every further call of the process fails too."""
_CUDA = {"CUDARuntimeError", "CUDADriverError", "CUBLASError", "NVRTCError", "CompileException"}

P = ParamSpec("P")
R = TypeVar("R")


def is_cuda_error(error: BaseException) -> bool:
    """True if the error comes from the device, its driver or its libraries."""
    return not _CUDA.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def translated(error: BaseException) -> FerrumError | None:
    """The error of this project for it; None if it is no error of a device."""
    text = str(error).strip()
    if isinstance(error, MemoryError) or (is_cuda_error(error) and text.startswith(NO_MEMORY)):
        return ResourceExhausted(f"the GPU is out of memory: {text}; try a smaller kv_memory, max_model_len or model")
    if not is_cuda_error(error):
        return None
    end = "; this process cannot use the GPU any more: start it again" if text.startswith(LAST) else ""
    return DeviceError(f"the GPU failed: {text[:2000]}{end}")


def translating_errors(call: Callable[P, R]) -> Callable[P, R]:
    """Decorator: errors of the device become DeviceError, or ResourceExhausted if memory ran out."""

    @wraps(call)
    def translating(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            return call(*arguments, **options)
        except Exception as error:
            translation = translated(error)
            if translation is None:
                raise
            raise translation from error

    return translating


class TranslatingModule:
    """A module whose functions raise translated errors."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._module, name)
        if callable(member) and not isinstance(member, type):
            member = translating_errors(member)
        setattr(self, name, member)  # later reads do not call this method
        return member
