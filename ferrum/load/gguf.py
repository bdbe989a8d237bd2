"""A GGUF file, mapped into memory: its metadata and its tensors, without copying either.

Owns: the container format, versions 2 and 3, little-endian. Every count, length, offset and size in the file is checked
against the size of the file before it is used. A file must not change while it is in use. Refuses to know: what
metadata keys mean and how blocks decode.
Specs: LOAD-01 to LOAD-08. Source: ggml's GGUF format document (docs/gguf.md). Next: `ferrum.load.gguf_parts`.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, overload

import ml_dtypes
import numpy as np

from ferrum.errors import InvalidFormat, Unsupported, quoted
from ferrum.files import open_regular, reason
from ferrum.load.ggml import GGML_TYPES, GgmlType

DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 64
MAX_KEY_BYTES = 65535
MAX_NESTING = 8

_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_STRUCTS = {
    code: struct.Struct("<" + letter)
    for code, letter in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "?",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_U32, _U64 = _STRUCTS[4], _STRUCTS[10]

_VIEWS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F64": np.dtype("<f8"),
}
"""Types that have a NumPy type. All others stay bytes."""


@dataclass(frozen=True, eq=False)
class GGUFTensor:
    """One tensor as stored.

    `shape` goes from the slowest to the fastest dimension, (rows, columns) for a matrix: the reverse of ggml's order.
    `data` is a read-only view of the file: [*shape] for F32, F16, BF16 and F64, else uint8 [rows, bytes of a row],
    where rows is the product of all dimensions but the last.
    """

    name: str
    type: GgmlType
    shape: tuple[int, ...]
    data: np.ndarray


class GGUFFile:
    """`metadata` by key and `tensors` by name, in the order of the file.

    Metadata values are int, float, bool, str, NumPy arrays of numbers, `Strings`, or lists (arrays of arrays).
    Raises `NotFound`, `InvalidFormat` or `Unsupported`. The file stays mapped as long as anything made from it lives.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        reader = _Reader(path, _map(path))
        self.version, tensor_count, metadata_count = _read_header(reader)
        self.metadata: dict[str, Any] = {}
        for _ in range(metadata_count):
            key = reader.name("a metadata key", MAX_KEY_BYTES)
            if key in self.metadata:
                reader.fail(f"metadata key {key} appears twice")
            self.metadata[key] = reader.value(f"metadata {key}", reader.unpack(_U32, f"the type of {key}"))
        self.tensors = _read_tensors(reader, tensor_count, self._alignment(reader))

    def _alignment(self, reader: _Reader) -> int:
        value = self.metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if isinstance(value, bool) or not isinstance(value, int) or value < 8 or value & (value - 1):
            reader.fail(f"general.alignment must be a power of two of at least 8, not {quoted(value)}")
        return value


class Strings(Sequence[str]):
    """An array of strings inside the file. At first only the lengths are read; a text is decoded when it is read, so
    that opening a file does not decode its vocabulary."""

    def __init__(self, reader: _Reader, start: int, count: int) -> None:
        self._reader, self._start, self._count = reader, start, count
        self._offsets: list[int] | None = None

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"a list of {self._count} texts"

    def __iter__(self) -> Iterator[str]:
        return self._reader.texts(self._start, self._count)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if self._offsets is None:
            self._offsets = list(self._reader.string_offsets(self._start, self._count))
        if isinstance(index, slice):
            return [self._reader.text_at(offset) for offset in self._offsets[index]]
        return self._reader.text_at(self._offsets[index])


