"""Other names of tensors in published models than those of transformers today."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ferrum.engine.llm import LLM
from ferrum.errors import ModelError
from tests.model.families import FAMILIES, Arrays, write_model, write_weights
from tests.model.test_family_goldens import TOLERANCE, error

MASK = np.tril(np.ones((1, 1, 64, 64)))


def fused(weights: Arrays) -> Arrays:
    """All experts of a layer in one tensor, and the router where modules of transformers 5 have it."""
    found: Arrays = {}
    experts: dict[str, list[np.ndarray]] = {}
    gates = {"w1": "gate", "w3": "up", "w2": "down", "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}
    for name in sorted(weights, key=lambda name: [int(part) if part.isdigit() else -1 for part in name.split(".")]):
        layer, _, rest = name.replace("block_sparse_moe", "mlp").partition(".mlp.experts.")
        if rest:
            experts.setdefault(f"{layer}.mlp.experts.{gates[rest.split('.')[1]]}", []).append(weights[name])
        else:
            found[layer] = weights[name]
    stacks = {name: np.stack(each) for name, each in experts.items()}
    for name in [name for name in stacks if name.endswith(".gate")]:
        place = name.removesuffix("gate")
        found[f"{place}gate_up_proj"] = np.concatenate([stacks[name], stacks[f"{place}up"]], 1)
        found[f"{place}down_proj"] = stacks[f"{place}down"]
    return found


def stacked(weights: Arrays) -> Arrays:
    """All experts of a layer in three tensors, as mlx-lm has them."""
    found: Arrays = {}
    for name, array in fused(weights).items():
        if name.endswith(".experts.gate_up_proj"):
            found |= of_mlx(name.removesuffix("experts.gate_up_proj"), array)
        elif name.endswith(".experts.down_proj"):
            found[name.replace("experts.", "switch_mlp.") + ".weight"] = array
        else:
            found[name] = array
    return found


def of_mlx(place: str, gate_up: np.ndarray) -> Arrays:
    """The two halves of a tensor [experts, rows, columns]."""
    return {
        f"{place}switch_mlp.{part}_proj.weight": half
        for part, half in zip(("gate", "up"), np.split(gate_up, 2, 1), strict=True)
    }


def stacked_granite(weights: Arrays) -> Arrays:
    found: Arrays = {}
    for name, array in weights.items():
        if name.endswith("block_sparse_moe.input_linear.weight"):
            found |= of_mlx(name.removesuffix("input_linear.weight"), array)
        else:
            found[name.replace("moe.output_linear", "moe.switch_mlp.down_proj")] = array
    return found


def stacked_mixtral(weights: Arrays) -> Arrays:
    return {name.replace(".mlp.", ".block_sparse_moe."): array for name, array in stacked(weights).items()}


def bare(weights: Arrays) -> Arrays:
    """As the first GPT-2 was saved: no prefix, and a mask in every layer."""
    found = {name.removeprefix("transformer."): array for name, array in weights.items()}
    layers = {name.split(".")[1] for name in found if name.startswith("h.")}
    for layer in layers:
        found[f"h.{layer}.attn.bias"] = MASK.astype(np.float32)
        found[f"h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)
    return found


def masked(kind: type) -> Callable[[Arrays], Arrays]:
    """As Pythia was saved: masks of bytes, or of bits, and frequencies."""

    def change(weights: Arrays) -> Arrays:
        found = dict(weights)
        for layer in {name.split(".")[2] for name in weights if name.startswith("gpt_neox.layers.")}:
            place = f"gpt_neox.layers.{layer}.attention."
            found[f"{place}bias"] = MASK.astype(kind)
            found[f"{place}masked_bias"] = np.array(-1e4, np.float16)
            found[f"{place}rotary_emb.inv_freq"] = np.ones(4, np.float16)
        return found

    return change


def with_head(embedding: str, head: str = "lm_head.weight") -> Callable[[Arrays], Arrays]:
    """As many were saved whose head is the embedding: both."""
    return lambda weights: {**weights, head: weights[embedding]}


CASES: dict[str, tuple[str, Callable[[Arrays], Arrays]]] = {
    "GPT-2": ("gpt2-wide", bare),
    "Pythia, bytes": ("gpt-neox-wide", masked(np.uint8)),
    "Pythia, bits": ("gpt-neox-wide", masked(np.bool_)),
    "Falcon": ("falcon-wide", with_head("transformer.word_embeddings.weight")),
    "Gemma": ("gemma-wide", with_head("model.embed_tokens.weight")),
    "Mixtral, fused": ("mixtral-wide", fused),
    "Qwen 2 with experts, fused": ("qwen2-moe-wide", fused),
    "Qwen 3 with experts, fused, some layers without": ("qwen3-moe-odd", fused),
    "OLMoE, fused": ("olmoe-odd", fused),
    "Mixtral by mlx-lm": ("mixtral-wide", stacked_mixtral),
    "Qwen 2 with experts by mlx-lm": ("qwen2-moe-wide", stacked),
    "Qwen 3 with experts by mlx-lm": ("qwen3-moe-odd", stacked),
    "Granite with experts by mlx-lm": ("granite-moe-wide", stacked_granite),
}


@pytest.mark.clause("LOAD-33", "LOAD-34", "LOAD-92")
@pytest.mark.filterwarnings("error::ferrum.errors.ModelWarning")
@pytest.mark.parametrize("case", CASES)
def test_tensors_of_published_files_have_their_place(case: str, tmp_path: Path) -> None:
    name, change = CASES[case]
    golden = FAMILIES[name]
    folder, weights = write_model(golden, tmp_path), golden.weights()
    changed = change(weights)
    assert changed.keys() != weights.keys()
    write_weights({key: np.ascontiguousarray(array) for key, array in changed.items()}, folder / "model.safetensors")
    llm = LLM(str(folder), backend="numba", kv_memory="4MiB", max_model_len=len(golden.tokens))
    assert error(llm.logits(golden.tokens), golden.logits) < TOLERANCE


@pytest.mark.clause("LOAD-32")
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model."])
def test_what_is_wrapped_around_a_model_is_named(prefix: str, tmp_path: Path) -> None:
    golden = FAMILIES["llama-odd"]
    folder = write_model(golden, tmp_path)
    write_weights({prefix + key: array for key, array in golden.weights().items()}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=f"is missing; there is '{prefix}model.embed_tokens.weight': save the model"):
        LLM(str(folder), backend="numpy", kv_memory="4MiB")
