"""Object files (ELF, x86-64) placed in executable memory: the small part of a linker that kernels need.

Owns: the two relocations of LLVM's large code model, in which every address has 64 bits. An object file that needs
anything else raises NotPlaceable, and `ferrum.backends.numba_kernels.loading.objects` passes it to the linker of LLVM.
Loading LLVM takes 50 MB of memory, and more time than placing all kernels of a model here.
Refuses to know: where files come from. The caller has checked that the code comes from our own compiler.
Specs: OPS-48. Source: System V ABI, AMD64 supplement, 4.4 (relocation); Linux' `elf.h` (structures).
Next: `ferrum.backends.numba_kernels.loading.objects`.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

RELOCATABLE_X86_64 = struct.pack("<4s5B7xHH", b"\x7fELF", 2, 1, 1, 0, 0, 1, 62)
"""The first bytes of such a file: 64 bits, little endian, no system named, relocatable, x86-64."""
SYMBOL_TABLE, RELOCATIONS, NO_BITS = 2, 4, 8  # types of sections
WRITTEN_TO, IN_MEMORY = 1, 2  # flags of sections
UNDEFINED = 0  # the section number of a symbol that the process provides
ABSOLUTE_64, RELATIVE_64 = 1, 24  # types of relocations
READ_AND_RUN = mmap.PROT_READ | mmap.PROT_EXEC

Outside = Callable[[str], int]
"""From the name of a function or variable of the process to its address. Raises NotPlaceable if there is none."""


class NotPlaceable(Exception):
    """The object file needs a complete linker."""


@dataclass(frozen=True)
class _Section:
    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


@dataclass(frozen=True)
class _Symbol:
    name: str
    section: int
    offset: int


class Image:
    """One object file in its own memory, which is never freed."""

    def __init__(self, code: bytes, outside: Outside) -> None:
        """Raises NotPlaceable if the linker of LLVM is needed."""
        if sys.platform != "linux" or not code.startswith(RELOCATABLE_X86_64):
            raise NotPlaceable("not an object file of Linux for x86-64")
        self._code = code
        self._sections = _sections(code)
        self._places, size = _places(self._sections)
        self._memory = mmap.mmap(-1, max(size, 1))
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._symbols = self._read_symbols()
        self._fill()
        self._relocate(outside)
        if ctypes.CDLL(None).mprotect(ctypes.c_void_p(self._base), ctypes.c_size_t(len(self._memory)), READ_AND_RUN):
            raise NotPlaceable("this process may not make memory executable")
        # a thread may still be running the code while the interpreter ends and frees what modules hold
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._memory))

    def address(self, name: str) -> int:
        """The address of the function of this name; 0 if the file does not define it."""
        found = (symbol for symbol in self._symbols if symbol.name == name and symbol.section in self._places)
        return next((self._base + self._places[symbol.section] + symbol.offset for symbol in found), 0)

    def _read_symbols(self) -> list[_Symbol]:
        (table,) = (section for section in self._sections if section.type == SYMBOL_TABLE)
        names = self._content(self._sections[table.link])
        return [
            _Symbol(names[name : names.index(b"\0", name)].decode(), section, value)
            for name, _, _, section, value, _ in struct.iter_unpack("<IBBHQQ", self._content(table))
        ]

    def _value(self, symbol: _Symbol, outside: Outside) -> int:
        """The address that a symbol stands for."""
        if symbol.section in self._places:
            return self._base + self._places[symbol.section] + symbol.offset
        if symbol.section == UNDEFINED:
            return outside(symbol.name)
        raise NotPlaceable(f"the symbol {symbol.name} is in section {symbol.section}")

    def _content(self, section: _Section) -> bytes:
        return self._code[section.offset : section.offset + section.size]

    def _fill(self) -> None:
        for number, place in self._places.items():
            section = self._sections[number]
            if section.type != NO_BITS:
                self._memory[place : place + section.size] = self._content(section)

    def _relocate(self, outside: Outside) -> None:
        for section in self._sections:
            if section.type != RELOCATIONS or section.info not in self._places:
                continue
            start = self._places[section.info]
            for offset, info, addend in struct.iter_unpack("<QQq", self._content(section)):
                value, kind = self._value(self._symbols[info >> 32], outside) + addend, info & 0xFFFFFFFF
                if kind == RELATIVE_64:
                    value -= self._base + start + offset
                elif kind != ABSOLUTE_64:
                    raise NotPlaceable(f"a relocation of type {kind}")
                struct.pack_into("<Q", self._memory, start + offset, value % (1 << 64))


def _sections(code: bytes) -> list[_Section]:
    (start,), (size, count) = struct.unpack_from("<Q", code, 40), struct.unpack_from("<HH", code, 58)
    return [_Section(*struct.unpack_from("<IIQQQQIIQQ", code, start + size * number)) for number in range(count)]


def _places(sections: list[_Section]) -> tuple[dict[int, int], int]:
    """The offset of each section that is loaded, by its number, and the end of the last one."""
    places: dict[int, int] = {}
    end = 0
    for number, section in enumerate(sections):
        if section.flags & IN_MEMORY:
            if section.flags & WRITTEN_TO:
                raise NotPlaceable("a section that is written to")
            places[number] = -(-end // max(section.alignment, 1)) * max(section.alignment, 1)
            end = places[number] + section.size
    return places, end