class _Reader:
    """Reads forward through the mapped file and never past its end. `subject`: what is read, as errors name it."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.size, self.position = path, data, len(data), 0

    def fail(self, problem: str) -> NoReturn:
        raise InvalidFormat(f"{self.path} is not a valid GGUF file: {problem:.200}")

    def claim(self, count: int, subject: str) -> int:
        """-> the position of the next `count` bytes. Reading goes on after them."""
        start = self.position
        if count > self.size - start:
            self.fail(f"it ends inside {subject}")
        self.position = start + count
        return start

    def unpack(self, form: struct.Struct, subject: str) -> Any:
        return form.unpack_from(self.data, self.claim(form.size, subject))[0]

    def string(self, subject: str) -> str:
        """A uint64 length in bytes, then UTF-8."""
        start = self.position
        self.claim(self.unpack(_U64, subject), subject)
        return self.text_at(start, subject)

    def name(self, subject: str, longest: int) -> str:
        """A string that errors will quote, at most `longest` bytes."""
        text = self.string(subject)
        if not text.isprintable() or not 0 < len(text.encode()) <= longest:
            self.fail(f"{subject} is empty, longer than {longest} bytes or not printable")
        return text

    def text_at(self, position: int, subject: str = "a string in an array") -> str:
        """The string at a position whose length has been checked."""
        length = _U64.unpack_from(self.data, position)[0]
        try:
            return self.data[position + 8 : position + 8 + length].decode("utf-8")
        except UnicodeDecodeError:
            self.fail(f"{subject} is not UTF-8")

    def texts(self, position: int, count: int) -> Iterator[str]:
        """`count` neighbouring strings, whose lengths have been checked. The loop has no calls, because a tokenizer
        reads a whole vocabulary at once."""
        data, unpack = self.data, _U64.unpack_from
        try:
            for _ in range(count):
                start = position + 8
                position = start + unpack(data, position)[0]
                yield data[start:position].decode()
        except UnicodeDecodeError:
            self.fail("a string in an array is not UTF-8")

    def string_offsets(self, position: int, count: int) -> Iterator[int]:
        """The start of each of `count` neighbouring strings, whose lengths have been checked."""
        for _ in range(count):
            yield position
            position += 8 + _U64.unpack_from(self.data, position)[0]

    def value(self, subject: str, code: int, depth: int = 0) -> Any:
        """A metadata value of the type with number `code`."""
        if code == _STRING:
            return self.string(subject)
        if code == _ARRAY:
            return self._array(subject, depth)
        if code not in _STRUCTS:
            self.fail(f"{subject} has the unknown type {code}")
        return self.unpack(_STRUCTS[code], subject)

    def _array(self, subject: str, depth: int) -> Any:
        if depth == MAX_NESTING:
            self.fail(f"{subject} nests arrays more than {MAX_NESTING} deep")
        code, count = self.unpack(_U32, subject), self.unpack(_U64, subject)
        if code == _STRING:
            return self._strings(subject, count)
        if code == _ARRAY:
            self.check_count(subject, count, 12)
            return [self._array(subject, depth + 1) for _ in range(count)]
        if code not in _SCALARS:
            self.fail(f"{subject} has elements of the unknown type {code}")
        dtype = np.dtype(_SCALARS[code])
        values = np.frombuffer(self.data, dtype, count, self.claim(count * dtype.itemsize, subject))
        return values != 0 if code == _BOOL else values  # any other byte than 0 is true

    def _strings(self, subject: str, count: int) -> Strings:
        """Skips `count` strings. The loop has no calls because vocabularies are long: a length that leads past the end
        makes the next read fail, or is found once after the loop."""
        self.check_count(subject, count, 8)
        start = position = self.position
        data, unpack = self.data, _U64.unpack_from
        try:
            for _ in range(count):
                position += 8 + unpack(data, position)[0]
        except (struct.error, OverflowError):
            position = self.size + 1
        self.claim(position - start, subject)
        return Strings(self, start, count)

    def check_count(self, subject: str, count: int, least_bytes: int) -> None:
        """Refuses a count of things of at least `least_bytes` each, if the rest of the file is too short for them."""
        if count > (self.size - self.position) // least_bytes:
            self.fail(f"{subject} claims {count} elements, more than the file can hold")


def _map(path: Path) -> mmap.mmap:
    with open_regular(path) as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise InvalidFormat(f"{path} cannot be read: {reason(error)}") from None
        except ValueError:  # mmap refuses an empty file
            raise InvalidFormat(f"{path} is not a valid GGUF file: it is empty") from None


def _read_header(reader: _Reader) -> tuple[int, int, int]:
    """-> version, number of tensors, number of metadata entries"""
    if reader.data[reader.claim(4, "the header") : reader.position] != b"GGUF":
        reader.fail("it does not start with the letters GGUF")
    version = reader.unpack(_U32, "the header")
    if version and version & 0xFFFF == 0:
        raise Unsupported(f"{reader.path} is a big-endian GGUF file; only little-endian files are supported")
    if version not in (2, 3):
        raise Unsupported(f"{reader.path} is a GGUF file of version {version}; versions 2 and 3 are supported")
    tensors, metadata = reader.unpack(_U64, "the header"), reader.unpack(_U64, "the header")
    reader.check_count("the metadata", metadata, 13)  # key length, type, one byte of value
    reader.check_count("the tensor table", tensors, 32)  # name length, one dimension, type, offset
    return version, tensors, metadata


def _read_tensors(reader: _Reader, count: int, alignment: int) -> dict[str, GGUFTensor]:
    entries: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for _ in range(count):
        name = reader.name("a tensor name", MAX_NAME_BYTES)
        if name in entries:
            reader.fail(f"tensor {name} appears twice")
        subject = f"the table entry of tensor {name}"
        dimensions = reader.unpack(_U32, subject)
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            reader.fail(f"tensor {name} has {dimensions} dimensions")
        shape = tuple(reader.unpack(_U64, subject) for _ in range(dimensions))[::-1]
        entries[name] = shape, reader.unpack(_U32, subject), reader.unpack(_U64, subject)
    start = -(-reader.position // alignment) * alignment
    tensors = {name: _view(reader, name, *entry, start, alignment) for name, entry in entries.items()}
    end = 0
    for name, (_, _, offset) in sorted(entries.items(), key=lambda item: item[1][2]):
        if offset < end:  # overlapping tensors: a small file could claim any number of large ones
            reader.fail(f"tensor {name} shares bytes with another")
        end = offset + tensors[name].data.nbytes
    return tensors


def _view(
    reader: _Reader, name: str, shape: tuple[int, ...], code: int, offset: int, start: int, alignment: int
) -> GGUFTensor:
    """One tensor as a view of the file; `start` is where tensor data begins and `offset` counts from there."""
    kind = GGML_TYPES.get(code) or GgmlType(f"the unknown type {code}", 1, 0)  # the number of bytes is unknown
    if 0 in shape or shape[-1] % kind.block_size:
        reader.fail(f"tensor {name} has the shape {list(shape)}, which {kind.name} cannot store")
    if offset % alignment:
        reader.fail(f"tensor {name} is not aligned to {alignment} bytes")
    rows, row_bytes = math.prod(shape[:-1]), shape[-1] // kind.block_size * kind.block_bytes
    if start + offset + rows * row_bytes > reader.size:
        reader.fail(f"it ends inside the data of tensor {name}")
    dtype = _VIEWS.get(kind.name, np.dtype(np.uint8))
    view = np.frombuffer(reader.data, dtype, rows * row_bytes // dtype.itemsize, start + offset)
    if not row_bytes:  # and so is the shape of the view
        return GGUFTensor(name, kind, shape, view)
    return GGUFTensor(name, kind, shape, view.reshape(shape if kind.name in _VIEWS else (rows, row_bytes)))
