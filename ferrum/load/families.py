"""The families of transformers as data: a row for each `model_type` of config.json.

Owns: what each family computes differently from Llama, and the keys that say so. A new family is a new row
(docs/adding-a-model.md). Refuses to know: the form of a row (`ferrum.load.family`), how rows are read
(`ferrum.load.config_json`), names of tensors (`ferrum.load.layouts_json`).
Specs: LOAD-22 to LOAD-24, LOAD-90. Source: transformers' configuration and modeling files.
Next: `ferrum.load.families_encoders`.
"""

from __future__ import annotations

from dataclasses import replace

from ferrum.load import layouts_json as layouts
from ferrum.load.families_experts import EXPERT_FAMILIES
from ferrum.load.family import (
    ALL_LINEARS,
    ATTENTION_BIAS,
    ATTENTION_LINEARS,
    GRANITE_SCALES,
    MLP_LINEARS,
    PROJECTIONS,
    HuggingFaceFamily,
    family,
)
from ferrum.load.layer_rules import AllButEvery, LayerRules, from_max_window_layers
from ferrum.load.limits import NumberKey

_BIASES = {**ATTENTION_BIAS, "mlp_bias": (False, MLP_LINEARS)}
_LAYER_NORM = {"layer_norm": True}
_PLAIN_MLP = {"layer_norm": True, "gated": False}
_NORM_WORD = {"rms_norm_eps": "layer_norm_eps"}
_GEMMA = {"embedding_scale": NumberKey("hidden_size", power=0.5)}
_GEMMA2 = {
    **_GEMMA,
    "attention_scale": NumberKey("query_pre_attn_scalar", 256, -0.5),
    "attention_softcap": NumberKey("attn_logit_softcapping", 50.0),
    "logit_softcap": NumberKey("final_logit_softcapping", 30.0),
}
_GEMMA3 = {
    **_GEMMA2,
    "attention_softcap": NumberKey("attn_logit_softcapping"),
    "logit_softcap": NumberKey("final_logit_softcapping"),
}
_GEMMA_TIED = {"tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh", "head_dim": 256}
_ONE_WAY = {"use_bidirectional_attention": (False,)}

_FALCON_NEUTRAL = {
    "alibi": (False,),
    "apply_residual_connection_post_layernorm": (False,),
    "ff_factor": (4,),
    "parallel_attn": (True,),
}
_COHERE_NEUTRAL = {
    "order_of_interleaved_layers": ("local_attn_first",),
    "position_embedding_type": ("rope_gptj",),
    "rotary_pct": (1.0,),
    "use_gated_activation": (True,),
    "use_parallel_block": (True,),
}
_COHERE_HARMLESS = frozenset({"layer_switch", "use_embedding_sharing", "use_parallel_embedding"})

