"""Checks whether the backend `cupy` can run on this machine, and gives the reason if it cannot.

Owns: the checks and their order. Without a driver CuPy reports that the driver is too old, and without a library of
CUDA it fails after a model was read. So each requirement is checked by name before anything is constructed.
Refuses to know: what is done with a device.
Specs: CUDA-03, CUDA-04. Next: `ferrum.backends.cuda.cubins`.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import warnings
from typing import Any

from ferrum.errors import BackendError

INSTALL = "pip install 'cupy-cuda13x[ctk]' (or 'cupy-cuda12x[ctk]' for an older driver)"
INSTEAD = "--backend numba needs no GPU"
LEAST_CUPY = 14
"""The first major version whose arrays can be bfloat16."""
LEAST_CAPABILITY = (8, 0)
"""The compute capability of the first GPUs (Ampere) that multiply in bfloat16."""
DRIVER = "libcuda.so.1"


def available(number: int = 0) -> bool:
    """True if the backend can run. Without CuPy or a driver the answer is fast, because CuPy is not imported."""
    if importlib.util.find_spec("cupy") is None or not _has_driver():
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user did not ask for CuPy
        try:
            check(number)
        except BackendError:
            return False
    return True


def check(number: int = 0) -> None:
    """Raises BackendError, with the reason and what to do, if CUDA device `number` cannot be used."""
    try:
        cupy = _cupy()
        _check_driver(cupy.cuda.runtime)
        _check_device(cupy, number)
        _check_libraries()
    except BackendError:
        raise
    except (Exception, SystemExit) as error:  # for example a busy device, or an incomplete installation
        raise BackendError(f"CUDA device {number} cannot be used: {_line(error)}; {INSTEAD}") from error


def _has_driver() -> bool:
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


def _cupy() -> Any:
    try:
        cupy = importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise BackendError(f"CuPy cannot be imported: {_line(error)}; install it again: {INSTALL}") from error
        raise BackendError(f"the backend 'cupy' needs CuPy, which is not installed: {INSTALL}") from None
    except (Exception, SystemExit) as error:  # a broken installation may raise any error
        raise BackendError(f"CuPy cannot be imported: {_line(error)}; install it again: {INSTALL}") from error
    version = getattr(cupy, "__version__", None)
    if not isinstance(version, str) or not version.split(".")[0].isdigit():
        raise BackendError(f"the module 'cupy' that Python finds is not CuPy, or incomplete: {INSTALL}")
    if int(version.split(".")[0]) < LEAST_CUPY:
        raise BackendError(f"CuPy {cupy.__version__} has no bfloat16, {LEAST_CUPY} or newer is needed: {INSTALL}")
    if cupy.cuda.runtime.is_hip:
        raise BackendError(f"this CuPy is for AMD GPUs, but the kernels are for CUDA: {INSTALL}")
    return cupy


def _check_driver(runtime: Any) -> None:
    driver, built_for = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        raise BackendError(
            f"there is no NVIDIA driver on this machine, or this container has no access to it (--gpus all); {INSTEAD}"
        )
    if driver // 1000 < built_for // 1000:  # a driver supports all runtimes of its major version
        older = ", or pip install 'cupy-cuda12x[ctk]' instead of cupy-cuda13x" if driver // 1000 == 12 else ""
        raise BackendError(
            f"the NVIDIA driver is too old: it supports CUDA {_version(driver)}, and CuPy was built for CUDA "
            f"{_version(built_for)}; update the driver{older}"
        )


def _check_device(cupy: Any, number: int) -> None:
    count = _count(cupy.cuda.runtime)
    if count == 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = "" if visible is None else f": CUDA_VISIBLE_DEVICES is {visible!r}, which hides all others"
        raise BackendError(f"there is no CUDA device{why}; {INSTEAD}")
    if not 0 <= number < count:
        raise BackendError(f"there is no CUDA device {number}: the {count} here are numbered from 0")
    digits = cupy.cuda.Device(number).compute_capability
    capability = int(digits[:-1]), int(digits[-1])
    if capability < LEAST_CAPABILITY:
        needed, found = (".".join(map(str, one)) for one in (LEAST_CAPABILITY, capability))
        raise BackendError(
            f"CUDA device {number} is too old: its compute capability is {found}, and the kernels need {needed} "
            f"(Ampere) or higher; {INSTEAD}"
        )


def _count(runtime: Any) -> int:
    try:
        return int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        if str(error).startswith("cudaErrorNoDevice"):
            return 0
        raise BackendError(f"the NVIDIA driver does not start: {_line(error)}; {INSTEAD}") from error


def _check_libraries() -> None:
    """The wheels of CuPy do not contain the libraries of CUDA, and CuPy loads each one at its first use."""
    found_by = f"CUDA's library {{}} is missing or does not load: {INSTALL} brings it ({{}})"
    try:
        importlib.import_module("cupy_backends.cuda.libs.cublas")
    except (ImportError, RuntimeError) as error:
        raise BackendError(found_by.format("cuBLAS", _line(error))) from error
    try:
        importlib.import_module("cupy_backends.cuda.libs.nvrtc").getVersion()
    except (ImportError, RuntimeError) as error:
        raise BackendError(found_by.format("NVRTC", _line(error))) from error


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _line(error: BaseException) -> str:
    """The first line of an error message, which may have many lines."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
