"""Rows of families: shared tensors, kinds of layers, rotary frequencies of single layers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.config import ModelConfig, RopeConfig
from ferrum.errors import FerrumError, InvalidFormat, ModelError, ModelWarning, Unsupported
from ferrum.fields import Fields
from ferrum.load.config_json import find_family, parse_config
from ferrum.load.families import HUGGING_FACE_FAMILIES
from ferrum.load.families_gguf import GGUF_FAMILIES
from ferrum.load.layout import ALTERNATING, GROUPED, STACKED, Layout, linear_shapes, rows_of
from ferrum.load.model import load_model
from ferrum.model.params import DecoderParams
from tests.model.families import FAMILIES, write_model, write_weights
from tests.tiny import tiny_config


def parsed(config: dict[str, Any]) -> ModelConfig:
    fields = Fields(config, "config.json", null_is_absent=False)
    return parse_config(fields, find_family(fields))


def changed(name: str, **changes: Any) -> dict[str, Any]:
    """The config.json of a golden with other values; None leaves a key out."""
    config = {**FAMILIES[name].config, **changes}
    return {key: value for key, value in config.items() if key not in changes or value is not None}


@pytest.mark.clause("LOAD-92")
@given(
    way=st.sampled_from([STACKED, GROUPED, ALTERNATING]), kv_heads=st.integers(1, 3), group=st.integers(1, 3),
    half=st.integers(1, 3), rotary=st.integers(1, 3), interleaved=st.booleans(),
)  # fmt: skip
def test_rows_of_a_shared_tensor_are_shared_out_once(
    way: str, kv_heads: int, group: int, half: int, rotary: int, interleaved: bool
) -> None:
    head_dim, turning = 2 * half, 2 * min(rotary, half)
    config = tiny_config(heads=kv_heads * group, kv_heads=kv_heads, head_dim=head_dim, rope=RopeConfig(1e4, turning))
    parts = ("query", "key", "value") if way != ALTERNATING else ("gate", "up")
    layout = Layout(
        "", "", "", dict.fromkeys(parts, "shared"), joined=dict.fromkeys(parts, way),
        interleaved=frozenset({"query", "key"} if interleaved else ()),
    )  # fmt: skip
    sizes = {part: shape[0] for part, shape in linear_shapes(config).items()}
    stored = np.arange(sum(sizes[part] for part in parts))
    found = [stored[rows_of(layout, part, sizes, config)] for part in parts]
    assert [len(rows) for rows in found] == [sizes[part] for part in parts]
    assert sorted(np.concatenate(found)) == stored.tolist()
    if way == GROUPED and not interleaved:  # what a key/value head needs lies together
        query, key, value = (rows.reshape(kv_heads, -1) for rows in found)
        for head in range(kv_heads):
            together = np.concatenate((query[head], key[head], value[head]))
            assert together.tolist() == list(range(together[0], together[0] + len(together)))
    if way == STACKED and interleaved:  # neighbours become partners, half of what turns apart
        heads = found[0].reshape(-1, head_dim)
        assert (heads[:, turning // 2 : turning] - heads[:, : turning // 2] == 1).all()
        assert (np.diff(heads[:, turning:]) == 1).all()


@pytest.mark.clause("LOAD-90")
def test_every_family_has_goldens() -> None:
    assert {golden.config["model_type"] for golden in FAMILIES.values()} == set(HUGGING_FACE_FAMILIES)


@pytest.mark.clause("LOAD-90")
def test_readme_names_every_family() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    rows = [row.split("|")[2:4] for row in readme.splitlines() if row.startswith("| ") and row.count("|") == 6]
    named = [{name for row in rows for name in re.findall("`([^`]+)`", row[column])} for column in (0, 1)]
    assert (set(HUGGING_FACE_FAMILIES) - named[0], set(GGUF_FAMILIES) - named[1]) == (set(), set())


@pytest.mark.clause("LOAD-90")
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_no_key_of_a_golden_is_passed_over(name: str, recwarn: pytest.WarningsRecorder) -> None:
    parsed(FAMILIES[name].config)
    assert [str(warning.message) for warning in recwarn] == []


SLIDING = {
    "qwen2-odd": [0, 0, 1],
    "gemma2-wide": [1, 0, 1],
    "gemma3-odd": [1, 0, 1],
    "cohere2-odd": [1, 0, 1],
    "gpt-oss-odd": [1, 0, 1],
    "smollm3-odd": [1, 0, 1],
    "mistral-wide": [1] * FAMILIES["mistral-wide"].config["num_hidden_layers"],
}


@pytest.mark.clause("LOAD-93", "MODEL-16")
@pytest.mark.parametrize(("name", "expected"), SLIDING.items())
def test_layers_slide_by_the_rule_of_their_family(name: str, expected: list[int]) -> None:
    kinds = parsed(changed(name, layer_types=None)).kinds
    window = FAMILIES[name].config["sliding_window"]
    assert [kind.window for kind in kinds] == [window if slides else None for slides in expected]


@pytest.mark.clause("LOAD-93", "MODEL-16")
def test_layers_without_rotation_and_layers_with_experts() -> None:
    assert [kind.rope is not None for kind in parsed(FAMILIES["smollm3-wide"].config).kinds] == [
        True,
        True,
        True,
        False,
    ]
    default = parsed(changed("smollm3-wide", no_rope_layers=None, no_rope_layer_interval=2))
    assert [kind.rope is not None for kind in default.kinds] == [True, False, True, False]
    assert [kind.sparse for kind in parsed(FAMILIES["qwen2-moe-odd"].config).kinds] == [False, True, False, False]
    assert [kind.rope is not None for kind in parsed(FAMILIES["cohere2-odd"].config).kinds] == [True, False, True]


@pytest.mark.clause("LOAD-94")
def test_sliding_layers_have_frequencies_of_their_own() -> None:
    nested, bases = (parsed(FAMILIES[name].config).kinds for name in ("gemma3-wide", "gemma3-odd"))
    assert [(kind.rope.theta, kind.rope.factor) for kind in (nested[0], nested[5])] == [(100.0, 1.0), (5000.0, 8.0)]
    assert [kind.rope.theta for kind in bases[:2]] == [10000.0, 1000000.0]
    stretched = changed("olmo3-odd", rope_scaling={"rope_type": "linear", "factor": 2.0})
    assert [kind.rope.factor for kind in parsed(stretched).kinds] == [2.0, 1.0]  # the first sees everything


REFUSED: list[tuple[str, dict[str, Any], type[FerrumError], str]] = [
    ("mistral-wide", {"layer_types": ["full_attention", "sliding_attention"]}, Unsupported, "layer_types"),
    ("qwen2-odd", {"layer_types": ["full_attention"] * 2}, InvalidFormat, "one for each of 3 layers"),
    ("qwen2-wide", {"layer_types": ["sliding_attention"] * 2}, InvalidFormat, "there is no sliding_window"),
    ("qwen3-wide", {"layer_types": ["linear_attention"] * 2}, Unsupported, "linear_attention"),
    ("smollm3-wide", {"no_rope_layers": [1, 2, 1, 1]}, InvalidFormat, "no_rope_layers"),
    ("smollm3-wide", {"no_rope_layers": [1, 0]}, InvalidFormat, "no_rope_layers"),
    ("qwen2-moe-odd", {"mlp_only_layers": "3"}, InvalidFormat, "mlp_only_layers"),
    ("mixtral-wide", {"num_experts_per_tok": 9}, InvalidFormat, "num_experts_per_tok is 9"),
    ("mixtral-wide", {"num_experts": 9}, InvalidFormat, "num_experts is 9"),
    ("olmoe-odd", {"clip_qkv": 8.0}, Unsupported, "clip_qkv"),
    ("phi-wide", {"qk_layernorm": True}, Unsupported, "qk_layernorm"),
    ("falcon-wide", {"alibi": True}, Unsupported, "alibi"),
    ("falcon-wide", {"parallel_attn": False}, Unsupported, "parallel_attn"),
    ("falcon-wide", {"multi_query": False}, Unsupported, "multi_query"),
    ("gpt2-wide", {"scale_attn_by_inverse_layer_idx": True}, Unsupported, "scale_attn_by_inverse_layer_idx"),
    ("gpt2-wide", {"scale_attn_weights": False}, Unsupported, "scale_attn_weights"),
    ("gpt2-wide", {"add_cross_attention": True}, Unsupported, "add_cross_attention"),
    ("gemma3-wide", {"use_bidirectional_attention": True}, Unsupported, "use_bidirectional_attention"),
    ("gpt-oss-wide", {"swiglu_alpha": 1.5}, Unsupported, "swiglu_alpha"),
    ("llama-wide", {"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, InvalidFormat, "short_factor"),
    ("llama-wide", {"hidden_act": "xielu"}, Unsupported, "hidden_act"),
    ("llama-wide", {"final_logit_softcapping": 30.0}, Unsupported, "final_logit_softcapping"),
    ("qwen2-wide", {"attention_multiplier": 0.5}, Unsupported, "attention_multiplier"),
    ("glm-wide", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.2}}, InvalidFormat, "3 dimensions"),
    ("stablelm-wide", {"partial_rotary_factor": 1e308}, InvalidFormat, "to turn"),
    ("phi3-wide", {"sliding_window": 7, "use_sliding_window": False}, Unsupported, "use_sliding_window"),
]


@pytest.mark.clause("LOAD-90", "LOAD-93")
@pytest.mark.parametrize(
    ("name", "changes", "error", "says"), REFUSED, ids=lambda value: json.dumps(value, default=str)
)
def test_what_a_family_does_not_compute_is_refused_by_name(
    name: str, changes: dict[str, Any], error: type[FerrumError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        parsed(changed(name, **changes))
    assert "config.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.clause("LOAD-92")
def test_a_shape_is_checked_before_rows_are_numbered(tmp_path: Path) -> None:
    """Rows of a tensor that a file only claims would take the memory of the machine."""
    from ferrum.errors import ModelError
    from ferrum.load.model import load_model
    from tests.model.families import write_model

    folder = write_model(FAMILIES["glm-wide"], tmp_path / "glm")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 1 << 40}))
    with pytest.raises(ModelError, match="has shape"):
        load_model(folder)


def loaded(name: str, folder: Path, drop: str = "", **more: np.ndarray) -> DecoderParams:
    """A golden's model without one of its tensors, and with others."""
    golden = FAMILIES[name]
    write_model(golden, folder)
    weights = {key: array for key, array in golden.weights().items() if key != drop}
    write_weights(weights | more, folder / "model.safetensors")
    return load_model(folder).params


