"""GGUF metadata gives the same configuration as config.json of the same model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum.config import ModelConfig, RopeConfig, RopeScaling
from ferrum.errors import InvalidFormat, ModelError, Unsupported
from ferrum.load.config_gguf import describe, token_ids
from ferrum.load.gguf import GGUFFile
from ferrum.load.token_ids import NO_IDS
from tests.load.gguf_writer import Stored, Value, gguf_bytes
from tests.load.tiny_models import ABSENT, HEAD_DIM, METADATA, PLAIN, changed


def from_gguf(folder: Path, factors: np.ndarray | None = None, head: bool = True, **keys: Any) -> ModelConfig:
    """Keys are given without "llama." and with __ for a dot; a key that has a dot already is taken as it is."""
    renamed = {key if "." in key else "llama." + key.replace("__", "."): value for key, value in keys.items()}
    stored = {"token_embd.weight": Stored.float32(np.ones((40, 64)))}
    if head:
        stored["output.weight"] = Stored.float32(np.ones((40, 64)))
    if factors is not None:
        stored["rope_freqs.weight"] = Stored.float32(factors)
    path = folder / "model.gguf"
    path.write_bytes(gguf_bytes(changed(METADATA, **renamed), stored))
    file = GGUFFile(path)
    return describe(file, token_ids(file)).config


def close(found: ModelConfig) -> ModelConfig:
    """GGUF keeps epsilon as float32."""
    return replace(found, norm_epsilon=round(found.norm_epsilon, 12))


@pytest.mark.clause("LOAD-27")
def test_the_metadata_of_the_model_that_config_json_describes(tmp_path: Path) -> None:
    assert close(from_gguf(tmp_path)) == PLAIN


@pytest.mark.clause("LOAD-26")
def test_the_stop_set_of_gguf_is_the_ends_of_text_turn_and_message(tmp_path: Path) -> None:
    assert from_gguf(tmp_path, **{"tokenizer.ggml.eot_token_id": 9}).eos_token_ids == (2, 9)
    ends = {"tokenizer.ggml.eot_token_id": 9, "tokenizer.ggml.eom_token_id": 8}
    assert from_gguf(tmp_path, **ends).eos_token_ids == (2, 9, 8)
    assert from_gguf(tmp_path, **{"tokenizer.ggml.eos_token_id": ABSENT}).eos_token_ids == ()


@pytest.mark.clause("LOAD-25")
@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"attention__head_count_kv": 3}, r"llama\.attention\.head_count_kv 3 does not divide"),
        (
            {"attention__head_count": 5, "attention__key_length": ABSENT},
            r"llama\.embedding_length 64 is not a multiple",
        ),
        ({"attention__key_length": 15}, "must be even"),
    ],
)
def test_sizes_that_contradict_each_other_in_gguf_are_errors(tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidFormat, match=says):
        from_gguf(tmp_path, **keys)


@pytest.mark.clause("LOAD-27")
def test_the_defaults_of_gguf(tmp_path: Path) -> None:
    absent = ["attention__head_count_kv", "attention__key_length", "attention__value_length", "rope__freq_base",
              "rope__dimension_count"]  # fmt: skip
    found = from_gguf(tmp_path, **dict.fromkeys(absent, ABSENT))
    assert (found.kv_heads, found.head_dim, found.rope) == (4, 16, RopeConfig(10000.0, 16))


@pytest.mark.clause("LOAD-27")
def test_facts_that_gguf_states_by_tensors(tmp_path: Path) -> None:
    assert not from_gguf(tmp_path).tie_embeddings
    assert from_gguf(tmp_path, head=False).tie_embeddings
    assert from_gguf(tmp_path, vocab_size=7).vocab_size == 40  # rows of the table count, not the key


@pytest.mark.clause("LOAD-27")
def test_values_per_layer_must_be_equal(tmp_path: Path) -> None:
    same = Value("array", [2, 2], "int32")
    assert from_gguf(tmp_path, attention__head_count_kv=same).kv_heads == 2
    with pytest.raises(InvalidFormat, match="head_count_kv must be a whole number"):
        from_gguf(tmp_path, attention__head_count_kv=Value("array", [2, 4], "int32"))
    assert from_gguf(tmp_path, expert_count=Value("array", [0, 0], "int32")) == from_gguf(tmp_path)


@pytest.mark.clause("LOAD-24", "LOAD-27")
@pytest.mark.parametrize(("value", "window"), [(ABSENT, None), (0, None), (7, 7)])
def test_the_sliding_window_of_gguf(tmp_path: Path, value: Any, window: int | None) -> None:
    assert from_gguf(tmp_path, attention__sliding_window=value).sliding_window == window


@pytest.mark.clause("LOAD-27")
def test_rope_scaling_of_gguf(tmp_path: Path) -> None:
    linear = RopeConfig(50000.0, 16, RopeScaling.LINEAR, 4.0)
    assert from_gguf(tmp_path, rope__scaling__type="linear", rope__scaling__factor=4.0).rope == linear
    assert from_gguf(tmp_path, rope__scale_linear=4.0).rope == linear
    plain = RopeConfig(50000.0, 16)
    assert from_gguf(tmp_path, rope__scaling__type="none", rope__scaling__factor=4.0).rope == plain
    assert from_gguf(tmp_path, rope__scaling__factor=4.0).rope == linear  # linear where no type is named
    assert from_gguf(tmp_path, rope__scaling__factor=4.0, rope__scale_linear=2.0).rope == linear
    for no_stretch in ({}, {"rope__scaling__factor": 0.0}, {"rope__scaling__factor": 1.0}, {"rope__scale_linear": 0.0}):
        assert from_gguf(tmp_path, rope__scaling__type="linear", **no_stretch).rope == plain
    none = from_gguf(tmp_path, rope__scaling__type="yarn", rope__scaling__original_context_length=0).rope
    assert (none.factor, none.original_max_positions) == (1.0, 512)
    yarn = from_gguf(tmp_path, rope__scaling__type="yarn", rope__scaling__factor=4.0,
                     rope__scaling__original_context_length=128, rope__scaling__yarn_beta_fast=30.0)  # fmt: skip
    assert yarn.rope == RopeConfig(50000.0, 16, RopeScaling.YARN, 4.0, 128, beta_fast=30.0)


@pytest.mark.clause("LOAD-28")
def test_rope_freqs_become_one_divisor_per_frequency(tmp_path: Path) -> None:
    factors = np.linspace(1, 8, HEAD_DIM // 2).astype(np.float32)
    expected = RopeConfig(50000.0, 16, RopeScaling.FACTORS, factors=tuple(factors.tolist()))
    assert from_gguf(tmp_path, factors).rope == expected
    with pytest.raises(ModelError, match=r"rope_freqs\.weight has shape \[3\], expected \[8\]"):
        from_gguf(tmp_path, factors[:3])
    with pytest.raises(InvalidFormat, match=r"rope_freqs\.weight must hold a number from 0\.001"):
        from_gguf(tmp_path, 0 * factors)
    linear = from_gguf(tmp_path, factors, rope__scaling__type="linear", rope__scaling__factor=4.0).rope
    assert linear == replace(expected, factors=tuple((4 * factors).tolist()))
    assert from_gguf(tmp_path, factors, rope__scaling__type="none", rope__scaling__factor=4.0).rope == expected
    with pytest.raises(Unsupported, match="together with yarn scaling"):
        from_gguf(tmp_path, factors, rope__scaling__type="yarn", rope__scaling__factor=4.0)


@pytest.mark.clause("LOAD-22")
@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"general.architecture": "mamba"}, "general.architecture 'mamba' is not supported; supported: llama"),
        ({"expert_used_count": 2}, r"llama\.expert_used_count 2 is not supported; supported: 0, as there is no"),
        ({"expert_shared_feed_forward_length": 8}, r"llama\.expert_shared_feed_forward_length 8 is not supported"),
        (
            {"expert_count": 8, "expert_used_count": 2, "expert_gating_func": 2},
            r"expert_gating_func 2 is not supported",
        ),
        ({"attention__scale": 0.5}, r"llama\.attention\.scale 0\.5"),
        ({"rope__scaling__type": "proportional"}, r"llama\.rope\.scaling\.type 'proportional' is not supported"),
        ({"rope__scaling__attn_factor": 2.0}, r"rope\.scaling\.attn_factor 2\.0 is not supported; supported: 1"),
        (
            {"rope__scaling__type": "yarn", "rope__scaling__factor": 2.0, "rope__scaling__yarn_attn_factor": 2.0},
            r"yarn_attn_factor 2\.0 is not supported; supported: 1\.06931",
        ),
        ({"rope__dimension_count": 8}, r"llama\.rope\.dimension_count 8 is not supported"),
        ({"attention__value_length": 32}, "value heads"),
    ],
)
def test_what_changes_the_mathematics_in_gguf_is_refused_by_name(
    tmp_path: Path, keys: dict[str, Any], says: str
) -> None:
    with pytest.raises(Unsupported, match=says):
        from_gguf(tmp_path, **keys)


@pytest.mark.clause("LOAD-21")
@pytest.mark.parametrize(
    "key", ["context_length", "embedding_length", "block_count", "feed_forward_length", "attention__head_count",
            "attention__layer_norm_rms_epsilon"],
)  # fmt: skip
def test_a_missing_key_of_gguf_is_an_error_that_names_file_and_key(tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidFormat, match=rf"model\.gguf: llama\.{key.replace('__', '.')} is missing"):
        from_gguf(tmp_path, **{key: ABSENT})
    with pytest.raises(InvalidFormat, match=rf"llama\.{key.replace('__', '.')} must be"):
        from_gguf(tmp_path, **{key: "many"})


@pytest.mark.clause("LOAD-21")
def test_gguf_without_an_architecture_or_embedding_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidFormat, match=r"general\.architecture is missing"):
        from_gguf(tmp_path, **{"general.architecture": ABSENT})
    (tmp_path / "empty.gguf").write_bytes(gguf_bytes(METADATA))
    with pytest.raises(ModelError, match=r"tensor token_embd\.weight is missing"):
        describe(GGUFFile(tmp_path / "empty.gguf"), NO_IDS)