_FALCON = family(
    "falcon",
    "Falcon",
    layout=layouts.FALCON,
    words={
        "intermediate_size": "ffn_hidden_size",
        "rms_norm_eps": "layer_norm_epsilon",
        "hidden_act": "activation",
        "num_key_value_heads": "num_kv_heads",
    },
    defaults={"rms_norm_eps": 1e-5, "hidden_act": "gelu", "tie_word_embeddings": True},
    intermediate_factor=4,
    constants={**_PLAIN_MLP, "parallel": True},
    bias_flags={"bias": (False, ALL_LINEARS)},
    neutral={**_FALCON_NEUTRAL, "multi_query": (True,)},
    harmless=frozenset({"num_ln_in_parallel_attn"}),
)
_FALCON_NEW = replace(_FALCON, layout=layouts.FALCON_TWO_NORMS, harmless=frozenset({"multi_query"}))
_FALCON_NEW = replace(
    _FALCON_NEW,
    neutral={**_FALCON_NEUTRAL, "num_ln_in_parallel_attn": (2,)},
    variants=(("num_ln_in_parallel_attn", 1, replace(_FALCON_NEW, layout=layouts.FALCON)),),
)
_STABLELM = family(
    "stablelm",
    "StableLm",
    layout=layouts.STABLELM,
    words=_NORM_WORD,
    defaults={
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
        "partial_rotary_factor": 0.25,
        "num_key_value_heads": 32,
    },
    constants=_LAYER_NORM,
    bias_flags={"use_qkv_bias": (False, PROJECTIONS)},
    part_flags={"qk_layernorm": ("query_norm", "key_norm")},
)
_GPT_NEOX = HuggingFaceFamily(
    "gpt_neox",
    "GPTNeoXForCausalLM",
    "GPTNeoXModel",
    layout=layouts.GPT_NEOX,
    words={
        **_NORM_WORD,
        "num_key_value_heads": "num_attention_heads",
        "rope_theta": "rotary_emb_base",
        "partial_rotary_factor": "rotary_pct",
    },
    defaults={"rms_norm_eps": 1e-5, "hidden_act": "gelu", "partial_rotary_factor": 0.25},
    constants={**_PLAIN_MLP, "parallel": True},
    biases=("up", "down"),
    bias_flags={"attention_bias": (True, ATTENTION_LINEARS)},
    harmless=frozenset({"num_key_value_heads"}),
)
_MISTRAL = family(
    "mistral",
    "Mistral",
    defaults={"max_position_embeddings": 131072, "num_key_value_heads": 8},
    rules=LayerRules(alike=True, window=4096),
)
_QWEN2 = family(
    "qwen2", "Qwen2", biases=PROJECTIONS, rules=LayerRules(slides=from_max_window_layers, switch="use_sliding_window"),
    defaults={"max_position_embeddings": 32768, "num_key_value_heads": 32},
)  # fmt: skip
_QWEN3 = family(
    "qwen3", "Qwen3", layout=layouts.QWEN3, bias_flags=ATTENTION_BIAS, rules=_QWEN2.rules,
    defaults={"max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128},
)  # fmt: skip

_ROWS = (
    family("llama", "Llama", bias_flags=_BIASES),
    _MISTRAL,
    family("ministral", "Ministral", defaults=_MISTRAL.defaults, rules=LayerRules(window=4096)),
    family(
        "ministral3",
        "Ministral3",
        defaults={
            "max_position_embeddings": 262144,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-5,
            "head_dim": 128,
            "rope_parameters": {
                "type": "yarn",
                "rope_theta": 1000000.0,
                "factor": 16.0,
                "original_max_position_embeddings": 16384,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.1,
            },
        },
        rules=LayerRules(alike=True),
    ),
    family(
        "smollm3",
        "SmolLM3",
        defaults={
            "max_position_embeddings": 32768,
            "num_key_value_heads": 4,
            "tie_word_embeddings": True,
            "rope_theta": 2000000.0,
        },
        bias_flags=_BIASES,
        rules=LayerRules(slides=None, switch="use_sliding_window", rotates="no_rope_layers"),
    ),
    _QWEN2,
    _QWEN3,
    family(
        "phi3",
        "Phi3",
        layout=layouts.PHI3,
        defaults={"max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "partial_rotary_factor": 1.0},
        rules=LayerRules(alike=True),
        neutral={"full_attn_mod": (1,), "interpolate_factor": (1,), "lm_head_bias": (False,)},
    ),
    family(
        "phi",
        "Phi",
        layout=layouts.PHI,
        words=_NORM_WORD,
        defaults={"rms_norm_eps": 1e-5, "hidden_act": "gelu_new", "partial_rotary_factor": 0.5},
        constants={**_PLAIN_MLP, "parallel": True},
        biases=(*ALL_LINEARS, "head"),
        neutral={"qk_layernorm": (False,)},
        harmless=frozenset({"rotary_dim"}),  # partial_rotary_factor is read instead
    ),
    family(
        "gemma",
        "Gemma",
        layout=layouts.GEMMA,
        defaults={**_GEMMA_TIED, "max_position_embeddings": 8192, "num_key_value_heads": 16},
        numbers=_GEMMA,
        activations={"gelu": "gelu_tanh"},
        bias_flags=ATTENTION_BIAS,
        neutral=_ONE_WAY,
        harmless=frozenset({"hidden_activation"}),
    ),
    family(
        "gemma2",
        "Gemma2",
        layout=layouts.GEMMA2,
        words={"hidden_act": "hidden_activation"},
        defaults={**_GEMMA_TIED, "max_position_embeddings": 8192, "num_key_value_heads": 4},
        numbers=_GEMMA2,
        bias_flags=ATTENTION_BIAS,
        rules=LayerRules(window=4096, slides=AllButEvery(2)),
        neutral=_ONE_WAY,
        harmless=frozenset({"hidden_act", "sliding_window_size"}),
    ),
    family(
        "gemma3_text",
        "Gemma3",
        layout=layouts.GEMMA3,
        words={"hidden_act": "hidden_activation"},
        defaults={  # sizes too: the file of a vision model gives only what differs from these
            **_GEMMA_TIED,
            "max_position_embeddings": 131072,
            "rope_theta": 1000000.0,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "num_hidden_layers": 26,
            "vocab_size": 262208,
            "hidden_size": 2304,
            "intermediate_size": 9216,
        },
        numbers=_GEMMA3,
        bias_flags=ATTENTION_BIAS,
        rules=LayerRules(
            window=4096,
            slides=AllButEvery(6, "sliding_window_pattern"),
            local_theta=("rope_local_base_freq", 10000.0),
        ),
        neutral=_ONE_WAY,
    ),
    HuggingFaceFamily(
        "gpt2",
        "GPT2LMHeadModel",
        "GPT2Model",
        layout=layouts.GPT2,
        words={
            "hidden_size": "n_embd",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "intermediate_size": "n_inner",
            "max_position_embeddings": "n_positions",
            "rms_norm_eps": "layer_norm_epsilon",
            "hidden_act": "activation_function",
        },
        defaults={
            "rms_norm_eps": 1e-5,
            "hidden_act": "gelu_new",
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
        },
        intermediate_factor=4,
        constants={**_PLAIN_MLP, "rope": None},
        biases=ALL_LINEARS,
        neutral={"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,)},
        harmless=frozenset({"n_ctx", "reorder_and_upcast_attn", "summary_first_dropout"}),
    ),
    replace(
        _GPT_NEOX,
        variants=(("use_parallel_residual", False, replace(_GPT_NEOX, constants=_PLAIN_MLP)),),
    ),
    family(
        "olmo2",
        "Olmo2",
        layout=layouts.OLMO2,
        bias_flags=ATTENTION_BIAS,
        defaults={"rms_norm_eps": 1e-5},
    ),
    family(
        "olmo3",
        "Olmo3",
        layout=layouts.OLMO2,
        bias_flags=ATTENTION_BIAS,
        defaults={"rms_norm_eps": 1e-5, "rope_theta": 500000.0},
        rules=LayerRules(window=4096, slides=AllButEvery(4), local_theta=("rope_theta", 500000.0)),
    ),
    family("granite", "Granite", bias_flags=_BIASES, numbers=GRANITE_SCALES),
    family(
        "starcoder2",
        "Starcoder2",
        layout=layouts.STARCODER2,
        words={"rms_norm_eps": "norm_epsilon"},
        defaults={
            "rms_norm_eps": 1e-5,
            "hidden_act": "gelu_pytorch_tanh",
            "max_position_embeddings": 4096,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        constants=_PLAIN_MLP,
        bias_flags={"use_bias": (True, ALL_LINEARS)},
        rules=LayerRules(alike=True),
        neutral={"mlp_type": ("default",), "norm_type": ("layer_norm",), "scale_attn_weights": (True,)},
        harmless=frozenset({"activation_function", "layer_norm_epsilon"}),  # read: hidden_act, norm_epsilon
    ),
    family(
        "cohere",
        "Cohere",
        layout=layouts.COHERE,
        words=_NORM_WORD,
        defaults={
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
            "rope_theta": 500000.0,
        },
        constants={**_LAYER_NORM, "parallel": True},
        numbers={"logit_scale": NumberKey("logit_scale", 0.0625)},
        bias_flags=ATTENTION_BIAS,
        part_flags={"use_qk_norm": ("query_norm", "key_norm")},
        neutral=_COHERE_NEUTRAL,
        harmless=_COHERE_HARMLESS,
    ),
    family(
        "cohere2",
        "Cohere2",
        layout=layouts.COHERE.without(("query_norm", "key_norm")),
        words=_NORM_WORD,
        defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 8192, "tie_word_embeddings": True},
        constants={**_LAYER_NORM, "parallel": True},
        numbers={"logit_scale": NumberKey("logit_scale", 0.0625)},
        bias_flags=ATTENTION_BIAS,
        rules=LayerRules(window=4096, slides=AllButEvery(4, "sliding_window_pattern"), rotates="sliding"),
        neutral=_COHERE_NEUTRAL,
        harmless=_COHERE_HARMLESS,
    ),
    replace(
        _STABLELM,
        variants=(
            (
                "use_parallel_residual",
                True,
                replace(_STABLELM, layout=layouts.STABLELM_PARALLEL, constants={**_LAYER_NORM, "parallel": True}),
            ),
        ),
    ),
    *(
        family(
            name,
            name.capitalize(),
            layout=layout,
            defaults={
                "rms_norm_eps": 1.5625e-07,
                "max_position_embeddings": 131072,
                "num_key_value_heads": 2,
                "head_dim": 128,
                "partial_rotary_factor": 0.5,
            },
            bias_flags={"attention_bias": (True, PROJECTIONS)},
        )
        for name, layout in (("glm", layouts.GLM), ("glm4", layouts.GLM4))
    ),
    replace(
        _FALCON,
        variants=(("new_decoder_architecture", True, _FALCON_NEW),),
        constants={**_FALCON.constants, "kv_heads": 1},
    ),
    family(
        "seed_oss",
        "SeedOss",
        defaults={"max_position_embeddings": 524288, "num_key_value_heads": 8, "head_dim": 128},
        bias_flags={
            "attention_bias": (True, PROJECTIONS),
            "attention_out_bias": (False, ("output",)),
            "mlp_bias": (False, MLP_LINEARS),
        },
    ),
    family(
        "ernie4_5",
        "Ernie4_5",
        layout=layouts.ERNIE4_5,
        defaults={
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 131072,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "tie_word_embeddings": True,
            "rope_theta": 500000.0,
        },
        bias_flags={"use_bias": (False, (*ATTENTION_LINEARS, *MLP_LINEARS))},
    ),
)

HUGGING_FACE_FAMILIES: dict[str, HuggingFaceFamily] = {row.name: row for row in (*_ROWS, *EXPERT_FAMILIES)}
