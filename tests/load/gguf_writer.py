"""A GGUF file written by hand, so that the reader is tested against the format document and not against itself."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TYPES = {"uint8": 0, "int8": 1, "uint16": 2, "int16": 3, "uint32": 4, "int32": 5, "float32": 6, "bool": 7,
         "string": 8, "array": 9, "uint64": 10, "int64": 11, "float64": 12}  # fmt: skip
LETTERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
GGML = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q4_K": 12, "Q5_K": 13,
        "Q6_K": 14, "IQ4_NL": 20, "BF16": 30, "Q3_K": 11, "IQ3_S": 21, "MXFP4": 39}  # fmt: skip


@dataclass(frozen=True)
class Value:
    """A metadata value of a named type; an array names the type of its elements."""

    kind: str
    value: Any
    element: str = ""


@dataclass(frozen=True)
class Stored:
    """A tensor: type, shape as (rows, columns), and its bytes."""

    kind: str
    shape: tuple[int, ...]
    data: bytes

    @staticmethod
    def float32(values: np.ndarray) -> Stored:
        return Stored("F32", values.shape, values.astype("<f4").tobytes())


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def payload(kind: str, value: Any, element: str = "") -> bytes:
    if kind == "string":
        return string(value)
    if kind != "array":
        return struct.pack("<" + LETTERS[TYPES[kind]], value)
    head = struct.pack("<IQ", TYPES[element], len(value))
    if element == "array":  # of Values, whose kind is known to be array
        return head + b"".join(payload("array", inner.value, inner.element) for inner in value)
    return head + b"".join(payload(element, item) for item in value)


def as_value(value: Any) -> Value:
    if isinstance(value, Value):
        return value
    if isinstance(value, bool):
        return Value("bool", value)
    if isinstance(value, int):
        return Value("uint32", value)
    if isinstance(value, float):
        return Value("float32", value)
    if isinstance(value, str):
        return Value("string", value)
    kind = {str: "string", int: "int32", float: "float32"}[type(value[0])]
    return Value("array", value, kind)


def gguf_bytes(
    metadata: Mapping[str, Any] | Sequence[tuple[str, Any]],
    tensors: Mapping[str, Stored] | Sequence[tuple[str, Stored]] = (),
    *,
    version: int = 3,
    alignment: int = 32,
    byte_order: str = "<",
) -> bytes:
    """The file. Pairs instead of mappings allow a name to come twice."""
    entries = list(metadata.items() if isinstance(metadata, Mapping) else metadata)
    stored = list(tensors.items() if isinstance(tensors, Mapping) else tensors)
    out = b"GGUF" + struct.pack(byte_order + "IQQ", version, len(stored), len(entries))
    for key, raw in entries:
        value = as_value(raw)
        out += string(key) + struct.pack("<I", TYPES[value.kind]) + payload(value.kind, value.value, value.element)
    offset = 0
    for name, tensor in stored:
        dimensions = tensor.shape[::-1]
        out += string(name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        out += struct.pack("<IQ", GGML[tensor.kind], offset)
        offset += -(-len(tensor.data) // alignment) * alignment
    body = b"".join(t.data + bytes(-len(t.data) % alignment) for _, t in stored)
    return out + (bytes(-len(out) % alignment) + body if stored else b"")
