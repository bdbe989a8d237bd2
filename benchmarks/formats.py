"""One model's weights in every format, so that all contestants compute the same thing.

A GGUF file of each type is written with the `gguf` package from the dequantised weights of the given one: every matrix
in that type, every vector in float32, all else as it was. For the type that the given file is of, the file itself is
used. For transformers there is a directory in float32 and one in bfloat16. All are kept in the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shapes import MIXTURES, write_shape

from ferrum.config import ModelConfig, RopeScaling
from ferrum.load.conversion import FLOAT_TYPES
from ferrum.load.layouts_json import LLAMA as NAMES
from ferrum.load.model import load_model
from ferrum.model.params import DecoderParams
from ferrum.paths import cache_folder

FORMATS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "q8_0": "q8_0", "q4_0": "q4_0", "q4_1": "q4_1"}
"""By the name that GGUF files use: our dtype."""


@dataclass(frozen=True)
class Work:
    """What a model makes a machine do. Attention and norms are left out: with a short context they are little."""

    read_bytes: int  # weights that one decode step reads, whatever the number of sequences
    decode_products: int  # multiply-adds of one decoded token
    prefill_products: int  # multiply-adds of one token of a prompt: only the last one goes through the head


def work_of(path: Path) -> Work:
    """Of a model in a file, counted from its weights."""
    params = load_model(path).params
    layers = [linear.weight for layer in params.layers for _, linear in layer.linears()]
    head = params.head.linear.weight
    products = sum(weight.rows * weight.columns for weight in layers)
    read = sum(weight.data.nbytes for weight in (*layers, head))
    return Work(read, products + head.rows * head.columns, products)


def own_format(path: Path) -> str:
    """The format that most of the file's weights are in."""
    from ferrum.engine.setup import weights_dtype

    names = {dtype: name for name, dtype in FORMATS.items()}
    kind = weights_dtype(load_model(path).params)
    return names.get(kind, kind)


class Variants(ABC):
    """Files of one model in several formats, made when first asked for and kept in a folder."""

    has_directories = False
    """Are there directories for transformers?"""

    def __init__(self, name: str, folder: Path, own: str, formats: Sequence[str]) -> None:
        self.name, self.folder, self.own, self.formats = name, folder, own, tuple(formats)

    @abstractmethod
    def gguf(self, name: str) -> Path: ...

    def directory(self, name: str) -> Path:
        """Of a format, for transformers. Raises ValueError where there are none (`has_directories`)."""
        raise ValueError(f"{self.name} has no directories")

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """The whole of it or nothing: what was begun and not ended has another name."""
        path = self.folder / name
        if not path.exists():
            print(f"writing {path}")
            self.folder.mkdir(parents=True, exist_ok=True)
            begun = path.with_name(f"{name}.{os.getpid()}")
            try:
                make(begun)
                begun.rename(path)
            finally:
                shutil.rmtree(begun, ignore_errors=True) if begun.is_dir() else begun.unlink(missing_ok=True)
        return path


class ShapeFiles(Variants):
    """Random weights in the shape of a known model."""

    def __init__(self, shape: str) -> None:
        super().__init__(shape, cache_folder() / "benchmarks" / "shapes", "q4_0", MIXTURES)

    def gguf(self, name: str) -> Path:
        return self.made(f"{self.name}-{name}.gguf", lambda path: write_shape(self.name, name, path))


class Formats(Variants):
    """Variants of one GGUF file."""

    def __init__(self, source: Path) -> None:
        self.source, own = source, own_format(source)
        status = source.stat()
        key = hashlib.sha256(f"{source.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:12]
        formats = dict.fromkeys((*FORMATS, own))
        super().__init__(source.name, cache_folder() / "benchmarks" / f"{source.stem}-{key}", own, list(formats))

    def gguf(self, name: str) -> Path:
        if name == self.own:
            return self.source
        return self.made(f"{name}.gguf", lambda path: write_gguf(self.source, path, name))

    @property
    def has_directories(self) -> bool:  # type: ignore[override]
        """True if a directory can describe the whole model. Scaled rotary embeddings are not written."""
        return load_model(self.source).config.rope.scaling is RopeScaling.NONE

    def directory(self, name: str) -> Path:
        """For transformers; `name` is f32 or bf16. Only where `has_directories`."""
        return self.made(f"hf-{name}", lambda path: write_directory(self.source, path, FORMATS[name]))


def write_gguf(source: Path, target: Path, name: str) -> None:
    import gguf

    kind = gguf.GGMLQuantizationType[name.upper()]
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    writer.add_file_type(gguf.LlamaFileType[("ALL_" if name == "f32" else "MOSTLY_") + name.upper()])
    for tensor in reader.tensors:
        shape = tuple(reversed(tensor.shape.tolist()))  # ours: rows, columns
        values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        own = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quantize(values, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_directory(source: Path, target: Path, dtype: str) -> None:
    from safetensors.numpy import save_file

    model = load_model(source, "float32")  # with rows of q and k in the order that transformers has
    tensors = {name: array.astype(FLOAT_TYPES[dtype]) for name, array in named(model.params).items()}
    target.mkdir()
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    (target / "config.json").write_text(json.dumps(config_json(model.config, dtype), indent=1))


def named(params: DecoderParams) -> dict:  # type: ignore[type-arg]
    """Every tensor under transformers' name."""
    table, head = params.embedding.table, params.head.linear.weight
    found = {f"{NAMES.embedding}.weight": table.data, f"{NAMES.norm}.weight": params.head.norm.weight}
    if head is not table:
        found[f"{NAMES.head}.weight"] = head.data
    for number, layer in enumerate(params.layers):
        parts = {name: linear.weight.data for name, linear in layer.linears()}
        for name, (branch,) in zip(("attention_norm", "mlp_norm"), layer.stages, strict=True):
            assert branch.before is not None
            parts[name] = branch.before.weight
        found |= {f"{NAMES.layer[name].format(layer=number)}.weight": array for name, array in parts.items()}
    return found


def config_json(config: ModelConfig, dtype: str) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope.theta,
        "hidden_act": "silu",
        "tie_word_embeddings": config.tie_embeddings,
        "dtype": dtype,
    }
