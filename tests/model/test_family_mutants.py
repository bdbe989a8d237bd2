"""Each feature of each family changes the logits of a golden, so that code without the feature fails at the golden.

A mutant has another value in config.json, or other numbers in the tensors of a feature. If a mutant has the logits of
the golden, either the golden does not test the feature, or the package ignores it.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum.errors import Unsupported
from tests.model.families import FAMILIES, Arrays, Golden, write_model, write_weights
from tests.model.test_family_goldens import READY, TOLERANCE, error, open_model

VISIBLE = 10 * TOLERANCE


@dataclass(frozen=True)
class Mutant:
    """Sets `key` of config.json, with dots between the levels, to `value`. A `key` that begins with a slash is a
    pattern of tensors' names: every number of these tensors is set to `value`."""

    golden: str
    key: str
    value: Any

    def __str__(self) -> str:
        return f"{self.golden}:{self.key}={str(self.value).replace(' ', '')}"


LONG = "rope_scaling.long_factor"
MUTANTS = [
    Mutant(*row)
    for row in (
        ("llama-odd", "rms_norm_eps", 2e-3),
        ("mistral-wide", "sliding_window", 8),
        ("mistral-wide", "sliding_window", 10),
        ("mistral-wide", "sliding_window", None),
        ("ministral-wide", "layer_types", ["full_attention", "sliding_attention"]),
        ("ministral3-wide", "rope_parameters.llama_4_scaling_beta", 0.0),
        ("ministral3-wide", "rope_parameters.mscale_all_dim", 0.5),
        ("smollm3-odd", "no_rope_layers", [1, 1, 1]),
        ("smollm3-odd", "sliding_window", 8),
        ("smollm3-wide", "no_rope_layers", [1, 1, 1, 1]),
        ("qwen2-wide", r"/\.k_proj\.bias$", 0.0),
        ("qwen2-odd", "sliding_window", 8),
        ("qwen2-odd", "max_window_layers", 1),
        ("qwen2-odd", "use_sliding_window", False),
        ("qwen2-layer-types", "layer_types", ["full_attention", "sliding_attention"]),
        ("qwen3-odd", "layer_types", ["sliding_attention", "full_attention", "sliding_attention"]),
        ("qwen3-wide", r"/\.q_norm\.weight$", 1.0),
        ("qwen3-wide", r"/\.k_norm\.weight$", 1.0),
        ("phi3-wide", LONG, [1.0] * 8),
        ("phi3-wide", "original_max_position_embeddings", 17),
        ("phi3-window", "sliding_window", 14),
        ("phi4-mini", "rope_scaling.short_factor", [1.0] * 6),
        ("phi-wide", "partial_rotary_factor", 0.25),
        ("phi-wide", r"/lm_head\.bias$", 0.0),
        ("phi-odd", "hidden_act", "gelu"),
        ("gemma-odd", "hidden_act", "silu"),
        ("gemma2-wide", "attn_logit_softcapping", None),
        ("gemma2-wide", "final_logit_softcapping", None),
        ("gemma2-wide", "query_pre_attn_scalar", 64),
        ("gemma2-wide", "sliding_window", 10),
        ("gemma2-odd", "layer_types", ["sliding_attention", "full_attention"]),
        ("gemma2-wide", r"/pre_feedforward_layernorm", 0.0),
        ("gemma2-wide", r"/post_feedforward_layernorm", 0.0),
        ("gemma3-wide", "rope_parameters.full_attention.factor", 1.0),
        ("gemma3-wide", "rope_parameters.sliding_attention.rope_theta", 5000.0),
        ("gemma3-wide", "sliding_window", 8),
        ("gemma3-odd", "query_pre_attn_scalar", 20),
        ("gemma3-odd", "sliding_window_pattern", 3),
        ("gemma3-odd", "rope_local_base_freq", 1000000.0),
        ("gpt2-odd", "activation_function", "gelu"),
        ("gpt2-odd", "layer_norm_epsilon", 1e-5),
        ("gpt2-wide", r"/wpe\.weight$", 0.0),
        ("gpt-neox-wide", "use_parallel_residual", False),
        ("gpt-neox-odd", "use_parallel_residual", True),
        ("gpt-neox-wide", "rotary_pct", 0.5),
        ("gpt-neox-wide", "hidden_act", "gelu_new"),
        ("gpt-neox-odd", "layer_norm_eps", 1e-5),
        ("olmo2-odd", "rms_norm_eps", 1e-6),
        ("olmo2-wide", r"/\.q_norm\.weight$", 1.0),
        ("olmo3-odd", "sliding_window", 7),
        ("olmo3-wide", "rope_parameters.full_attention.attention_factor", 1.0),
        ("granite-wide", "embedding_multiplier", 1.0),
        ("granite-wide", "residual_multiplier", 1.0),
        ("granite-wide", "attention_multiplier", 0.25),
        ("granite-wide", "logits_scaling", 1.0),
        ("starcoder2-wide", "sliding_window", 10),
        ("starcoder2-full", r"/mlp\.c_fc\.bias$", 0.0),
        ("starcoder2-full", "hidden_act", "gelu"),
        ("cohere-wide", "logit_scale", 1.0),
        ("cohere-odd", "layer_norm_eps", 1e-5),
        ("cohere-odd", r"/\.q_norm\.weight$", 1.0),
        ("cohere2-wide", "sliding_window", 10),
        ("cohere2-wide", "layer_types", ["sliding_attention"] * 4),
        ("cohere2-odd", "sliding_window_pattern", 3),
        ("stablelm-wide", "partial_rotary_factor", 0.5),
        ("stablelm-wide", "use_parallel_residual", True),
        ("stablelm-qk", r"/q_layernorm\.norms\.0\.", 1.0),
        ("glm-wide", "rope_parameters.partial_rotary_factor", 1.0),
        ("glm4-wide", r"/post_mlp_layernorm", 1.0),
        ("ernie4-5-wide", "rope_parameters.rope_theta", 2000.0),
        ("ernie4-5-odd", r"/\.q_proj\.bias$", 0.0),
        ("ernie4-5-odd", r"/\.o_proj\.bias$", 0.0),
        ("ernie4-5-odd", r"/\.gate_proj\.bias$", 0.0),
        ("ernie4-5-odd", r"/\.down_proj\.bias$", 0.0),
        ("falcon-wide", "activation", "gelu_new"),
        ("falcon-wide", "rope_theta", 1000.0),
        ("falcon-new", r"/ln_mlp\.weight$", 1.0),
        ("mixtral-wide", "num_experts_per_tok", 1),
        ("mixtral-window", "sliding_window", 8),
        ("qwen2-moe-wide", "norm_topk_prob", True),
        ("qwen2-moe-odd", "norm_topk_prob", False),
        ("qwen2-moe-wide", r"/shared_expert_gate", 0.0),
        ("qwen3-moe-wide", "norm_topk_prob", False),
        ("qwen3-moe-odd", "norm_topk_prob", True),
        ("qwen3-moe-odd", "num_experts_per_tok", 2),
        ("qwen3-moe-odd", "sliding_window", 8),
        ("olmoe-wide", "norm_topk_prob", True),
        ("olmoe-odd", "norm_topk_prob", False),
        ("granite-moe-wide", "residual_multiplier", 1.0),
        ("granite-moe-odd", "num_experts_per_tok", 2),
        ("granite-moe-shared", r"/shared_mlp\.output_linear", 0.0),
        ("gpt-oss-odd", "swiglu_limit", 6.0),
        ("gpt-oss-odd", "sliding_window", 7),
        ("gpt-oss-odd", "rope_scaling.truncate", True),
        ("gpt-oss-wide", "layer_types", ["full_attention", "sliding_attention"]),
        ("gpt-oss-wide", r"/\.sinks$", -1e4),
        ("gpt-oss-wide", r"/router\.bias$", 0.0),
        ("gpt-oss-wide", r"/gate_up_proj_bias$", 0.0),
        ("rope-linear", "rope_scaling.factor", 3.0),
        ("rope-dynamic", "rope_parameters.factor", 2.0),
        ("rope-dynamic-old", "rope_scaling.factor", 3.0),
        ("rope-llama3", "rope_parameters.high_freq_factor", 3.0),
        ("rope-llama3", "rope_parameters.low_freq_factor", 2.0),
        ("rope-llama3", "rope_parameters.original_max_position_embeddings", 20),
        ("rope-yarn", "rope_scaling.factor", 3.0),
        ("rope-yarn-exact", "rope_parameters.truncate", True),
        ("rope-yarn-exact", "rope_parameters.attention_factor", 1.0),
        ("rope-yarn-exact", "rope_parameters.beta_slow", 0.5),
        ("rope-yarn-mscale", "rope_scaling.mscale", 1.0),
        ("rope-yarn-mscale", "rope_scaling.mscale_all_dim", 1.0),
        ("rope-longrope-long", "rope_parameters.long_factor", [1.0] * 8),
        ("rope-longrope-short", "rope_parameters.short_factor", [1.0] * 6),
        ("rope-longrope-factor", "rope_scaling.factor", 2.0),
        ("rope-longrope-attention", "rope_parameters.attention_factor", 1.0),
    )
]


