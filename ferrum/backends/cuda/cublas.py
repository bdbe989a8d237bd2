"""Products of big matrices by cuBLAS, called directly: CuPy refuses every cuBLAS call while a stream is being captured.

Owns: one handle for each stream, set up before anything is captured: its stream, then its working memory (setting the
stream would reset that, and without it a capture would allocate), and no TF32. Every status is looked at.
Refuses to know: arrays and captures; there are addresses and a stream.
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
"""What NVIDIA recommends for Hopper; less suffices for older GPUs."""
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
    """The library that CuPy uses, too. Raises DeviceError where it is missing."""
    try:
        finder = importlib.import_module("cuda.pathfinder")  # which CuPy needs, too
        return prepared(ctypes.CDLL(finder.load_nvidia_dynamic_lib("cublas").abs_path))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise DeviceError(f"cuBLAS cannot be loaded: {error}") from error


def prepared(library: Any) -> Any:
    """With the types of what its functions take."""
    for name, types in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, _int
    return library


class Cublas:
    """cuBLAS on one stream of the current device."""

    def __init__(self, library: Any, stream: int, workspace: int) -> None:
        """workspace: the address of WORKSPACE_BYTES, which outlive this object and every graph that was captured. Two
        streams may share them as long as their work never overlaps."""
        self._library = library
        handle = _pointer()
        self._call("cublasCreate_v2", ctypes.byref(handle))
        self._handle = handle
        # not at the end of the process, where the driver may have gone
        weakref.finalize(self, library.cublasDestroy_v2, handle).atexit = False
        self._call("cublasSetStream_v2", handle, stream)
        self._call("cublasSetWorkspace_v2", handle, workspace, WORKSPACE_BYTES)
        self._call("cublasSetMathMode", handle, _DEFAULT_MATH)
        self._one, self._zero = ctypes.c_float(1), ctypes.c_float(0)

    @property
    def tf32(self) -> bool:
        """Are factors rounded to TF32? They must not be."""
        mode = _int()
        self._call("cublasGetMathMode", self._handle, ctypes.byref(mode))
        return mode.value != _DEFAULT_MATH

    def product(self, x: int, weight: int, out: int, dtype: str, shape: tuple[int, int, int]) -> None:
        """Addresses of [tokens, columns] and [rows, columns] of that type and of float32 [tokens, rows]; `shape` is
        tokens, rows, columns, none of them 0. What was in `out` does not matter, not even a NaN."""
        if dtype not in _TYPES:
            raise InternalError(f"cuBLAS is not asked for products of {dtype}")
        tokens, rows, columns = shape
        # cuBLAS counts down columns: to it our row-major matrices are x', weight' and out' = weight · x'
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
