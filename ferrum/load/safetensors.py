"""The tensors of a Hugging Face directory: model.safetensors, or shards listed in model.safetensors.index.json.

Owns: finding and opening the files. Refuses to know: the byte format, which the `safetensors` library reads and checks.
Specs: LOAD-11 to LOAD-14. Source: the safetensors format document; transformers' sharded checkpoints.
Next: `ferrum.load.gguf`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ferrum.errors import InvalidFormat, NotFound, Unsupported
from ferrum.load.fields import read_json
from ferrum.load.source import StoredTensor, missing
from ferrum.tensor.weights import Dense

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ELEMENT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
"""Element types that backends compute with."""


class SafetensorsSource:
    """All tensors of a directory. Every shard is opened, and its header checked, at once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._files: dict[str, Any] = {}  # tensor name -> the open file that holds it
        if (folder / INDEX).exists():
            self._open_shards(folder)
        elif (folder / SINGLE).exists():
            file = _open(folder / SINGLE)
            self._files = dict.fromkeys(file.keys(), file)
        else:
            raise NotFound(f"{folder} holds neither {SINGLE} nor {INDEX}")

    def _open_shards(self, folder: Path) -> None:
        index = read_json(folder / INDEX)
        places = index.inner("weight_map").values
        if not places:
            raise index.wrong("weight_map", "an object that names tensors")
        opened: dict[str, Any] = {}
        held: dict[str, set[str]] = {}
        for name, shard in places.items():
            if not isinstance(shard, str) or Path(shard).name != shard or Path(shard).suffix != ".safetensors":
                raise InvalidFormat(f"{index.where}: {name} must be in a file of this directory, not in {shard!r}")
            if shard not in opened:
                opened[shard] = _open(folder / shard)
                held[shard] = set(opened[shard].keys())
            if name not in held[shard]:
                raise InvalidFormat(f"{index.where}: tensor {name} is not in {shard}")
            self._files[name] = opened[shard]

    def names(self) -> Iterable[str]:
        return self._files

    def describe(self, name: str) -> StoredTensor:
        if name not in self._files:
            missing(self.path, name)
        part = self._files[name].get_slice(name)
        kind, shape = part.get_dtype(), tuple(part.get_shape())
        return StoredTensor(name, kind, shape, ELEMENT_BYTES.get(kind, 1) * math.prod(shape))

    def _array(self, name: str) -> np.ndarray:
        stored = self.describe(name)
        if stored.type not in ELEMENT_BYTES:
            supported = ", ".join(ELEMENT_BYTES)
            raise Unsupported(f"{self.path}: tensor {name} is stored as {stored.type}; supported are {supported}")
        array: np.ndarray = self._files[name].get_tensor(name)
        return array

    def weight(self, name: str) -> Dense:
        return Dense(self._array(name))

    def vector(self, name: str) -> np.ndarray:
        return self._array(name).astype(np.float32, copy=False)


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist; the download of this model may be incomplete") from None
    except (SafetensorError, OSError) as error:
        raise InvalidFormat(f"{path} is not a valid safetensors file: {' '.join(str(error).split())}") from None