def mutated(golden: Golden, mutant: Mutant) -> Golden:
    if mutant.key.startswith("/"):
        return golden
    config = inner = copy.deepcopy(golden.config)
    *path, last = mutant.key.split(".")
    for key in path:
        inner = inner[key]
    inner[last] = mutant.value
    return replace(golden, config=config)


def mutated_weights(golden: Golden, mutant: Mutant) -> Arrays:
    weights = golden.weights()
    names = [name for name in weights if re.search(mutant.key[1:], name)]
    assert names, f"{mutant.key} matches no tensor"
    return weights | {name: np.full_like(weights[name], mutant.value) for name in names}


def write_mutant(mutant: Mutant, folder: Path) -> Path:
    golden = FAMILIES[mutant.golden]
    write_model(mutated(golden, mutant), folder)
    if mutant.key.startswith("/"):
        write_weights(mutated_weights(golden, mutant), folder / "model.safetensors")
    return folder


@pytest.mark.clause("MODEL-01")
@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.golden in READY], ids=str)
def test_every_switch_shows(mutant: Mutant, tmp_path: Path) -> None:
    golden = FAMILIES[mutant.golden]
    folder = write_mutant(mutant, tmp_path)
    if mutant.key == "use_parallel_residual" and golden.config["model_type"] == "stablelm":
        with pytest.raises(Unsupported, match="post_attention_layernorm"):  # the norm would be left over
            open_model(golden, folder, "numba", len(golden.tokens))
        return
    llm = open_model(golden, folder, "numba", len(golden.tokens))
    assert error(llm.logits(golden.tokens), golden.logits) > VISIBLE


def test_the_list_names_goldens() -> None:
    assert {mutant.golden for mutant in MUTANTS} <= set(FAMILIES)
