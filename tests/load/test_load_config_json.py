"""config.json: both forms give the same configuration, and no key that matters is ignored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.config import ModelConfig, RopeConfig, RopeScaling
from ferrum.errors import FerrumError, InvalidFormat, NotFound, Unsupported
from tests.load.config_reading import read_config_json
from tests.load.tiny_models import ABSENT, CONFIG, PLAIN, changed


def from_json(folder: Path, **keys: Any) -> ModelConfig:
    (folder / "config.json").write_text(json.dumps(changed(CONFIG, **keys)))
    return read_config_json(folder).config


def mistral(folder: Path, **keys: Any) -> ModelConfig:
    return from_json(folder, **{"model_type": "mistral", "architectures": ["MistralForCausalLM"], **keys})


ROPES: dict[str, tuple[dict[str, Any], RopeConfig]] = {
    "default": ({"rope_type": "default"}, RopeConfig(50000.0, 16)),
    "linear": ({"rope_type": "linear", "factor": 4.0}, RopeConfig(50000.0, 16, RopeScaling.LINEAR, 4.0)),
    "llama3": (
        {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1.5, "high_freq_factor": 4.5,
         "original_max_position_embeddings": 128},
        RopeConfig(50000.0, 16, RopeScaling.LLAMA3, 8.0, 128, 1.5, 4.5),
    ),
    "yarn": (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "beta_fast": 30, "beta_slow": 2,
         "truncate": False},
        RopeConfig(50000.0, 16, RopeScaling.YARN, 4.0, 128, beta_fast=30.0, beta_slow=2.0, truncate=False),
    ),
    "yarn, the paper's defaults": (
        {"rope_type": "yarn", "factor": 4.0},
        RopeConfig(50000.0, 16, RopeScaling.YARN, 4.0, 512),
    ),
    "yarn, factor from the lengths": (
        {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 128},
        RopeConfig(50000.0, 16, RopeScaling.YARN, 4.0, 128),
    ),
    "yarn, attention factor": (
        {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.25},
        RopeConfig(50000.0, 16, RopeScaling.YARN, 4.0, 512, attention_factor=1.25),
    ),
    "yarn, mscale": (
        {"rope_type": "yarn", "factor": np.e, "mscale": 2.0, "mscale_all_dim": 1.0},
        RopeConfig(50000.0, 16, RopeScaling.YARN, np.e, 512, attention_factor=1.2 / 1.1),
    ),
}  # fmt: skip


@pytest.mark.clause("LOAD-20", "LOAD-27")
def test_every_key_has_its_place(tmp_path: Path) -> None:
    assert from_json(tmp_path) == PLAIN


@pytest.mark.clause("LOAD-20")
@pytest.mark.parametrize("case", ROPES)
def test_the_dialects_of_rope_agree(tmp_path: Path, case: str) -> None:
    parameters, expected = ROPES[case]
    new = from_json(tmp_path, rope_theta=ABSENT, rope_parameters={**parameters, "rope_theta": 50000.0}, dtype="float32")
    old = from_json(tmp_path, rope_scaling=parameters, torch_dtype="float32")
    oldest = {("type" if key == "rope_type" else key): value for key, value in parameters.items()}
    for found in (new.rope, old.rope, from_json(tmp_path, rope_scaling=oldest).rope):
        assert found == expected


@pytest.mark.clause("LOAD-20")
def test_of_two_bases_the_one_in_rope_parameters_counts(tmp_path: Path) -> None:
    assert from_json(tmp_path, rope_theta=5.0, rope_parameters={"rope_theta": 7.0}).rope.theta == 7.0
    assert from_json(tmp_path, rope_theta=5.0, rope_parameters={"rope_type": "default"}).rope.theta == 5.0
    assert from_json(tmp_path, rope_theta=5.0, rope_scaling=None).rope == RopeConfig(5.0, 16)


@pytest.mark.clause("LOAD-23")
def test_absent_keys_take_the_defaults_of_transformers(tmp_path: Path) -> None:
    absent = dict.fromkeys(
        ["num_key_value_heads", "head_dim", "rope_theta", "rms_norm_eps", "hidden_act", "tie_word_embeddings",
         "max_position_embeddings", "architectures", "bos_token_id", "eos_token_id"], ABSENT)  # fmt: skip
    expected = replace(PLAIN, kv_heads=4, rope=RopeConfig(10000.0, 16), norm_epsilon=1e-6, max_positions=2048,
                       bos_token_id=None, eos_token_ids=())  # fmt: skip
    assert from_json(tmp_path, **absent) == expected
    null = from_json(tmp_path, num_key_value_heads=None, head_dim=None)
    assert (null.kv_heads, null.head_dim) == (4, 16)
    other = mistral(tmp_path, num_key_value_heads=ABSENT, num_attention_heads=8, max_position_embeddings=ABSENT)
    assert (other.kv_heads, other.max_positions) == (8, 131072)
    assert mistral(tmp_path, num_key_value_heads=None).kv_heads == 4
    assert from_json(tmp_path, model_type=ABSENT).architecture == "llama"


@pytest.mark.clause("LOAD-23")
def test_a_head_may_be_wider_than_hidden_over_heads(tmp_path: Path) -> None:
    assert from_json(tmp_path, head_dim=32).head_dim == 32
    assert from_json(tmp_path, head_dim=32).rope.rotary_dim == 32


@pytest.mark.clause("LOAD-24")
@pytest.mark.parametrize(
    ("keys", "window"),
    [
        ({}, 4096),
        ({"sliding_window": None}, None),
        ({"sliding_window": 7}, 7),
        ({"sliding_window": None, "use_sliding_window": False}, None),
        ({"sliding_window": 7, "use_sliding_window": True}, 7),
        ({"sliding_window": 7, "layer_types": ["full_attention"] * 2}, None),
        ({"sliding_window": 7, "layer_types": ["sliding_attention"] * 2}, 7),
    ],
)
def test_the_sliding_window_of_mistral(tmp_path: Path, keys: dict[str, Any], window: int | None) -> None:
    assert mistral(tmp_path, **keys).sliding_window == window


@pytest.mark.clause("LOAD-24")
def test_llama_has_no_window_and_refuses_one(tmp_path: Path) -> None:
    assert from_json(tmp_path, sliding_window=None).sliding_window is None
    with pytest.raises(Unsupported, match="sliding_window 7 is not supported in this family; null says that there is"):
        from_json(tmp_path, sliding_window=7)
    with pytest.raises(Unsupported, match="use_sliding_window False is not supported beside a window"):
        mistral(tmp_path, sliding_window=7, use_sliding_window=False)
    with pytest.raises(Unsupported, match="use_sliding_window False is not supported beside a window"):
        mistral(tmp_path, use_sliding_window=False)  # the family's own window
    with pytest.raises(InvalidFormat, match="layer_types must be a list of names, one for each of 2 layers"):
        mistral(tmp_path, layer_types=["full_attention"] * 3)
    with pytest.raises(Unsupported, match="layer_types"):
        mistral(tmp_path, layer_types=["full_attention", "sliding_attention"])
    with pytest.raises(InvalidFormat, match="there is no sliding_window"):
        mistral(tmp_path, sliding_window=None, layer_types=["sliding_attention"] * 2)


@pytest.mark.clause("LOAD-26")
@pytest.mark.parametrize(
    ("own", "generation", "expected"),
    [
        (2, None, (2,)),
        ([2, 3], None, (2, 3)),
        (2, 5, (2, 5)),
        ([2, 3], [3, 4], (2, 3, 4)),
        (None, [7], (7,)),
        (None, None, ()),
    ],
)
def test_the_stop_set_joins_both_files(tmp_path: Path, own: Any, generation: Any, expected: tuple[int, ...]) -> None:
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    assert from_json(tmp_path, eos_token_id=own).eos_token_ids == expected


UNSUPPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": ({"architectures": ["BertForMaskedLM"]}, r"architectures \['BertForMaskedLM'\] is not supported; "
                     "supported: LlamaForCausalLM, MistralForCausalLM"),
    "another head": ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
    "model_type": ({"model_type": "gemma9"}, "model_type 'gemma9' is not supported; supported: llama, mistral"),
    "rope type": ({"rope_scaling": {"rope_type": "mrope"}}, "rope_scaling: rope_type 'mrope' is not supported"),
    "older type": ({"rope_scaling": {"type": "ntk", "factor": 2}}, "rope_scaling: type 'ntk' is not supported"),
    "rope per layer": ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "rope_parameters"),
    "partial": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
    "partial inside": ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5"),
    "activation": ({"hidden_act": "relu2"}, "hidden_act 'relu2' is not supported; supported: silu"),
    "experts": ({"num_local_experts": 8}, "num_local_experts 8"),
    "soft cap": ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
}  # fmt: skip


@pytest.mark.clause("LOAD-22")
@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_changes_the_mathematics_is_refused_by_name(tmp_path: Path, case: str) -> None:
    keys, says = UNSUPPORTED[case]
    with pytest.raises(Unsupported, match=says) as caught:
        from_json(tmp_path, **keys)
    assert "config.json" in str(caught.value)


REQUIRED = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]


@pytest.mark.clause("LOAD-21")
@pytest.mark.parametrize("key", REQUIRED)
@pytest.mark.parametrize("value", [ABSENT, None, 0, -1, 1.5, "64", True, [], 10**30])
def test_a_size_that_is_missing_or_no_size_is_an_error_that_names_file_and_key(
    tmp_path: Path, key: str, value: Any
) -> None:
    with pytest.raises(InvalidFormat, match=rf"config\.json: {key} "):
        from_json(tmp_path, **{key: value})


@pytest.mark.clause("LOAD-21")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rms_norm_eps", 0), ("rms_norm_eps", "1e-5"), ("rms_norm_eps", float("nan")), ("rms_norm_eps", 10**400),
        ("rope_theta", -1.0), ("rope_scaling", [1]), ("rope_scaling", "linear"), ("tie_word_embeddings", "yes"),
        ("tie_word_embeddings", 1), ("attention_bias", 1), ("eos_token_id", "2"), ("eos_token_id", [2, "3"]),
        ("eos_token_id", [True]), ("bos_token_id", "1"), ("hidden_act", 3), ("architectures", "LlamaForCausalLM"),
        ("layer_types", []), ("layer_types", ["full_attention"]),
        ("architectures", [3]), ("model_type", 3), ("layer_types", "full_attention"), ("layer_types", [1]),
        ("head_dim", 0), ("max_position_embeddings", "long"), ("num_key_value_heads", 0),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_an_error_that_names_file_and_key(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(InvalidFormat, match=rf"config\.json: {key} "):
        from_json(tmp_path, **{key: value})


@pytest.mark.clause("LOAD-21")
@pytest.mark.parametrize("text", ["", "{", "nonsense", "[]", "3", '"text"', "null", "\x00", "[" * 100000])
def test_what_is_not_a_json_object_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidFormat, match=r"config\.json (is not valid JSON|must hold a JSON object)") as caught:
        read_config_json(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.clause("LOAD-21")
def test_unreadable_and_missing_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"config\.json does not exist"):
        read_config_json(tmp_path)
    (tmp_path / "config.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InvalidFormat, match="not UTF-8"):
        read_config_json(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    with pytest.raises(InvalidFormat, match="not a regular file"):
        read_config_json(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*CONFIG, "factor", "type"]), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = [*CONFIG, "rope_scaling", "rope_parameters", "sliding_window", "layer_types", "use_sliding_window", "mlp_bias",
        "num_local_experts"]  # fmt: skip


@pytest.mark.clause("LOAD-21")
@given(keys=st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=3), generation=st.none() | JSON)
def test_any_values_make_a_configuration_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, keys: dict[str, Any], generation: Any
) -> None:
    folder = tmp_path_factory.mktemp("config")
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    try:
        config = from_json(folder, **keys)
    except FerrumError as error:
        assert "\n" not in str(error)
    else:
        assert config.heads % config.kv_heads == 0 and config.head_dim % 2 == 0


@pytest.mark.clause("LOAD-25")
@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"num_key_value_heads": 3}, "num_key_value_heads 3 does not divide 4 heads"),
        ({"num_attention_heads": 5, "head_dim": None}, "hidden_size 64 is not a multiple of 5 heads"),
        ({"head_dim": 15}, "the width of a head, 15, must be even"),
    ],
)
def test_sizes_that_contradict_each_other_are_errors(tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidFormat, match=says):
        from_json(tmp_path, **keys)
