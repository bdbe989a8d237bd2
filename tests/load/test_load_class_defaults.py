"""LOAD-23: what config.json leaves out is what the class of transformers assumes."""

from __future__ import annotations

from typing import Any

import pytest

from ferrum.fields import Fields
from ferrum.load.config_json import describe
from ferrum.load.families import HUGGING_FACE_FAMILIES
from ferrum.load.layout import Description
from ferrum.load.token_ids import NO_IDS
from tests.load.class_defaults import SIZES, UNSAID, class_defaults

ASSUMED = class_defaults()


def described(name: str, keys: dict[str, Any]) -> Description:
    keys = {"model_type": name, "architectures": [HUGGING_FACE_FAMILIES[name].causal_class], **keys}
    return describe(Fields(keys, "config.json", null_is_absent=False), NO_IDS)


@pytest.mark.clause("LOAD-23", "LOAD-90")
@pytest.mark.parametrize("name", sorted(HUGGING_FACE_FAMILIES))
def test_a_file_that_says_nothing_is_one_that_says_what_its_class_assumes(name: str) -> None:
    family, assumed = HUGGING_FACE_FAMILIES[name], ASSUMED[name]
    words = {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"}
    sizes = {family.word(word): SIZES[word] for word in words}
    experts = {key: assumed[key] for key in UNSAID if family.experts is not None and key in assumed}
    least, all_of_it = described(name, {**sizes, **experts}), described(name, {**assumed, **sizes})
    assert least.config == all_of_it.config
    assert least.biases == all_of_it.biases
    assert least.layout == all_of_it.layout


@pytest.mark.clause("LOAD-23")
def test_null_says_that_there_is_no_cap_where_the_class_assumes_one() -> None:
    sizes = {key: ASSUMED["gemma2"][key] for key in SIZES}
    assert described("gemma2", sizes).config.attention_softcap == 50
    capped = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    config = described("gemma2", {**sizes, **capped}).config
    assert (config.attention_softcap, config.logit_softcap) == (None, None)
