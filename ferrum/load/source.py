"""What a file of tensors offers, whatever its format.

Owns: the protocol between file formats and the parameter tree, and GGUF's side of it. Refuses to know: which tensors a
model needs.
Specs: LOAD-10. Next: `ferrum.load.safetensors`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np

from ferrum.errors import ModelError
from ferrum.load.gguf import GGUFFile, GGUFTensor
from ferrum.load.quants import floats_of, weight_of
from ferrum.tensor.weights import Weight


@dataclass(frozen=True)
class StoredTensor:
    """What is known of a tensor without reading it. `shape` is (rows, columns) for a matrix; `type` is the format's
    own name, such as "Q4_1" or "BF16"; `nbytes` is its size in the file."""

    name: str
    type: str
    shape: tuple[int, ...]
    nbytes: int


class TensorSource(Protocol):
    """Tensors by name. Each method raises `ModelError` for a name that is not there."""

    path: Path

    def names(self) -> Iterable[str]: ...
    def describe(self, name: str) -> StoredTensor: ...
    def weight(self, name: str) -> Weight: ...  # a matrix, in the type it is stored in or one that equals it
    def vector(self, name: str) -> np.ndarray: ...  # any shape, as float32


def missing(path: Path, name: str) -> NoReturn:
    """The error for a tensor that is not there."""
    raise ModelError(f"{path}: tensor {name} is missing")


class GGUFSource:
    """The tensors of a GGUF file; weights that backends compute with are views of it."""

    def __init__(self, file: GGUFFile) -> None:
        self.path = file.path
        self._tensors = file.tensors

    def names(self) -> Iterable[str]:
        return self._tensors

    def _tensor(self, name: str) -> GGUFTensor:
        return self._tensors[name] if name in self._tensors else missing(self.path, name)

    def describe(self, name: str) -> StoredTensor:
        tensor = self._tensor(name)
        return StoredTensor(name, tensor.type.name, tensor.shape, tensor.data.nbytes)

    def weight(self, name: str) -> Weight:
        return weight_of(self._tensor(name))

    def vector(self, name: str) -> np.ndarray:
        return floats_of(self._tensor(name))
