"""Keys of a model's files: read, refused by name, known to be harmless, or listed in a warning."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.config import RopeScaling
from ferrum.errors import InvalidFormat, ModelWarning, Unsupported
from ferrum.load import known_keys
from ferrum.load.config_gguf import describe
from ferrum.load.config_json import find_family, generation_fields, parse_config
from ferrum.load.families_gguf import GGUF_FAMILIES
from ferrum.load.gguf import GGUFFile
from ferrum.load.token_ids import NO_IDS
from ferrum.model.rope import attention_factor, rope_frequencies
from tests.load.config_reading import read_config_json
from tests.load.tiny_models import CONFIG, PLAIN, changed, write_gguf

GOLDENS = Path(__file__).parents[1] / "goldens"
KEYS: dict[str, list[str]] = json.loads((GOLDENS / "config_keys.json").read_text())


def told(folder: Path, generation: dict[str, Any] | None = None, **keys: Any) -> list[str]:
    """The warnings for a model whose files have other values of these keys."""
    (folder / "config.json").write_text(json.dumps(changed(CONFIG, **keys)))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ModelWarning)
        read_config_json(folder)
    return [str(warning.message).replace(f"{folder}/", "") for warning in found]


@pytest.mark.clause("LOAD-83")
def test_every_key_of_the_classes_of_transformers_stands_in_a_table() -> None:
    config = known_keys.CONFIG_READ | known_keys.CONFIG_NEUTRAL.keys() | known_keys.CONFIG_HARMLESS
    assert [key for key in KEYS["config"] if key not in config and not key.startswith("_")] == []
    generation = known_keys.GENERATION_READ | known_keys.GENERATION_HARMLESS
    assert [key for key in KEYS["generation"] if key not in generation and not key.startswith("_")] == []
    assert [key for key in KEYS["generation"] if key not in config and not key.startswith("_")] == []
    rope = frozenset().union(*known_keys.ROPE_READ.values()) | known_keys.ROPE_HARMLESS | known_keys.ROPE_NEUTRAL.keys()
    assert [key for key in KEYS["rope"] if key not in rope] == []


@pytest.mark.clause("LOAD-83")
def test_every_key_of_gguf_stands_in_a_table(tmp_path: Path) -> None:
    of_model = known_keys.GGUF_READ | known_keys.GGUF_NEUTRAL.keys() | known_keys.GGUF_HARMLESS
    for key in KEYS["gguf"]:
        for dense in ("dense_2", "dense_3"):
            name = key.replace("{dense}", dense)
            if name.startswith("{arch}."):
                assert name.removeprefix("{arch}.") in of_model, name
            else:
                assert name.startswith(("general.", "split.", "tokenizer.", *known_keys.GGUF_FOREIGN)), name


def test_no_key_stands_in_two_tables() -> None:
    for tables in (
        (known_keys.CONFIG_READ, known_keys.CONFIG_NEUTRAL.keys(), known_keys.CONFIG_HARMLESS),
        (known_keys.GENERATION_READ, known_keys.GENERATION_HARMLESS),
        (known_keys.GGUF_READ, known_keys.GGUF_NEUTRAL.keys(), known_keys.GGUF_HARMLESS),
    ):
        assert sum(map(len, tables)) == len(frozenset().union(*tables))


REAL: dict[str, dict[str, Any]] = {
    "SmolLM2": {"is_llama_config": True, "rope_interleaved": False, "initializer_range": 0.04, "rope_scaling": None,
                "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "pretraining_tp": 1},
    "Llama 3.2": {"_name_or_path": "m", "_commit_hash": "0", "rope_scaling": {
        "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 64,
        "rope_type": "llama3"}, "attention_dropout": 0.0, "mlp_bias": False, "use_cache": True},
    "the first Llama": {"architectures": ["LLaMAForCausalLM"], "max_sequence_length": 2048, "pad_token_id": -1,
                        "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float16"},
    "a fine-tune by unsloth": {"unsloth_fixed": True, "unsloth_version": "2025.3", "pad_token_id": 39,
                               "_attn_implementation_autoset": True, "quantization_config": None},
    "a Yarn-Llama": {"rope_scaling": {"factor": 16.0, "original_max_position_embeddings": 64, "type": "yarn",
                                      "finetuned": True}, "auto_map": {"AutoConfig": "c.C"}},
    "Falcon 3": {"activation": "swiglu", "head_dim": 16, "attention_bias": False},
    "written by transformers 4 with everything": {
        "add_cross_attention": False, "bad_words_ids": None, "begin_suppress_tokens": None,
        "chunk_size_feed_forward": 0,
        "cross_attention_hidden_size": None, "decoder_start_token_id": None, "diversity_penalty": 0.0,
        "do_sample": False, "early_stopping": False, "encoder_no_repeat_ngram_size": 0,
        "exponential_decay_length_penalty": None, "finetuning_task": None, "forced_bos_token_id": None,
        "forced_eos_token_id": None, "id2label": {"0": "LABEL_0"}, "is_decoder": False, "is_encoder_decoder": False,
        "label2id": {"LABEL_0": 0}, "length_penalty": 1.0, "max_length": 20, "min_length": 0, "no_repeat_ngram_size": 0,
        "num_beam_groups": 1, "num_beams": 1, "num_return_sequences": 1, "output_attentions": False,
        "output_hidden_states": False, "output_scores": False, "prefix": None, "problem_type": None, "pruned_heads": {},
        "remove_invalid_values": False, "repetition_penalty": 1.0, "return_dict": True,
        "return_dict_in_generate": False, "sep_token_id": None, "suppress_tokens": None, "task_specific_params": None,
        "temperature": 1.0, "tf_legacy_loss": False, "tie_encoder_decoder": False, "tokenizer_class": None,
        "top_k": 50, "top_p": 1.0, "torchscript": False, "typical_p": 1.0, "use_bfloat16": False},
    "with a draft model's keys at rest": {"sliding_window": None, "use_sliding_window": False, "max_window_layers": 28,
                                          "layer_types": ["full_attention"] * 2, "neftune_noise_alpha": 5,
                                          "model_max_length": 4096, "pixel_shuffle_factor": 4, "qk_layer_norms": False},
}  # fmt: skip


@pytest.mark.clause("LOAD-83")
@pytest.mark.parametrize("case", REAL)
def test_of_ordinary_files_nothing_is_told(tmp_path: Path, case: str) -> None:
    generation = {"bos_token_id": 1, "do_sample": True, "eos_token_id": [2, 3], "max_length": 131072,
                  "pad_token_id": 3, "temperature": 0.6, "top_p": 0.9, "transformers_version": "4.45.0"}  # fmt: skip
    assert told(tmp_path, generation, **REAL[case]) == []


@pytest.mark.clause("LOAD-83")
def test_the_real_file_is_ordinary(smollm2_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ModelWarning)
        describe(GGUFFile(smollm2_path), NO_IDS)


@pytest.mark.clause("LOAD-83")
def test_keys_of_which_nothing_is_known_are_told_at_once(tmp_path: Path) -> None:
    says = "config.json: ignored: 'xyz', 'rope_thetta', which are not known here"
    assert told(tmp_path, xyz=1, rope_thetta=5.0, _note="x", absent=None) == [says]
    many = {f"strange_{number}": number for number in range(30)}
    assert told(tmp_path, **many)[0].endswith("'strange_7' and 22 more, which are not known here")
    assert told(tmp_path, {"tempperature": 1}) == [
        "generation_config.json: ignored: 'tempperature', which are not known here"
    ]
    (tmp_path / "generation_config.json").unlink()
    assert "\n" not in told(tmp_path, **{"a\nb": 1, "x" * 1000: 1})[0]
    rope = {"rope_type": "linear", "factor": 2.0, "betafast": 3, "beta_slow": 1}
    assert told(tmp_path, rope_scaling=rope) == [
        "config.json: rope_scaling: ignored: 'betafast', 'beta_slow', which rope_type linear does not use"
    ]


@pytest.mark.clause("LOAD-83")
def test_keys_of_gguf_of_which_nothing_is_known_are_told_at_once(tmp_path: Path) -> None:
    keys = {"llama__xyz": 1, "llama__rope__scaling__zzz": "a", "general__xyz": "a", "somebody__else": 3}
    file = GGUFFile(write_gguf(tmp_path / "model.gguf", **keys))
    with pytest.warns(ModelWarning, match=r"ignored: 'llama\.xyz', 'llama\.rope\.scaling\.zzz', which are") as found:
        describe(file, NO_IDS)
    assert len(found) == 1


@pytest.mark.clause("LOAD-22", "LOAD-83")
@pytest.mark.parametrize("key", sorted(known_keys.CONFIG_NEUTRAL))
def test_what_changes_the_mathematics_is_refused_unless_neutral(tmp_path: Path, key: str) -> None:
    if key not in ("attention_bias", "mlp_bias"):  # Llama reads them
        for value in (*known_keys.CONFIG_NEUTRAL[key], None):
            assert told(tmp_path, **{key: value}) == []
        with pytest.raises(Unsupported, match=rf"config\.json: {key} 0\.25 is not supported"):
            told(tmp_path, **{key: 0.25})


@pytest.mark.clause("LOAD-22", "LOAD-83")
@pytest.mark.parametrize("key", sorted(known_keys.GGUF_NEUTRAL.keys() - GGUF_FAMILIES["llama"].read_keys))
def test_what_changes_the_mathematics_of_gguf_is_refused_unless_neutral(tmp_path: Path, key: str) -> None:
    def read(value: Any) -> None:
        describe(GGUFFile(write_gguf(tmp_path / "model.gguf", **{f"llama.{key}": value})), NO_IDS)

    for value in known_keys.GGUF_NEUTRAL[key]:
        read(float(value) if not isinstance(value, bool) else value)
    read([int(known_keys.GGUF_NEUTRAL[key][0])] * 2)
    for value in (0.25, [int(known_keys.GGUF_NEUTRAL[key][0]), 7], "x"):
        with pytest.raises(Unsupported, match=rf"llama\.{key} .*is not supported"):
            read(value)


@pytest.mark.clause("LOAD-22")
@pytest.mark.parametrize(
    ("key", "value"),
    [("general.type", "adapter"), ("general.type", "mmproj"), ("clip.has_vision_encoder", True),
     ("adapter.type", "lora"), ("diffusion.shift_logits", True), ("xielu.beta", 0.5)],
)  # fmt: skip
def test_what_is_no_language_model_is_refused_by_name(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(Unsupported, match=rf"{key} .*is not supported"):
        describe(GGUFFile(write_gguf(tmp_path / "model.gguf", **{key: value})), NO_IDS)


@pytest.mark.clause("LOAD-22")
@pytest.mark.parametrize("key", ["attention_bias", "mlp_bias"])
def test_a_family_without_biases_refuses_their_flags(tmp_path: Path, key: str) -> None:
    mistral = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    assert told(tmp_path, **mistral, **{key: False}) == []
    with pytest.raises(Unsupported, match=f"{key} True is not supported"):
        told(tmp_path, **mistral, **{key: True})


@pytest.mark.clause("LOAD-82")
@pytest.mark.parametrize("key", known_keys.FORCING)
def test_what_forbids_or_forces_tokens_is_told(tmp_path: Path, key: str) -> None:
    for value in (*known_keys.FORCING[key], None):
        assert told(tmp_path, {key: value}) == []
    says = f"ignored: '{key}', which here only a request can ask for"
    assert told(tmp_path, {key: [[3, 4]]}) == [f"generation_config.json: {says}"]
    (tmp_path / "generation_config.json").unlink()
    assert told(tmp_path, **{key: [[3, 4]]}) == [f"config.json: {says}"]


@pytest.mark.clause("LOAD-82")
@pytest.mark.parametrize(
    "text", [b"", b"{", b"nonsense", b"[]", b"3", b"null", b"\x00", b"[" * 100000, b'{"a": "\xff"}']
)
def test_a_generation_config_that_cannot_be_understood_is_told(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "generation_config.json").write_bytes(text)
    with pytest.warns(ModelWarning, match=r"^ignored: .*generation_config\.json (is|must)") as found:
        assert read_config_json(tmp_path).config == PLAIN
    assert len(found) == 1 and "\n" not in str(found[0].message)


@pytest.mark.clause("LOAD-82")
def test_how_tokens_are_chosen_is_the_callers_to_say(tmp_path: Path) -> None:
    assert told(tmp_path, dict.fromkeys(known_keys.CHOICES, 0.5)) == []
    assert generation_fields(tmp_path / "nowhere").values == {}


ROPES: list[tuple[dict[str, Any], Any]] = [
    tuple(case) for case in json.loads((GOLDENS / "rope_tables.json").read_text())
]


@pytest.mark.clause("LOAD-20", "LOAD-84")
def test_rotary_parameters_in_any_place_are_those_of_transformers(tmp_path: Path) -> None:
    for keys, answer in ROPES:
        (tmp_path / "config.json").write_text(json.dumps({**changed(CONFIG, rope_theta="absent"), **keys}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModelWarning)
            rope = read_config_json(tmp_path).config.rope
        np.testing.assert_allclose(rope_frequencies(rope), answer[0], rtol=1e-5, err_msg=repr(keys))
        assert attention_factor(rope) == pytest.approx(answer[1], rel=1e-6), keys


@pytest.mark.clause("LOAD-84")
def test_rope_scaling_stands_in_place_of_rope_parameters(tmp_path: Path) -> None:
    def rope(**keys: Any) -> Any:
        told(tmp_path, rope_theta="absent", **keys)
        return read_config_json(tmp_path).config.rope

    plain = {"rope_type": "default", "rope_theta": 700.0}
    assert rope(rope_parameters=plain).theta == 700.0
    for empty in (None, {}, [], False):
        assert rope(rope_parameters=plain, rope_scaling=empty).theta == 700.0
    found = rope(rope_parameters=plain, rope_scaling={"type": "linear", "factor": 4})
    assert (found.scaling, found.factor, found.theta) == (RopeScaling.LINEAR, 4.0, 10000.0)
    with pytest.raises(InvalidFormat, match="rope_parameters must be an object"):
        rope(rope_parameters=[], rope_scaling={"type": "linear", "factor": 4})
    for wrong in ("linear", 1, [1]):
        with pytest.raises(InvalidFormat, match="rope_scaling must be an object"):
            rope(rope_parameters=plain, rope_scaling=wrong)


@pytest.mark.clause("LOAD-84")
@pytest.mark.parametrize("inside", [None, 64, 64.0])
@pytest.mark.parametrize("top", [None, 16, 16.0])
def test_the_original_context_at_the_top_goes_first(tmp_path: Path, inside: Any, top: Any) -> None:
    for kind in (
        {"rope_type": "yarn", "factor": 4},
        {"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4},
    ):
        scaling = {**kind, **({} if inside is None else {"original_max_position_embeddings": inside})}
        assert (
            told(tmp_path, rope_scaling=scaling, **({} if top is None else {"original_max_position_embeddings": top}))
            == []
        )
        assert read_config_json(tmp_path).config.rope.original_max_positions == int(top or inside or 512)


@pytest.mark.clause("LOAD-84")
@pytest.mark.parametrize("value", [16.5, "16", True, None, [16], 0.0, -16, 1e300, float("inf"), float("nan")])
def test_an_original_context_that_is_no_length_is_an_error(tmp_path: Path, value: Any) -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0}
    for keys in ({"rope_scaling": {**yarn, "original_max_position_embeddings": value}},
                 {"rope_scaling": yarn, "original_max_position_embeddings": value}):  # fmt: skip
        with pytest.raises(InvalidFormat, match="original_max_position_embeddings"):
            told(tmp_path, **keys)


@pytest.mark.clause("LOAD-21")
@given(key=st.sampled_from(["max_position_embeddings", "rms_norm_eps", "hidden_act", "attention_bias", "mlp_bias",
                            "tie_word_embeddings", "rope_theta", "vocab_size", "num_hidden_layers"]))  # fmt: skip
def test_null_is_no_value_where_transformers_has_none(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    with pytest.raises(InvalidFormat, match=f"{key} is null; leave it out or give it a value"):
        told(tmp_path_factory.mktemp("null"), **{key: None})


CLASSES: dict[str, tuple[dict[str, Any], str | None]] = {
    "another spelling": ({"architectures": ["LLaMAForCausalLM"]}, None),
    "capitals": ({"architectures": ["LLAMAFORCAUSALLM"]}, None),
    "without a head": ({"architectures": ["LlamaModel"]}, None),
    "null": ({"architectures": None}, None),
    "none": ({"architectures": []}, None),
    "several": ({"architectures": ["LlamaForSequenceClassification", "LlamaForCausalLM"]}, None),
    "a publisher's own": (
        {"architectures": ["MyLlamaForCausalLM"]},
        "'MyLlamaForCausalLM'; it is run as LlamaForCausalLM",
    ),
    "another family's": (
        {"architectures": ["MistralForCausalLM"]},
        "'MistralForCausalLM'; it is run as LlamaForCausalLM",
    ),
    "two strangers": ({"architectures": ["AForCausalLM", "B"]}, "'AForCausalLM', 'B'; it is run as LlamaForCausalLM"),
}


@pytest.mark.clause("LOAD-85")
@pytest.mark.parametrize("case", CLASSES)
def test_model_type_decides_and_strange_classes_are_told(tmp_path: Path, case: str) -> None:
    keys, says = CLASSES[case]
    found = told(tmp_path, **keys)
    assert read_config_json_quietly(tmp_path).architecture == "llama"
    assert len(found) == (says is not None) and (says is None or says in found[0])


def read_config_json_quietly(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        return read_config_json(folder).config


@pytest.mark.clause("LOAD-85")
@pytest.mark.parametrize(
    "keys",
    [
        {"architectures": ["LlamaForSequenceClassification"]},
        {"architectures": ["BertForMaskedLM"]},
        {"architectures": ["LlamaForCausalLMEagle3"]},
        {"architectures": ["MyLlamaForCausalLM"], "model_type": "absent"},
    ],
)
def test_classes_that_do_something_else_are_refused_by_name(tmp_path: Path, keys: dict[str, Any]) -> None:
    with pytest.raises(
        Unsupported, match=rf"architectures \['{keys['architectures'][0]}'\] is not supported; supported"
    ):
        told(tmp_path, **keys)


@pytest.mark.clause("LOAD-85")
def test_without_model_type_the_class_tells_the_family(tmp_path: Path) -> None:
    told(tmp_path, model_type="absent", architectures=["mistralforcausallm"])
    assert read_config_json_quietly(tmp_path).architecture == "mistral"


@pytest.mark.clause("LOAD-22")
def test_tables_are_looked_at_before_sizes(tmp_path: Path) -> None:
    """So that a file of another network is told by what makes it one."""
    from ferrum.fields import Fields

    fields = Fields({"model_type": "llama", "num_local_experts": 8}, "config.json")
    with pytest.raises(Unsupported, match="num_local_experts 8"):
        parse_config(fields, find_family(fields))
