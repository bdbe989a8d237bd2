"""Directories of quantised safetensors, written by hand: a header, then bytes; and AWQ's and GPTQ's way to pack.

The packers follow the formats number by number, as the documents of AutoGPTQ and AutoAWQ describe them: they are slow,
plain, and independent of the reader.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tests.load.tiny_models import CONFIG

ELEMENTS = {
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "I32": np.int32,
    "U32": np.uint32,
    "U8": np.uint8,
    "I8": np.int8,
    "I64": np.int64,
}

Tensors = dict[str, tuple[str, np.ndarray]]
"""Name -> type of the elements, and an array of elements of that size."""


def write_raw(folder: Path, tensors: Mapping[str, tuple[str, np.ndarray]], config: dict[str, Any]) -> Path:
    """A directory with these tensors and with these keys added to config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    header: dict[str, Any] = {}
    data = b""
    for name, (kind, array) in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def pack_columns(codes: np.ndarray, bits: int, order: tuple[int, ...] | None = None) -> np.ndarray:
    """[n, m] -> int32 [n, m * bits / 32]: number i of a word is column `order[i]` of its share."""
    count = 32 // bits
    packed = np.zeros((codes.shape[0], codes.shape[1] // count), np.uint32)
    for row in range(packed.shape[0]):
        for word in range(packed.shape[1]):
            for place in range(count):
                column = word * count + (order[place] if order else place)
                packed[row, word] |= np.uint32(int(codes[row, column]) << bits * place)
    return packed.view(np.int32)


AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def awq_tensors(stem: str, codes: np.ndarray, zeros: np.ndarray, scales: np.ndarray) -> Tensors:
    """codes [rows, columns], zeros and scales [rows, groups]: stored the other way round."""
    return {
        f"{stem}.qweight": ("I32", pack_columns(codes.T, 4, AWQ_ORDER)),
        f"{stem}.qzeros": ("I32", pack_columns(zeros.T, 4, AWQ_ORDER)),
        f"{stem}.scales": ("F16", scales.T.astype(np.float16)),
    }


def gptq_tensors(
    stem: str,
    codes: np.ndarray,
    zeros: np.ndarray,
    scales: np.ndarray,
    bits: int = 4,
    version: int = 1,
    places: np.ndarray | None = None,
) -> Tensors:
    """The same for GPTQ, whose first version keeps zeros less one."""
    stored = zeros.T - 1 if version == 1 else zeros.T
    tensors: Tensors = {
        f"{stem}.qweight": ("I32", np.ascontiguousarray(pack_columns(codes, bits).T)),
        f"{stem}.qzeros": ("I32", pack_columns(stored & (1 << bits) - 1, bits)),
        f"{stem}.scales": ("F16", scales.T.astype(np.float16)),
    }
    if places is not None:
        tensors[f"{stem}.g_idx"] = "I32", places.astype(np.int32)
    return tensors


def values(codes: np.ndarray, zeros: np.ndarray, scales: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(code - zero) * scale, number by number; `places` is the group of each column."""
    found = np.zeros(codes.shape, np.float32)
    for row in range(codes.shape[0]):
        for column, group in enumerate(places):
            found[row, column] = np.float32(int(codes[row, column]) - int(zeros[row, group])) * scales[row, group]
    return found
