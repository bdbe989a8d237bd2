"""A model widened with zeros until its rows divide into the blocks of 256 that K-quants need, and those quantised.

SmolLM2-135M is 576 wide. With 768 columns, and with heads of zeros to fill them, the same numbers are computed: what is
added is zero everywhere. A norm divides by 768 instead of 576 squares' mean; its weight and its epsilon undo that. The
quantising itself is llama.cpp's, every matrix in the one type.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 256
FILE_TYPES = {"q4_k": 14, "q5_k": 16, "q6_k": 18}
"""What llama.cpp calls a file of each."""

_QUANTISE = """
import sys, llama_cpp
source, target, kind = sys.argv[1:]
params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.pure, params.nthread = int(kind), True, 1
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), params))
"""


def write_widened(source: Path, target: Path) -> None:
    """In float32. Raises ValueError where heads cannot fill the width."""
    import gguf

    reader = gguf.GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    architecture = fields["general.architecture"]
    hidden, heads = fields[f"{architecture}.embedding_length"], fields[f"{architecture}.attention.head_count"]
    kv_heads, wide = fields[f"{architecture}.attention.head_count_kv"], -(-hidden // BLOCK) * BLOCK
    if heads * wide % hidden or kv_heads * wide % hidden:
        raise ValueError(f"{heads} heads and {kv_heads} of keys do not grow from {hidden} to {wide} columns")
    changed = {
        "embedding_length": wide,
        "attention.head_count": heads * wide // hidden,
        "attention.head_count_kv": kv_heads * wide // hidden,
        "attention.layer_norm_rms_epsilon": fields[f"{architecture}.attention.layer_norm_rms_epsilon"] * hidden / wide,
    }
    writer = gguf.GGUFWriter(target, architecture)
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            value = changed.get(field.name.removeprefix(f"{architecture}."), field.contents())
            writer.add_key_value(field.name, value, field.types[0], inner)
    for tensor in reader.tensors:
        shape = tuple(reversed(tensor.shape.tolist()))
        values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        writer.add_tensor(tensor.name, widened(tensor.name, values, hidden, wide))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def widened(name: str, values: np.ndarray[Any, Any], hidden: int, wide: int) -> np.ndarray[Any, Any]:
    """A tensor, with zeros behind each axis that is as long as the model is wide, or has heads."""
    if values.ndim == 1:
        return np.pad(values * np.float32(hidden / wide) ** np.float32(0.5), (0, wide - hidden)).astype(np.float32)
    grows = [size == hidden for size in values.shape]
    if name.endswith(("attn_k.weight", "attn_v.weight")):
        grows = [True, True]
    if name.startswith(("token_embd", "output.")):
        grows = [False, True]
    added = [(0, size * wide // hidden - size if grown else 0) for size, grown in zip(values.shape, grows, strict=True)]
    return np.pad(values, added).astype(np.float32)


def quantise(source: Path, target: Path, name: str, python: str) -> None:
    """By the llama.cpp that this interpreter has."""
    command = [python, "-c", _QUANTISE, str(source), str(target), str(FILE_TYPES[name])]
    subprocess.run(command, check=True, capture_output=True)
