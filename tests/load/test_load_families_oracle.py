"""GGUF files whose metadata is changed within what their families allow, against llama.cpp: `pytest -m oracle`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum.engine.llm import LLM
from tests.load.gguf_writer import Stored, Value, gguf_bytes
from tests.model.families import FAMILIES, from_recipe

pytestmark = pytest.mark.oracle
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16}
LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}
FACTORS = {f"rope_factors_{kind}.weight": np.linspace(1, end, 8) for kind, end in (("short", 2), ("long", 5))}

CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("qwen2-wide", {**YARN, "rope.scaling.attn_factor": 0.7}),
    ("qwen2-wide", {**YARN, "rope.scaling.yarn_attn_factor": 1.1386294}),
    ("phi-wide", YARN),
    ("phi-wide", LINEAR),
    ("glm4-wide", YARN),
    ("ministral3-wide", {"rope.scaling.yarn_log_multiplier": 0.5}),
    ("ministral3-wide", {"rope.scaling.yarn_log_multiplier": 0.0, "rope.scaling.attn_factor": 1.3}),
    ("ministral3-wide", {"rope.scaling.type": "none"}),
    ("ministral3-wide", {"attention.temperature_scale": 0.0}),
    ("phi3-wide", {"rope.scaling.attn_factor": 0.8}),
    ("phi3-wide", {"rope.scaling.original_context_length": 4096}),
    ("phi3-wide", {"rope.scaling.factor": 2.0}),
    ("llama-wide", {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": 16, **FACTORS}),
    ("llama-wide", {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": 4096, **FACTORS}),
    ("gemma2-wide", LINEAR),
    ("gemma2-wide", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    ("gemma2-wide", {"attention.sliding_window_pattern": 3}),
    ("gemma2-wide", {"rope.freq_base_swa": 50.0}),
    ("gemma3-wide", {"rope.freq_base_swa": None}),
    ("gemma3-wide", {"attention.sliding_window": 0}),
    ("gemma3-wide", {"attention.sliding_window": None}),
    ("gemma3-wide", {"attention.sliding_window_pattern": 2, "final_logit_softcapping": 2.0}),
    ("gemma3-wide", {"attention.sliding_window_pattern": Value("array", [0, 1, 1, 0, 0, 1, 0], "bool")}),
    ("olmo3-wide", {"attention.sliding_window_pattern": None}),
    ("olmo3-wide", {"attention.sliding_window": None, "attention.sliding_window_pattern": None}),
    ("olmo3-odd", YARN),
    ("cohere2-wide", {"attention.sliding_window_pattern": 2, "logit_scale": 0.25}),
    ("cohere2-wide", LINEAR),
    ("cohere-wide", {"logit_scale": None}),
    ("cohere-wide", {"logit_scale": 0.0}),
    ("gpt-oss-wide", {"attention.sliding_window_pattern": 3}),
    ("gpt-oss-wide", {"rope.freq_base_swa": 50.0}),
    ("granite-wide", {"attention.scale": 0.0, "residual_scale": 0.0, "embedding_scale": 0.0}),
    ("granite-moe-wide", {"attention.scale": None, "residual_scale": None, "embedding_scale": None}),
    ("granite-moe-wide", {"expert_used_count": 3}),
    ("qwen3-moe-wide", {"expert_used_count": 1, "expert_weights_scale": 1.0}),
    ("qwen2-moe-wide", {"expert_gating_func": 1}),
    ("stablelm-wide", {"use_parallel_residual": True}),
    ("gpt-neox-odd", {"use_parallel_residual": True}),
    ("falcon-new", {"rope.freq_base": 50.0, **LINEAR}),
    ("smollm3-wide", YARN),
]  # fmt: skip
CASES = {f"{number}: {name}": case for number, case in enumerate(CHANGES) for name in [case[0]]}


@pytest.mark.clause("LOAD-131", "LOAD-132", "LOAD-133")
@pytest.mark.parametrize("case", CASES)
def test_changed_metadata_means_what_it_means_to_llama_cpp(tmp_path: Path, case: str) -> None:
    pytest.importorskip("llama_cpp")
    from tests.goldens.make_family_ggufs import NEAR, distance, llama_cpp_logits

    name, changes = CASES[case]
    golden = FAMILIES[name]
    assert golden.recipe is not None
    weights, prefix = golden.weights(), golden.recipe["metadata"]["general.architecture"][1] + "."
    metadata: dict[str, Any] = {key: Value(*value) for key, value in golden.recipe["metadata"].items()}
    metadata["tokenizer.ggml.model"] = Value("string", "none")
    metadata |= {prefix + key: value for key, value in changes.items() if not isinstance(value, np.ndarray)}
    tensors = {key: from_recipe(recipe, weights) for key, recipe in golden.recipe["tensors"].items()}
    tensors |= {key: value for key, value in changes.items() if isinstance(value, np.ndarray)}
    path = tmp_path / "model.gguf"
    stored = {key: Stored.float32(array) for key, array in tensors.items()}
    path.write_bytes(gguf_bytes({key: value for key, value in metadata.items() if value is not None}, stored))
    llm = LLM(str(path), backend="numba", kv_memory="4MiB", max_model_len=len(golden.tokens))
    assert distance(llama_cpp_logits(path, golden.tokens), llm.logits(golden.tokens)) < NEAR
