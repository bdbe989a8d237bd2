"""Configurations: what config.json or the metadata of a GGUF file says of a model.

Owns: wrong and extreme values of every key. Refuses to know: the containers (`gguf`, `safetensors`).
Next: `tests.fuzz.targets.tokenizers`.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from ferrum.load.model import load_model
from tests.fuzz.mutate import INTERESTING, STRANGE, json_bytes, mutate_text
from tests.fuzz.target import Target
from tests.fuzz.targets.answers import check_answers
from tests.fuzz.targets.gguf import GOLDENS
from tests.load.gguf_writer import LETTERS, TYPES, Stored, Value, as_value, gguf_bytes
from tests.load.tiny_models import CONFIG, METADATA, gguf_tensors, tensors, write_folder

ROPE: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "beta_fast": 32, "beta_slow": 1},
    {"rope_type": "yarn", "factor": 2.0, "attention_factor": 1.0, "mscale": 1.0, "mscale_all_dim": 0.5,
     "truncate": False},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 64},
]  # fmt: skip
KNOWN: list[Any] = [
    *ROPE, "llama", "mistral", "qwen2", "gpt2", "silu", "gelu", "float32", "bfloat16", [1, 2], 1.0, 5e-324, 1e308,
    1e-40, 2**27, 2**28, 2**61, 512, 513, [2, 2], {"sliding_window": 4},
]  # fmt: skip
"""Values that some key understands, and numbers that make others overflow."""
GGUF_MORE: dict[str, Any] = {
    "llama.rope.scaling.type": "yarn",
    "llama.rope.scaling.factor": 4.0,
    "llama.rope.scaling.original_context_length": 128,
    "llama.rope.scaling.yarn_beta_fast": 32.0,
    "llama.rope.scaling.yarn_beta_slow": 1.0,
    "llama.attention.sliding_window": 4,
    "llama.vocab_size": 40,
    "general.file_type": 0,
    "llama.expert_count": 0,
    "split.count": 1,
    "tokenizer.ggml.eot_token_id": 3,
}


@dataclass(frozen=True)
class Case:
    """A GGUF file, or a config.json for the tensors of a folder."""

    file: bytes
    tensors: Path | None = None


class Configurations(Target):
    """One key, or two, of a model whose tensors are good."""

    @cached_property
    def good(self) -> Path:
        return write_folder(self.folder / "good")

    @cached_property
    def stored(self) -> dict[str, Stored]:
        return {name: Stored.float32(array) for name, array in gguf_tensors(tensors()).items()}

    @cached_property
    def configs(self) -> list[tuple[Path, dict[str, Any]]]:
        """Folders with tensors, and configurations that fit them."""
        goldens = [(path.parent, json.loads(path.read_text())) for path in sorted(GOLDENS.glob("*/config.json"))]
        made = [{}, *({key: rope} for rope in ROPE for key in ("rope_scaling", "rope_parameters"))]
        return goldens + [(self.good, {**CONFIG, **more}) for more in made]

    def make(self, random: Random) -> Case:
        if random.random() < 0.5:
            folder, config = random.choice(self.configs)
            return Case(json_bytes(random, json.loads(json.dumps(config)), KNOWN), folder)
        return Case(gguf_bytes(mutate_metadata(random, {**METADATA, **_some(random, GGUF_MORE)}, KNOWN), self.stored))

    def run(self, case: Case) -> None:
        path = self.folder / "model.gguf"
        if case.tensors is None:
            path.unlink(missing_ok=True)
            path.write_bytes(case.file)
        else:
            path = self.folder / "model"
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
            for file in case.tensors.glob("model*"):
                shutil.copy(file, path)
            (path / "config.json").write_bytes(case.file)
        check_answers(load_model(path), 3)

    def show(self, case: Case) -> str:
        return f"{case.file[:1600]!r} for {case.tensors and case.tensors.name}"


def _some(random: Random, values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if random.random() < 0.4}


def mutate_metadata(random: Random, metadata: Mapping[str, Any], known: list[Any]) -> list[tuple[str, Any]]:
    """GGUF metadata with one to three entries changed, removed or renamed."""
    entries = list(metadata.items())
    for _ in range(random.choice([1, 1, 2, 3])):
        place = random.randrange(len(entries))
        key, value = entries[place]
        action = random.randrange(10)
        if action == 0 and len(entries) > 1:
            del entries[place]
        elif action == 1:
            entries[place] = mutate_text(random, key)[:60000], value
        elif action == 2:
            entries[place] = key, random.choice(entries)[1]
        else:
            entries[place] = key, other_value(random, as_value(value), known)
    return entries


def other_value(random: Random, value: Value, known: list[Any]) -> Value:
    """A value of another type or size; of an array a few elements, or all, or its type."""
    if value.kind == "array" and random.random() < 0.7:
        return _other_array(random, value, known)
    kind = random.choice([*TYPES, value.kind, value.kind])
    if kind != "array":
        return Value(kind, fitting(random, kind, random.choice([*STRANGE, *INTERESTING, *known])))
    element = random.choice([name for name in TYPES if name != "array"])
    size = random.choice([0, 1, 2, 3, 100])
    return Value("array", [fitting(random, element, random.choice([*STRANGE, *known])) for _ in range(size)], element)


def _other_array(random: Random, value: Value, known: list[Any]) -> Value:
    items, element = list(value.value), value.element
    action = random.randrange(5)
    if action == 0:
        element = random.choice([name for name in TYPES if name != "array"])
        return Value("array", [fitting(random, element, item) for item in items], element)
    if action == 1:
        return Value("array", items[: random.randrange(len(items) + 1)], element)
    if action == 2:
        return Value("array", items + items[: random.choice([1, 10, len(items)])], element)
    if element == "array" or not items:
        return Value("array", [], "uint8")
    for _ in range(random.choice([1, 1, 3, 20])):
        place = random.randrange(len(items))
        near = mutate_text(random, items[place]) if isinstance(items[place], str) else items[place]
        items[place] = fitting(random, element, random.choice([near, near, items[-1], *known, *INTERESTING]))
    return Value("array", items, element)


def fitting(random: Random, kind: str, value: Any) -> Any:
    """The value in a type, as near as it can be."""
    if kind == "string":
        return value.encode(errors="surrogatepass") if isinstance(value, str) else str(value)[:100]
    if not isinstance(value, (int, float)):
        value = random.choice(INTERESTING)
    if kind in ("float32", "float64"):
        return float(value) if abs(value) < 1e38 else random.choice([3e38, float("inf"), float("nan")])
    if kind == "bool":
        return bool(value)
    size = struct.calcsize(LETTERS[TYPES[kind]])
    whole = int(value) if -(2.0**70) < value < 2.0**70 else 2**64 - 1
    bits = whole % 256**size
    return bits - 256**size if kind.startswith("int") and bits >= 256**size // 2 else bits
