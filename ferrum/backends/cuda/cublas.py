"""Products of large matrices by cuBLAS, called directly: CuPy refuses every call of cuBLAS during a stream capture.

Owns: one handle for each stream, prepared before any capture: its stream, then its workspace (setting the stream resets
the workspace, and without a workspace a captured call would allocate memory), and no TF32. Every status is checked.
Refuses to know: arrays and captures; it gets addresses and a stream.
Specs: CUDA-07. Source: NVIDIA's cuBLAS manual, cublasGemmEx and "CUDA Graphs Support".
Next: `ferrum.backends.cuda.matrices`.
"""

from __future__ import annotations

import ctypes
import importlib
import weakref
from typing import Any

from ferrum.errors import DeviceError, InternalError, ResourceExhausted

WORKSPACE_BYTES = 32 << 20
"""The size that NVIDIA recommends for Hopper; older GPUs need less."""
_NAMES = {
    1: "NOT_INITIALIZED", 3: "ALLOC_FAILED", 7: "INVALID_VALUE", 8: "ARCH_MISMATCH", 11: "MAPPING_ERROR",
    13: "EXECUTION_FAILED", 14: "INTERNAL_ERROR", 15: "NOT_SUPPORTED", 16: "LICENSE_ERROR",
}  # fmt: skip
_ALLOC_FAILED = 3
_TYPES = {"float32": 0, "bfloat16": 14}  # cudaDataType_t
_AS_IS, _TRANSPOSED = 0, 1  # cublasOperation_t
_IN_FLOAT32 = 68  # CUBLAS_COMPUTE_32F
_DEFAULT_ALGORITHM = -1
_DEFAULT_MATH = 0  # the mode in which float32 is not rounded to TF32

_int, _pointer = ctypes.c_int, ctypes.c_void_p
_ARGUMENTS: dict[str, list[Any]] = {
    "cublasCreate_v2": [ctypes.POINTER(_pointer)],
    "cublasDestroy_v2": [_pointer],
    "cublasSetStream_v2": [_pointer, _pointer],
    "cublasSetWorkspace_v2": [_pointer, _pointer, ctypes.c_size_t],
    "cublasSetMathMode": [_pointer, _int],
    "cublasGetMathMode": [_pointer, ctypes.POINTER(_int)],
    "cublasGemmEx": [
        _pointer, _int, _int, _int, _int, _int, _pointer, _pointer, _int, _int, _pointer, _int, _int, _pointer,
        _pointer, _int, _int, _int, _int,
    ],
}  # fmt: skip


def load_cublas() -> Any:
    """The library that CuPy uses too. Raises DeviceError if it is missing."""
    try:
        finder = importlib.import_module("cuda.pathfinder")  # installed with CuPy
        return prepared(ctypes.CDLL(finder.load_nvidia_dynamic_lib("cublas").abs_path))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise DeviceError(f"cuBLAS cannot be loaded: {error}") from error


def prepared(library: Any) -> Any:
    """Declares the types of the arguments of the functions -> the library."""
    for name, types in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, _int
    return library


class Cublas:
    """cuBLAS on one stream of the current device."""

    def __init__(self, library: Any, stream: int, workspace: int) -> None:
        """workspace: the address of WORKSPACE_BYTES bytes, which must outlive this object and all captured graphs. Two
        streams may share a workspace if their work never overlaps."""
        self._library = library
        handle = _pointer()
        self._call("cublasCreate_v2", ctypes.byref(handle))
        self._handle = handle
        # not at the end of the process, when the driver may be unloaded
        weakref.finalize(self, library.cublasDestroy_v2, handle).atexit = False
        self._call("cublasSetStream_v2", handle, stream)
        self._call("cublasSetWorkspace_v2", handle, workspace, WORKSPACE_BYTES)
        self._call("cublasSetMathMode", handle, _DEFAULT_MATH)
        self._one, self._zero = ctypes.c_float(1), ctypes.c_float(0)

    @property
    def tf32(self) -> bool:
        """True if cuBLAS rounds operands to TF32, which must not happen."""
        mode = _int()
        self._call("cublasGetMathMode", self._handle, ctypes.byref(mode))
        return mode.value != _DEFAULT_MATH

    def product(self, x: int, weight: int, out: int, dtype: str, shape: tuple[int, int, int]) -> None:
        """out = x · weightᵀ, for the addresses of x [tokens, columns] and weight [rows, columns] of type `dtype`, and
        of out, float32 [tokens, rows]. shape: tokens, rows, columns, none of them 0. The old content of `out` is not
        read."""
        if dtype not in _TYPES:
            raise InternalError(f"no product of {dtype} by cuBLAS")
        tokens, rows, columns = shape
        # cuBLAS stores matrices by columns: it sees our row-major matrices as x', weight' and out' = weight · x'
        self._call(
            "cublasGemmEx", self._handle, _TRANSPOSED, _AS_IS, rows, tokens, columns,
            ctypes.addressof(self._one), weight, _TYPES[dtype], columns, x, _TYPES[dtype], columns,
            ctypes.addressof(self._zero), out, _TYPES["float32"], rows, _IN_FLOAT32, _DEFAULT_ALGORITHM,
        )  # fmt: skip

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            told = f"{name} failed: CUBLAS_STATUS_{_NAMES.get(status, status)}"
            raise ResourceExhausted(told) if status == _ALLOC_FAILED else DeviceError(told)
