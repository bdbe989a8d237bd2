"""Object code, made executable in this process without a compiler.

Owns: the memory of machine code. Nothing here compiles, so a start that finds its object code needs no Numba; and where
`ferrum.backends.numba_kernels.loading.image` can place it, no LLVM.
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
"""Functions of Numba that report an exception. Kernels raise none; whatever stands here is never called."""


OBJECT_MAGIC = (b"\x7fELF", b"\xcf\xfa\xed\xfe")
"""How object files begin on Linux and macOS; LLVM's linker trusts whatever it is given."""


@dataclass(frozen=True)
class ObjectCode:
    """Machine code that is not yet bound to an address; `symbol` is the C function in it."""

    symbol: str
    code: bytes

    def to_bytes(self) -> bytes:
        return self.symbol.encode() + b"\n" + self.code

    @classmethod
    def from_bytes(cls, content: bytes) -> ObjectCode | None:
        """None for what `to_bytes` did not make."""
        symbol, _, code = content.partition(b"\n")
        return cls(symbol.decode(), code) if symbol.isascii() and code.startswith(OBJECT_MAGIC) else None


_linkers: list[Any] = []  # code lives as long as its linker


def link(made: ObjectCode) -> int:
    """The address of the function; 0 where the object has none of this name. Every object has memory of its own:
    functions that were compiled in different processes may have the same symbol."""
    try:
        return Image(made.code, _outside).address(made.symbol)
    except NotPlaceable:
        return _linked_by_llvm(made)


def _outside(name: str) -> int:
    """The address of a function or variable of this process. Raises NotPlaceable for one that it does not have."""
    process = ctypes.CDLL(None)
    try:
        found = getattr(process, "abort" if name in ERROR_PATH else name)
    except AttributeError:
        raise NotPlaceable(f"the process has no {name}") from None
    return ctypes.cast(found, ctypes.c_void_p).value or 0


def _linked_by_llvm(made: ObjectCode) -> int:
    import llvmlite.binding as llvm  # it takes long to load, and 50 MB of memory

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
