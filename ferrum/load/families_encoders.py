"""The families of encoders of transformers, as data: a row for each `model_type` of config.json.

Owns: as `ferrum.load.families`, for models that write no texts: their tokens see all of a text, which becomes a vector.
Refuses to know: pooling (`ferrum.load.pooling`).
Specs: LOAD-95. Source: transformers' configuration and modeling files. Paper: BERT 1810.04805.
Next: `ferrum.load.pooling`.
"""

from __future__ import annotations

from ferrum.load import layouts_json as layouts
from ferrum.load.family import ALL_LINEARS, HuggingFaceFamily

ENCODER_FAMILIES: dict[str, HuggingFaceFamily] = {
    "bert": HuggingFaceFamily(
        "bert",
        "BertModel",
        "BertForMaskedLM",
        layout=layouts.BERT,
        words={"rms_norm_eps": "layer_norm_eps"},
        defaults={"rms_norm_eps": 1e-12, "hidden_act": "gelu", "max_position_embeddings": 512},
        constants={"layer_norm": True, "gated": False, "rope": None, "encoder": True},
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
    ),
}
