"""The interface to a file of tensors, of any format.

Owns: the protocol between file formats and the parameter tree, and its implementation for GGUF. Refuses to know: which
tensors a model needs.
Specs: LOAD-10, LOAD-100, LOAD-107, QUANT-08. Next: `ferrum.load.safetensors`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, Protocol
from weakref import WeakValueDictionary

import numpy as np

from ferrum.errors import ModelError, quoted
from ferrum.load.conversion import bytes_of
from ferrum.load.gguf import GGUFFile, GGUFTensor
from ferrum.load.quants import floats_of, kept_as, weight_of
from ferrum.tensor.weights import Weight


@dataclass(frozen=True)
class StoredTensor:
    """The facts of a tensor that are known without reading it. `shape` is (rows, columns) for a matrix; `type` is the
    format's name, such as "Q4_1" or "BF16"; `nbytes` is its size in the file. `kept_as` is the type that backends
    compute with, if it is another one."""

    name: str
    type: str
    shape: tuple[int, ...]
    nbytes: int
    kept_as: str | None = None

    @property
    def held_bytes(self) -> int:
        """Its size in memory."""
        is_matrix = len(self.shape) > 1
        return bytes_of(self.kept_as, math.prod(self.shape)) if self.kept_as and is_matrix else self.nbytes


class TensorSource(Protocol):
    """Tensors by name. Each method raises `ModelError` for a name that the file does not have."""

    path: Path

    def names(self) -> Iterable[str]: ...
    def describe(self, name: str) -> StoredTensor: ...
    def weight(self, name: str) -> Weight: ...  # a matrix, as stored or in a type that holds the same numbers
    def stack(self, name: str) -> list[Weight]: ...  # [matrices, rows, columns], in the same way: views of one array
    def vector(self, name: str) -> np.ndarray: ...  # any shape, as float32


def missing(path: Path, name: str, names: Iterable[str] = ()) -> NoReturn:
    """The error for a tensor that is not among these names."""
    similar = next((each for each in names if each.endswith("." + name)), None)
    hint = "" if similar is None else f"; there is {quoted(similar)}: save the model without what is wrapped around it"
    raise ModelError(f"{path}: tensor {name} is missing{hint}")


def unstacked(weight: Weight, stored: StoredTensor, path: Path) -> list[Weight]:
    """The matrices of a stack; `weight` has the rows of all. Raises `ModelError` if the tensor is not a stack."""
    if len(stored.shape) != 3:
        raise ModelError(f"{path}: tensor {stored.name} has shape {list(stored.shape)}, and is no stack of matrices")
    count, rows, _ = stored.shape
    return [replace(weight, data=weight.data[rows * i : rows * (i + 1)]) for i in range(count)]


class Converted:
    """Converted matrices that are still in use: the parts of a model that share a tensor then also share its memory."""

    def __init__(self) -> None:
        # an array lives as long as a view of it
        self._arrays: WeakValueDictionary[str, np.ndarray] = WeakValueDictionary()
        self._kinds: dict[str, type[Weight]] = {}

    def weight(self, name: str, make: Callable[[], Weight]) -> Weight:
        """The matrix of that name, made only if it is not in use already."""
        data = self._arrays.get(name)
        if data is not None:
            return self._kinds[name](data)
        weight = make()
        self._arrays[name], self._kinds[name] = weight.data, type(weight)
        return weight


class GGUFSource:
    """The tensors of a GGUF file. Weights that backends compute with are views of it."""

    def __init__(self, file: GGUFFile) -> None:
        self.path = file.path
        self._tensors, self._converted = file.tensors, Converted()

    def names(self) -> Iterable[str]:
        return self._tensors

    def _tensor(self, name: str) -> GGUFTensor:
        return self._tensors[name] if name in self._tensors else missing(self.path, name, self._tensors)

    def describe(self, name: str) -> StoredTensor:
        tensor = self._tensor(name)
        return StoredTensor(name, tensor.type.name, tensor.shape, tensor.data.nbytes, kept_as(tensor.type.name))

    def weight(self, name: str) -> Weight:
        tensor = self._tensor(name)
        return self._converted.weight(name, lambda: weight_of(tensor))

    def stack(self, name: str) -> list[Weight]:
        return unstacked(self.weight(name), self.describe(name), self.path)

    def vector(self, name: str) -> np.ndarray:
        return floats_of(self._tensor(name))
