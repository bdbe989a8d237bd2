"""The tensors of a Hugging Face directory: model.safetensors, or shards listed in model.safetensors.index.json.

Owns: finding, opening and mapping the files. The `safetensors` library checks every header. It copies what it reads, so
tensors here are views of a mapping of the same file. A file must not change while it is in use. Refuses to know: what
the tensors are for.
Specs: LOAD-11 to LOAD-15. Source: the safetensors format document; transformers' sharded checkpoints.
Next: `ferrum.load.quantized`.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from ferrum.errors import InvalidFormat, NotFound, Unsupported, quoted
from ferrum.fields import read_json
from ferrum.files import open_regular
from ferrum.load.quants import rounded
from ferrum.load.source import StoredTensor, missing, unstacked
from ferrum.tensor.weights import Dense, Weight

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ELEMENTS = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F64": np.dtype("<f8"),
}
"""Element types that backends compute with, and one that is rounded to them."""
RAW = {
    **ELEMENTS,
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "I64": np.dtype("<i8"),
}
"""Element types of quantised matrices."""
INSTEAD = {
    "adapter_model.safetensors": "an adapter: merge it into the model that it was trained for",
    "consolidated.safetensors": "the same model with other names, for other programs: save it with transformers",
    "pytorch_model.bin": "pickled weights, which are programs: save them as safetensors",
    "pytorch_model.bin.index.json": "pickled weights, which are programs: save them as safetensors",
}
"""Files that a directory may have instead of safetensors."""
POINTER = b"version https://git-lfs.github.com/"
"""The beginning of a file that Git LFS has not downloaded."""
LONGEST_NAME = 512
"""The largest number of characters of a tensor's name."""
LONGEST_FILE_NAME = 255
LONGEST_REASON = 300
LENGTH_BYTES = 8
"""A file begins with the length of its header, in so many bytes."""


class SafetensorsSource:
    """All tensors of a directory. Every shard is opened at once, and its header checked."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._files: dict[str, _Shard] = {}  # tensor name -> the open file that holds it
        if os.path.lexists(folder / SINGLE):  # an index beside it is ignored
            file = _Shard(folder / SINGLE)
            self._files = dict.fromkeys(file.names, file)
        elif os.path.lexists(folder / INDEX):
            self._open_shards(folder)
        else:
            raise NotFound(f"{folder} holds neither {SINGLE} nor {INDEX}{_other_content(folder)}")

    def _open_shards(self, folder: Path) -> None:
        index = read_json(folder / INDEX)
        places = index.inner("weight_map").values
        if not places:
            raise index.wrong("weight_map", "an object that names tensors")
        opened: dict[str, _Shard] = {}
        for name, shard in places.items():
            if not _is_name(name):
                raise InvalidFormat(f"{index.where}: weight_map names a tensor {quoted(name)}")
            if not _is_shard(shard):
                raise InvalidFormat(
                    f"{index.where}: {name} must be in a file of this directory, not in {quoted(shard)}"
                )
            if shard not in opened:
                opened[shard] = _Shard(folder / shard)
            if name not in opened[shard].names:
                raise InvalidFormat(f"{index.where}: tensor {name} is not in {shard}")
            self._files[name] = opened[shard]

    def names(self) -> Iterable[str]:
        return self._files

    def describe(self, name: str) -> StoredTensor:
        if name not in self._files:
            missing(self.path, name, self._files)
        return self._files[name].describe(name)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def raw(self, name: str) -> np.ndarray:
        """A tensor of any type in `RAW`, as it is stored."""
        return self._files[name].view(self.describe(name))

    def _array(self, name: str) -> np.ndarray:
        stored = self.describe(name)
        if stored.type not in ELEMENTS:
            supported = ", ".join(ELEMENTS)
            raise Unsupported(f"{self.path}: tensor {name} is stored as {stored.type}; supported are {supported}")
        array = self._files[name].view(stored)
        return array if stored.type != "F64" else rounded(array, f"{self.path}: tensor {name}")

    def weight(self, name: str) -> Weight:
        return Dense(self._array(name))

    def stack(self, name: str) -> list[Weight]:
        array = self._array(name)
        return unstacked(Dense(array.reshape(-1, array.shape[-1])), self.describe(name), self.path)

    def vector(self, name: str) -> np.ndarray:
        return self._array(name).astype(np.float32, copy=False)


class _Shard:
    """One file, checked and mapped. It stays mapped as long as a view of it lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            file = open_regular(path)  # checked first, because the library would wait for a pipe
        except NotFound:
            raise NotFound(f"{path} does not exist; the download of this model may be incomplete") from None
        try:
            with file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if self._data[: len(POINTER)] == POINTER:
                raise self._invalid("it is a pointer of Git LFS; git lfs pull fetches what it stands for")
            self._checked = _checked(path)
            names = frozenset[str](self._checked.keys())
            self._start = LENGTH_BYTES + int.from_bytes(self._data[:LENGTH_BYTES], "little")
            self._header = json.loads(self._data[LENGTH_BYTES : self._start])
            self.names = dict.fromkeys(name for name in self._header if name in names)  # in the order of the file
        except (SafetensorError, OSError, ValueError, RecursionError) as error:
            raise self._invalid(str(error)) from None
        for name in self.names:
            if not _is_name(name):
                raise self._invalid(f"it names a tensor {quoted(name)}")

    def describe(self, name: str) -> StoredTensor:
        part = self._checked.get_slice(name)
        kind, shape = part.get_dtype(), tuple(part.get_shape())
        size = RAW[kind].itemsize if kind in RAW else 1
        return StoredTensor(name, kind, shape, math.prod(shape) * size, "float32" if kind == "F64" else None)

    def view(self, stored: StoredTensor) -> np.ndarray:
        """[*shape], read-only; a copy if elements are not aligned in the file."""
        first, end = self._header[stored.name]["data_offsets"]
        if end - first != stored.nbytes or self._start + end > len(self._data):
            raise self._invalid(f"tensor {stored.name} has no {stored.nbytes} bytes")
        kind, start = RAW[stored.type], self._start + first
        raw = np.frombuffer(self._data, np.uint8)[start : start + stored.nbytes]
        array: np.ndarray = (raw.copy() if start % kind.itemsize else raw).view(kind).reshape(stored.shape)
        return array

    def _invalid(self, reason: str) -> InvalidFormat:
        """The error for an invalid file. Some of the library's reasons quote the file."""
        shown = "".join(char if char.isprintable() else " " for char in reason[:LONGEST_REASON])
        return InvalidFormat(f"{self.path} is not a valid safetensors file: {shown}")


def _other_content(folder: Path) -> str:
    """For the error: what the directory holds instead of safetensors."""
    return next(
        (f"; {name} holds {content}" for name, content in INSTEAD.items() if os.path.lexists(folder / name)), ""
    )


def _is_name(name: str) -> bool:
    """True if errors and tables can show a tensor's name."""
    return name.isprintable() and 0 < len(name) <= LONGEST_NAME


def _is_shard(name: object) -> bool:
    """True if this is the name of a file in the same directory that errors can show."""
    return (
        isinstance(name, str)
        and name.isprintable()
        and "/" not in name
        and name.endswith(".safetensors")
        and len(name.encode()) <= LONGEST_FILE_NAME
    )


def _checked(path: Path) -> Any:
    """The library's reader, whose stubs lack types. Raises SafetensorError or OSError."""
    return safe_open(path, framework="numpy")
