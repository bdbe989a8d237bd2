"""Object code of one function, and the address at which it runs in this process.

Owns: linking. Nothing here compiles, so a start that finds all object code in the cache needs no Numba, and no LLVM
where `ferrum.backends.numba_kernels.loading.image` can place the code.
Next: `ferrum.backends.numba_kernels.loading.cache`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

from ferrum.backends.numba_kernels.loading.image import Image, NotPlaceable

ERROR_PATH = (
    "NRT_Free",
    "numba_do_raise",
    "numba_gil_ensure",
    "numba_gil_release",
    "numba_runtime_build_excinfo_struct",
    "numba_unpickle",
)
"""Functions of Numba that report an exception. Kernels raise none, so these are never called; `abort` stands for
them."""


OBJECT_MAGIC = (b"\x7fELF", b"\xcf\xfa\xed\xfe")
"""The first bytes of object files on Linux and macOS. They are checked because LLVM's linker does not check them."""


@dataclass(frozen=True)
class ObjectCode:
    """The content of an object file; `symbol` is the C function in it."""

    symbol: str
    code: bytes

    def to_bytes(self) -> bytes:
        return self.symbol.encode() + b"\n" + self.code

    @classmethod
    def from_bytes(cls, content: bytes) -> ObjectCode | None:
        """None if `to_bytes` did not make the content."""
        symbol, _, code = content.partition(b"\n")
        return cls(symbol.decode(), code) if symbol.isascii() and code.startswith(OBJECT_MAGIC) else None


_linkers: list[Any] = []  # code lives as long as its linker


def link(made: ObjectCode) -> int:
    """The address of the function; 0 if the object code does not define it. Each object is linked by itself, because
    functions that were compiled in different processes may have the same symbol."""
    try:
        return Image(made.code, _outside).address(made.symbol)
    except NotPlaceable:
        return _linked_by_llvm(made)


def _outside(name: str) -> int:
    """The address of a function or variable of this process. Raises NotPlaceable if there is none of this name."""
    process = ctypes.CDLL(None)
    try:
        found = getattr(process, "abort" if name in ERROR_PATH else name)
    except AttributeError:
        raise NotPlaceable(f"the process has no {name}") from None
    return ctypes.cast(found, ctypes.c_void_p).value or 0


def _linked_by_llvm(made: ObjectCode) -> int:
    import llvmlite.binding as llvm  # slow to load, and 50 MB of memory

    _prepare()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    linker = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    linker.add_object_file(llvm.ObjectFileRef.from_data(made.code))
    linker.finalize_object()
    _linkers.append(linker)
    place: int = linker.get_function_address(made.symbol)
    return place


@cache
def _prepare() -> None:
    """Once a process."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name in ERROR_PATH:
        if llvm.address_of_symbol(name) is None:  # without Numba
            llvm.add_symbol(name, _outside(name))
