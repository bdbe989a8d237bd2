"""Kernels by name, and launches whose arguments are checked against the signature.

Owns: which kernels have been compiled with which definitions, and the conversion of arguments: a number gets the type
of its parameter, an array must be contiguous and have the type that its parameter points to.
Refuses to know: what a kernel computes, and which machine runs it.
Specs: CUDA-01, CUDA-02. Next: `ferrum.backends.cuda.device`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ferrum.backends.cuda.source import Parameter, signatures, source
from ferrum.errors import InternalError

Size = tuple[int, ...]
"""Blocks of a grid, or threads of a block, along x, y and z. Missing numbers are 1."""

_NUMBERS: dict[str, type[np.generic]] = {
    "int": np.int32, "unsigned": np.uint32, "float": np.float32, "double": np.float64, "long long": np.int64,
    "unsigned long long": np.uint64,
}  # fmt: skip
_POINTED_AT = {
    "float": ("float32",), "double": ("float64",), "int": ("int32",), "long long": ("int64",), "half_t": ("float16",),
    "bfloat_t": ("bfloat16",), "unsigned long long": ("uint64",), "unsigned": ("uint32",),
    "unsigned char": ("uint8", "bool"), "signed char": ("int8",), "bool": ("bool",),
}  # fmt: skip
"""Types of elements that a pointer of this type may point to. A pointer to void may point to any type."""
_NULL = np.uint64(0)


class Module(Protocol):
    """Compiled kernels, for a GPU or for the shim that runs them on the CPU."""

    def get_function(self, name: str) -> Callable[..., None]:
        """-> a function (grid, block, arguments, shared_mem=bytes) that launches the kernel."""
        ...


Load = Callable[[str, tuple[str, ...]], Module]
"""Compiles a source text with options."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be launched."""

    name: str
    parameters: tuple[Parameter, ...]
    run: Callable[..., None]

    def __call__(self, grid: Size, block: Size, *arguments: Any, shared: int = 0) -> None:
        """Launches the kernel. shared: bytes of dynamic shared memory. An argument None is a null pointer. Raises
        InternalError for an argument that does not fit the signature."""
        if len(arguments) != len(self.parameters):
            raise InternalError(f"{self.name} takes {len(self.parameters)} arguments, not {len(arguments)}")
        passed = tuple(map(self._passed, self.parameters, arguments))
        grid, block = ((*size, 1, 1)[:3] for size in (grid, block))
        if all(grid):
            self.run(grid, block, passed, shared_mem=shared)

    def _passed(self, parameter: Parameter, value: Any) -> Any:
        if not parameter.is_pointer:
            return self._number(parameter, value)
        if value is None:
            return _NULL
        if not hasattr(value, "dtype") or isinstance(value, np.generic):
            raise InternalError(f"{self.name}: {parameter.name} is a pointer, not {type(value).__name__}")
        if parameter.type != "void" and str(value.dtype) not in _POINTED_AT.get(parameter.type, ()):
            raise InternalError(f"{self.name}: {parameter.name} points to {parameter.type}, not to {value.dtype}")
        if not value.flags.c_contiguous:
            raise InternalError(f"{self.name}: {parameter.name} has gaps")
        return value

    def _number(self, parameter: Parameter, value: Any) -> Any:
        kind = _NUMBERS.get(parameter.type)
        if kind is None:
            raise InternalError(f"{self.name}: {parameter.name} has the unknown type {parameter.type}")
        whole = issubclass(kind, np.integer)
        if not isinstance(value, (int, np.integer) if whole else (int, float, np.integer, np.floating)):
            raise InternalError(f"{self.name}: {parameter.name} is {parameter.type}, not {type(value).__name__}")
        try:
            return kind(int(value) if whole else value)
        except OverflowError:
            raise InternalError(f"{self.name}: {parameter.name} is {parameter.type}, too small for {value}") from None


class Kernels:
    """All kernels. Each is compiled at its first use."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.listener: Callable[[str], None] = lambda name: None
        """Called with the name of a file of kernels before it is compiled."""
        self._modules: dict[tuple[str, tuple[str, ...]], Module] = {}
        self._known: dict[tuple[str, str, tuple[tuple[str, str], ...]], Kernel] = {}

    def get(self, file: str, name: str, **defines: str) -> Kernel:
        """The kernel `name` of kernels/{file}.cu, compiled with these definitions of the preprocessor."""
        key = (file, name, tuple(defines.items()))
        kernel = self._known.get(key)
        if kernel is None:
            kernel = self._known[key] = self._compiled(file, name, defines)
        return kernel

    def _compiled(self, file: str, name: str, defines: dict[str, str]) -> Kernel:
        text, options = source(file), tuple(f"-D{key}={value}" for key, value in defines.items())
        if (file, options) not in self._modules:
            self.listener(file)
            self._modules[file, options] = self._load(text, options)
        return Kernel(name, signatures(text, defines)[name], self._modules[file, options].get_function(name))
