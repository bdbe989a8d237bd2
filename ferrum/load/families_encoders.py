"""The families of encoders, as data: a row for each `model_type` of config.json, and one for each architecture of GGUF.

Owns: the same as `ferrum.load.families` and `ferrum.load.families_gguf`, for encoders: models that turn a whole text
into a vector, and whose tokens attend to all tokens of it. Refuses to know: pooling (`ferrum.load.pooling`).
Specs: LOAD-140. Source: transformers' modeling files; llama.cpp's converter. Papers: BERT 1810.04805, RoBERTa
1907.11692. Next: `ferrum.load.pooling`.
"""

from __future__ import annotations

from dataclasses import replace

from ferrum.load import layouts_json as layouts
from ferrum.load.families_gguf import GGUFFamily
from ferrum.load.family import ALL_LINEARS, HuggingFaceFamily
from ferrum.load.layout import Layout

_ENCODER = {"layer_norm": True, "gated": False, "encoder": True}

_BERT = HuggingFaceFamily(
    "bert",
    "BertModel",
    "BertForMaskedLM",
    layout=layouts.BERT,
    words={"rms_norm_eps": "layer_norm_eps"},
    defaults={"rms_norm_eps": 1e-12, "hidden_act": "gelu", "max_position_embeddings": 512},
    constants={**_ENCODER, "rope": None},
    biases=ALL_LINEARS,
    neutral={"is_decoder": (False,), "position_embedding_type": ("absolute",)},
    harmless=frozenset(
        [
            "directionality",
            "pooler_fc_size",
            "pooler_num_attention_heads",
            "pooler_num_fc_layers",
            "pooler_size_per_head",
            "pooler_type",
            "type_vocab_size",
        ]
    ),
)
_ROBERTA = replace(
    _BERT,
    layout=layouts.ROBERTA,
    neutral={**_BERT.neutral, "pad_token_id": (1,)},  # the first position is the one after it
)
ENCODER_FAMILIES: dict[str, HuggingFaceFamily] = {
    "bert": _BERT,
    "roberta": replace(_ROBERTA, name="roberta", causal_class="RobertaModel", base_class="RobertaForMaskedLM"),
    "xlm-roberta": replace(
        _ROBERTA, name="xlm-roberta", causal_class="XLMRobertaModel", base_class="XLMRobertaForMaskedLM"
    ),
}

_PARTS = {
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "attention_closing": "attn_output_norm",
    "up": "ffn_up",
    "down": "ffn_down",
    "mlp_closing": "layer_output_norm",
}
GGUF_ENCODERS: dict[str, GGUFFamily] = {
    "bert": GGUFFamily(
        Layout(
            "token_embd",
            "",
            "",
            {part: f"blk.{{layer}}.{name}" for part, name in _PARTS.items()},
            positions="position_embd",
            token_types="token_types",
            embedding_norm="token_embd_norm",
        ),
        always={**_ENCODER, "hidden_activation": "gelu"},
        neutral={"attention.causal": (False,)},
    ),
}
