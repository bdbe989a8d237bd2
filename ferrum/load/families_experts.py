"""The families of transformers with experts, as data: a row for each `model_type` of config.json.

Owns: as `ferrum.load.families`, of which these rows are a part.
Specs: LOAD-90. Next: `ferrum.load.families`.
"""

from __future__ import annotations

from ferrum.load import layouts_json as layouts
from ferrum.load.family import (
    ATTENTION_BIAS,
    ATTENTION_LINEARS,
    EXPERT_LINEARS,
    GRANITE_SCALES,
    PROJECTIONS,
    ExpertKeys,
    family,
)
from ferrum.load.layer_rules import AllButEvery, LayerRules, every_other_below_max_window_layers, sparse_step
from ferrum.load.limits import NumberKey

EXPERT_FAMILIES = (
    family(
        "mixtral",
        "Mixtral",
        layout=layouts.MIXTRAL,
        defaults={
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 131072,
            "num_key_value_heads": 8,
            "rope_theta": 1000000.0,
        },
        rules=LayerRules(alike=True),
        experts=ExpertKeys(),
    ),
    family(
        "qwen2_moe",
        "Qwen2Moe",
        layout=layouts.QWEN2_MOE,
        defaults={"max_position_embeddings": 32768, "num_key_value_heads": 16},
        bias_flags={"qkv_bias": (True, PROJECTIONS)},
        rules=LayerRules(slides=every_other_below_max_window_layers, switch="use_sliding_window", sparse=sparse_step),
        experts=ExpertKeys(
            "moe_intermediate_size",
            "norm_topk_prob",
            "shared_expert_intermediate_size",
            shared_weight=True,
        ),
    ),
    family(
        "qwen3_moe",
        "Qwen3Moe",
        layout=layouts.QWEN3_MOE,
        defaults={"max_position_embeddings": 32768, "num_key_value_heads": 4},
        bias_flags=ATTENTION_BIAS,
        rules=LayerRules(alike=True, switch="use_sliding_window", sparse=sparse_step),
        experts=ExpertKeys("moe_intermediate_size", "norm_topk_prob"),
        neutral={"shared_expert_intermediate_size": (0,), "use_qk_norm": (True,)},
    ),
    family(
        "olmoe",
        "Olmoe",
        layout=layouts.OLMOE,
        defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 4096},
        bias_flags=ATTENTION_BIAS,
        experts=ExpertKeys(normalised="norm_topk_prob"),
    ),
    *(
        family(
            name,
            model,
            layout=layouts.GRANITE_MOE,
            bias_flags=ATTENTION_BIAS,
            numbers=GRANITE_SCALES,
            experts=ExpertKeys(shared_size=shared),
        )
        for name, model, shared in (
            ("granitemoe", "GraniteMoe", None),
            ("granitemoeshared", "GraniteMoeShared", "shared_intermediate_size"),
        )
    ),
    family(
        "gpt_oss",
        "GptOss",
        layout=layouts.GPT_OSS,
        defaults={
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 131072,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "rope_theta": 150000.0,
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 32.0,
                "original_max_position_embeddings": 4096,
                "truncate": False,
            },
        },
        constants={"hidden_activation": "quick_gelu", "up_offset": 1.0},
        numbers={"swiglu_limit": NumberKey("swiglu_limit", 7.0)},
        biases=EXPERT_LINEARS,
        bias_flags={"attention_bias": (True, ATTENTION_LINEARS)},
        rules=LayerRules(window=128, slides=AllButEvery(2)),
        experts=ExpertKeys(),
        neutral={"swiglu_alpha": (1.702,)},
        harmless=frozenset({"experts_per_token", "initial_context_length"}),
    ),
)