@pytest.mark.clause("LOAD-35")
@pytest.mark.parametrize(
    ("name", "dropped"),
    [("gpt2-wide", "transformer.h.0.ln_2.bias"), ("gpt-neox-odd", "gpt_neox.layers.0.input_layernorm.bias")],
)
def test_all_norms_of_a_model_have_a_bias_or_none(tmp_path: Path, name: str, dropped: str) -> None:
    with pytest.raises(ModelError, match=rf"tensor {re.escape(dropped)} is missing"):
        loaded(name, tmp_path, dropped)
    last = next(key for key in FAMILIES[name].tensors if key.endswith(("ln_f.bias", "final_layer_norm.bias")))
    with pytest.raises(Unsupported, match="has no place in architecture"):
        loaded(name, tmp_path, last)


@pytest.mark.clause("LOAD-33")
@pytest.mark.parametrize(("name", "key"), [("cohere-odd", "self_attn.q_norm"), ("stablelm-qk", "q_layernorm.norms.1")])
def test_a_bias_on_a_norm_of_heads_is_refused(tmp_path: Path, name: str, key: str) -> None:
    """It would have to be turned, or stacked, with the weights."""
    weight = next(each for each in FAMILIES[name].tensors if each.endswith(f"{key}.weight"))
    bias = np.ones(FAMILIES[name].tensors[weight][1], np.float32)
    with pytest.raises(Unsupported, match=r"norm.*\.bias has no place in architecture"):
        loaded(name, tmp_path, **{weight.replace(".weight", ".bias"): bias})


@pytest.mark.clause("LOAD-83")
@pytest.mark.parametrize("name", ["mistral-wide", "gemma2-wide", "olmo3-odd", "qwen2-odd"])
def test_a_period_of_windows_is_told_of_where_the_class_does_not_read_it(name: str) -> None:
    with pytest.warns(ModelWarning, match="ignored: 'sliding_window_pattern'"):
        told = parsed(changed(name, sliding_window_pattern=5))
    assert told == parsed(changed(name))
    assert parsed(changed("gemma3-odd", sliding_window_pattern=3)) != parsed(changed("gemma3-odd"))
