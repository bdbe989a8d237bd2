"""A directory of safetensors whose matrices may be quantised, read as if none were.

Owns: which tensors are parts of a quantised matrix, and the matrices in their place. Tensors that the directory stores
as plain numbers stay plain, whatever config.json says. Refuses to know: how a format packs its numbers
(`ferrum.load.packed`).
Specs: LOAD-103 to LOAD-105. Next: `ferrum.load.packed`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np

from ferrum.errors import InvalidFormat
from ferrum.fields import Fields
from ferrum.load.conversion import to_float32
from ferrum.load.packed import Format, Packed, Parts
from ferrum.load.quantization_config import ACTIVATION_SCALES, find_formats
from ferrum.load.safetensors import SafetensorsSource
from ferrum.load.source import Converted, StoredTensor, TensorSource, unstacked
from ferrum.tensor.weights import Weight


def open_safetensors(folder: Path, config: Fields) -> TensorSource:
    """The tensors of a directory, with quantised matrices put together. Raises `Unsupported` for an unknown method."""
    formats = find_formats(config)
    source = SafetensorsSource(folder)
    return QuantizedSource(source, formats) if formats else source


class QuantizedSource:
    """The tensors of another source; the parts of a quantised matrix are replaced by the matrix."""

    def __init__(self, source: SafetensorsSource, formats: Iterable[Format]) -> None:
        self.path, self._source, self._converted = source.path, source, Converted()
        self._matrices: dict[str, _Matrix] = {}
        hidden: set[str] = set()
        for name in source.names():
            kind = source.describe(name).type
            form = next((form for form in formats if name.endswith(form.main) and kind in form.types), None)
            if form is None:
                continue
            stem = name.removesuffix(form.main)
            matrix = stem + form.name
            if matrix != name and matrix in source:
                raise InvalidFormat(f"{self.path}: tensor {matrix} is there twice, quantised and plain")
            parts = Parts(source, str(self.path), stem, form)
            self._matrices[matrix] = _Matrix(parts)
            hidden.update(parts.names())
        if self._matrices:
            hidden.update(name for name in source.names() if name.endswith(ACTIVATION_SCALES))
        self._names = [*(name for name in source.names() if name not in hidden), *self._matrices]

    def names(self) -> Iterable[str]:
        return self._names

    def describe(self, name: str) -> StoredTensor:
        if name not in self._matrices:
            return self._source.describe(name)
        matrix = self._matrices[name]
        packed, size = matrix.packed, sum(self._source.describe(part).nbytes for part in matrix.parts.names())
        return StoredTensor(name, packed.label, packed.shape, size, (*packed.kinds, "float32")[0])

    def weight(self, name: str) -> Weight:
        if name not in self._matrices:
            return self._source.weight(name)
        return self._converted.weight(name, self._matrices[name].packed.weight)

    def stack(self, name: str) -> list[Weight]:
        if name not in self._matrices:
            return self._source.stack(name)
        return unstacked(self.weight(name), self.describe(name), self.path)

    def vector(self, name: str) -> np.ndarray:
        if name not in self._matrices:
            return self._source.vector(name)
        return to_float32(self.weight(name)).reshape(self.describe(name).shape)


class _Matrix:
    """A quantised matrix. Its parts are checked against each other at its first use."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    @cached_property
    def packed(self) -> Packed:
        return self.parts.form.open(self.parts)
