"""Small random models of every family, rebuilt from tests/goldens/families/.

A golden is two files. NAME.json has the model's config.json, the names, shapes and types of its tensors, a seed, a
prompt and its greedy continuation; NAME.npz has the float32 logits [tokens, vocab] of transformers. The weights are not
stored: `random_weights` computes them from the seed, the same ones for the maker (tests/goldens/make_family_goldens.py)
and for the tests, because NumPy's RandomState never changes its stream.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from tests.load.gguf_writer import Stored, Value, gguf_bytes

FOLDER = Path(__file__).resolve().parents[1] / "goldens" / "families"
RECIPES = FOLDER / "gguf"
DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""The stored type and the shape of each tensor, by name."""
Arrays = dict[str, np.ndarray]
EMBEDDING = {"gemma": 0.06, "gemma2": 0.06, "gemma3_text": 0.06, "olmo2": 0.3, "olmo3": 0.3}
"""Standard deviations of embeddings, small beside what layers add, since otherwise a tied head would repeat the last
token. Gemma multiplies its embeddings, and OLMo's layers do not normalise their input."""


@dataclass(frozen=True)
class Golden:
    """A model, and the logits that transformers computes with it."""

    name: str
    config: dict[str, Any]
    tensors: Tensors
    seed: int
    tokens: list[int]
    greedy: list[int]

    @cached_property
    def logits(self) -> np.ndarray:
        """float32 [tokens, vocab]"""
        with np.load(FOLDER / f"{self.name}.npz") as file:
            return file["logits"]

    @cached_property
    def recipe(self) -> dict[str, Any] | None:
        """How llama.cpp's converter writes the model. None if it cannot, or if llama.cpp computes other logits."""
        path = RECIPES / f"{self.name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def weights(self) -> Arrays:
        return random_weights(self.config, self.tensors, self.seed)


def read_golden(path: Path) -> Golden:
    told = json.loads(path.read_text())
    told["tensors"] = {name: (dtype, tuple(shape)) for name, (dtype, shape) in told["tensors"].items()}
    return Golden(path.stem, **told)


FAMILIES = {path.stem: read_golden(path) for path in sorted(FOLDER.glob("*.json"))}


def random_weights(config: Mapping[str, Any], tensors: Tensors, seed: int) -> Arrays:
    """The tensors of a model, drawn one after the other in the order of their names."""
    random = np.random.RandomState(seed)
    weights = {}
    for name, (dtype, shape) in sorted(tensors.items()):
        centre, scale = spread(name, shape, config["model_type"])
        noise = random.standard_normal(shape)
        weights[name] = (centre + scale * noise).astype(np.float32).astype(DTYPES[dtype])
    return weights


def spread(name: str, shape: tuple[int, ...], model_type: str) -> tuple[float, float]:
    """The mean and the standard deviation of a tensor's numbers. With the usual deviation of 0.02, wrong attention
    would hardly change the logits."""
    module, kind = name.rsplit(".", 1)
    last = module.rsplit(".", 1)[-1]
    if "bias" in kind:
        return 0.0, 0.3
    if kind == "sinks":
        return 0.0, 1.0
    if "norm" in name or last.startswith("ln_"):
        return 0.0 if model_type.startswith("gemma") else 1.0, 0.3  # Gemma adds 1 to what is stored
    if "embed" in name or last in ("wte", "wpe"):
        return 0.0, EMBEDDING.get(model_type, 0.12)
    transposed = model_type == "gpt2" or kind in ("gate_up_proj", "down_proj")  # [inputs, outputs]
    return 0.0, sharpness(name) / shape[-2 if transposed else -1] ** 0.5


def sharpness(name: str) -> float:
    """The standard deviation of a matrix, as a multiple of 1 / sqrt(inputs)."""
    if "q_proj" in name or "k_proj" in name:
        return 1.5  # attention that looks somewhere
    if "qkv" in name or "query_key_value" in name or "c_attn" in name:
        return 1.3
    if name.endswith((".gate.weight", "router.weight", "router.layer.weight")):
        return 2.0  # no two experts equally good
    if name.endswith("experts.gate_up_proj"):
        return 4.0  # numbers beyond the limit at which gpt-oss clamps
    return 1.0


def seed_of(name: str) -> int:
    """The first seed that the maker of the goldens tries."""
    return zlib.crc32(name.encode()) % 1_000_000


def write_weights(weights: Arrays, path: Path) -> None:
    save_file(weights, path, metadata={"format": "pt"})


def write_model(golden: Golden, folder: Path) -> Path:
    """Writes config.json and model.safetensors as transformers does, and a tokenizer in which a token is a word."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(golden.config["vocab_size"])))
    (folder / "config.json").write_text(json.dumps(golden.config, indent=2) + "\n")
    write_weights(golden.weights(), folder / "model.safetensors")
    return folder


def write_gguf(golden: Golden, path: Path) -> Path:
    """Writes the model as a GGUF file in float32 without a vocabulary, as llama.cpp's converter does."""
    assert golden.recipe is not None
    weights = golden.weights()
    metadata = {key: Value(*value) for key, value in golden.recipe["metadata"].items()}
    metadata["tokenizer.ggml.model"] = Value("string", "none")  # llama.cpp asks for it
    tensors = {name: Stored.float32(from_recipe(recipe, weights)) for name, recipe in golden.recipe["tensors"].items()}
    path.write_bytes(gguf_bytes(metadata, tensors))
    return path


def from_recipe(recipe: Mapping[str, Any], weights: Arrays) -> np.ndarray:
    """A tensor of a GGUF file: rows of the model's tensors one below the other, "unit" numbers a row, and what is added
    to them; or its numbers themselves."""
    if "numbers" in recipe:
        return np.array(recipe["numbers"], np.float32).reshape(recipe["shape"])
    unit = recipe.get("unit", recipe["shape"][-1])
    parts = []
    for name, rows, *turned in recipe["parts"]:
        array = weights[name].astype(np.float32)
        parts.append((array.swapaxes(-1, -2) if turned else array).reshape(-1, unit)[chosen(rows)])
    return np.concatenate(parts).reshape(recipe["shape"]) + np.float32(recipe.get("plus", 0))


def chosen(rows: str | list[int]) -> slice | list[int]:
    """ "0:64:2" -> slice(0, 64, 2)"""
    if isinstance(rows, list):
        return rows
    return slice(*(int(part) if part else None for part in rows.split(":")))


def tokenizer(size: int) -> dict[str, Any]:
    """A tokenizer.json in which every token is a word."""
    words = {f"w{number}": number for number in range(size)}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "w0"}
    decoder = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {"version": "1.0", "added_tokens": [], "pre_tokenizer": None, "decoder": decoder, "model": model}
