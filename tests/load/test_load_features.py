"""The features of a model that `inspect` lists."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from ferrum.fields import Fields
from ferrum.load.config_json import describe
from ferrum.load.features import features
from ferrum.load.token_ids import NO_IDS
from tests.model.families import FAMILIES

TOLD = {
    "gemma2-wide": [
        "embeddings times 8",
        "root mean square norm",
        "grouped queries, 2 heads to a key",
        "norms before and after each branch",
        "window of 9 tokens in 2 of 3 layers",
        "scores capped at 3",
        "scores times 0.176777",
        "rotary embedding, base 10000",
        "gated MLP, gelu tanh",
        "head tied to the embedding",
        "logits capped at 1",
    ],
    "gpt2-wide": [
        "learned positions, added to embeddings",
        "layer norm",
        "no rotary embedding",
        "MLP without a gate, gelu tanh",
        "head tied to the embedding",
    ],
    "smollm3-wide": [
        "root mean square norm",
        "grouped queries, 2 heads to a key",
        "rotary embedding, base 2e+06 in 3 of 4 layers",
        "no rotary embedding in 1 of 4 layers",
        "gated MLP, silu",
        "head tied to the embedding",
    ],
    "gpt-oss-wide": [
        "root mean square norm",
        "grouped queries, 2 heads to a key",
        "window of 9 tokens in 1 of 2 layers",
        "attention sinks",
        "rotary embedding, base 10764.7, yarn scaling",
        "2 of 4 experts for a token, weights that sum to 1, quick gelu, cut off at 7, up plus 1",
    ],
    "qwen2-moe-odd": [
        "root mean square norm",
        "grouped queries, 4 heads to a key",
        "rotary embedding, base 10000",
        "gated MLP, silu in 3 of 4 layers",
        "2 of 3 experts for a token and a weighted shared one, weights that sum to 1, silu in 1 of 4 layers",
        "head tied to the embedding",
    ],
    "granite-odd": [
        "embeddings times 3",
        "root mean square norm",
        "what layers add times 0.7",
        "grouped queries, 4 heads to a key",
        "scores times 0.2",
        "rotary embedding, base 10000",
        "gated MLP, silu",
        "logits times 2",
    ],
    "ministral3-wide": [
        "root mean square norm",
        "grouped queries, 2 heads to a key",
        "rotary embedding, base 1000, yarn scaling, queries growing with their position",
        "gated MLP, silu",
    ],
    "cohere-odd": [
        "layer norm",
        "attention and MLP side by side",
        "grouped queries, 2 heads to a key",
        "norms of queries and keys",
        "rotary embedding, base 500000",
        "gated MLP, silu",
        "head tied to the embedding",
        "logits times 1.2",
    ],
    "olmo2-odd": [
        "root mean square norm",
        "grouped queries, 4 heads to a key",
        "norms after each branch",
        "norms of queries and keys",
        "rotary embedding, base 10000",
        "gated MLP, silu",
    ],
    "phi-wide": [
        "layer norm",
        "attention and MLP side by side",
        "rotary embedding of 8 of 16 dimensions, base 10000",
        "MLP without a gate, gelu tanh",
    ],
}


@pytest.mark.clause("CLI-36")
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_model_is_told_by_its_features(name: str) -> None:
    found = features(describe(Fields(FAMILIES[name].config, name, null_is_absent=False), NO_IDS))
    if name in TOLD:
        assert [feature.does for feature in found] == TOLD[name]
    assert len({feature.does for feature in found}) == len(found)
    assert all(find_spec(feature.module) is not None for feature in found)
