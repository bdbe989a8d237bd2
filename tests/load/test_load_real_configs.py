"""config.json of published models: their configuration, no warning for harmless keys, and refusals."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum.config import ModelConfig, RopeConfig
from ferrum.errors import ModelWarning, Unsupported
from ferrum.fields import Fields
from ferrum.load.config_json import describe
from ferrum.load.layout import Description
from ferrum.load.quantization_config import find_formats
from ferrum.load.text_part import text_fields
from ferrum.load.token_ids import NO_IDS
from ferrum.model.rope import attention_factor, rope_frequencies
from tests.load.real_configs import REAL

RUN = [name for name, case in REAL.items() if case["means"] is not None]
REFUSED = {
    "ibm-granite/granite-4.0-350m": "GraniteMoeHybridForCausalLM",
    "microsoft/Phi-3-small-8k-instruct": "Phi3SmallForCausalLM",
    "microsoft/phi-2 of 2023 (phi-msft)": "phi-msft",
    "stabilityai/stablelm-3b-4e1t of 2023": "StableLMEpochForCausalLM",
    "stanford-crfm/alias-gpt2-small-x21": "scale_attn_by_inverse_layer_idx",
    "THUDM/glm-4-9b-chat (remote code)": "ChatGLMModel",
    "tiiuae/falcon-7b of 2023 (RefinedWebModel)": "RWForCausalLM",
    "tiiuae/falcon-rw-1b": "alibi",
}
TOLD = {
    "Qwen/Qwen2.5-7B-Instruct-1M": "'dual_chunk_attention_config', which are not known here",
    "baidu/ERNIE-4.5-0.3B-PT (remote code)": "it is run as Ernie4_5ForCausalLM, as model_type says",
}
PICTURES = "ignored: 'vision_config'; of this model only the text is run"


def read(config: dict[str, Any]) -> tuple[Description, list[str]]:
    """The configuration that a file describes, and the warnings for it."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ModelWarning)
        description = describe(text_fields(Fields(config, "config.json", null_is_absent=False)), NO_IDS)
    return description, [str(warning.message) for warning in found]


def shown(rope: RopeConfig) -> list[float]:
    numbers = rope_frequencies(rope)
    return [numbers[0], numbers[len(numbers) // 2], numbers[-1], attention_factor(rope)]


def turning(config: ModelConfig) -> dict[str, RopeConfig | None]:
    """The rotary parameters of a layer with full attention and of one with a window, named as in the file."""
    full = next((kind for kind in config.kinds if kind.window is None), config.kinds[0])
    sliding = next((kind for kind in config.kinds if kind.window is not None), full)
    every = next((kind for kind in config.kinds if kind.rope is not None), full)
    return {"full_attention": full.rope, "sliding_attention": sliding.rope, "all": every.rope}


@pytest.mark.clause("LOAD-23", "LOAD-90")
@pytest.mark.parametrize("name", RUN)
def test_a_published_file_means_what_it_means_to_transformers(name: str) -> None:
    means = dict(REAL[name]["means"])
    config = read(REAL[name]["config"])[0].config
    ropes, windows = means.pop("rope"), means.pop("windows", None)
    assert {key: getattr(config, key) for key in means} == means
    if windows is not None:
        assert [number for number, kind in enumerate(config.kinds) if kind.window is not None] == windows
    assert bool(ropes) == (turning(config)["all"] is not None)
    for kind, numbers in ropes.items():
        rope = turning(config)[kind]
        assert rope is not None
        np.testing.assert_allclose(shown(rope), numbers, rtol=2e-5)


@pytest.mark.clause("LOAD-83")
@pytest.mark.parametrize("name", RUN)
def test_of_a_published_file_nothing_harmless_is_told(name: str) -> None:
    told = [TOLD[name]] if name in TOLD else [PICTURES] if "vision_config" in REAL[name]["config"] else []
    found = read(REAL[name]["config"])[1]
    assert len(found) == len(told)
    assert all(message.endswith(wanted) for message, wanted in zip(found, told, strict=True))


@pytest.mark.clause("LOAD-22")
@pytest.mark.parametrize("name", [name for name in REAL if name not in RUN])
def test_a_published_file_of_something_else_is_refused_by_name(name: str) -> None:
    with pytest.raises(Unsupported, match=REFUSED[name]):
        read(REAL[name]["config"])


CHANGED = [
    ("CohereForAI/c4ai-command-r7b-12-2024", "order_of_interleaved_layers", "global_attn_first"),
    ("CohereForAI/aya-expanse-8b", "position_embedding_type", "rope"),
    ("CohereForAI/aya-expanse-8b", "use_gated_activation", False),
    ("CohereForAI/aya-expanse-8b", "use_parallel_block", False),
    ("CohereForAI/aya-expanse-8b", "rotary_pct", 0.5),
    ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "use_qk_norm", False),
    ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "shared_expert_intermediate_size", 512),
    ("bigcode/starcoder2-3b", "mlp_type", "gated"),
    ("bigcode/starcoder2-3b", "norm_type", "rms_norm"),
    ("bigcode/starcoder2-3b", "scale_attn_weights", False),
    ("microsoft/Phi-4-mini-instruct", "full_attn_mod", 2),
    ("microsoft/Phi-4-mini-instruct", "interpolate_factor", 2),
    ("microsoft/Phi-4-mini-instruct", "lm_head_bias", True),
    ("tiiuae/falcon-7b-instruct", "apply_residual_connection_post_layernorm", True),
    ("tiiuae/falcon-11B", "ff_factor", 3),
]


@pytest.mark.clause("LOAD-22")
@pytest.mark.parametrize(("name", "key", "value"), CHANGED)
def test_another_value_of_a_key_that_is_passed_over_is_refused(name: str, key: str, value: Any) -> None:
    assert key in REAL[name]["config"]
    with pytest.raises(Unsupported, match=key):
        read({**REAL[name]["config"], key: value})


GPTQ = {"bits": 4, "group_size": 128, "quant_method": "gptq", "sym": True}
QUANTISED: dict[str, dict[str, Any]] = {
    "AutoGPTQ": {**GPTQ, "damp_percent": 0.1, "desc_act": True, "true_sequential": True, "model_name_or_path": None,
                 "model_file_base_name": "model", "static_groups": False},
    "GPTQModel 4": {**GPTQ, "checkpoint_format": "gptq", "desc_act": False, "hyb_act": False, "lm_head": False,
                    "meta": {"act_group_aware": False, "v2": False}, "pack_dtype": "int32", "pack_impl": "cpu"},
    "GPTQModel 5": {**GPTQ, "checkpoint_format": "gptq", "desc_act": False, "format": "gptq", "lm_head": False,
                    "meta": {}, "method": "gptq", "pack_dtype": "int32"},
    "AutoAWQ": {"bits": 4, "group_size": 128, "modules_to_not_convert": None, "quant_method": "awq", "version": "gemm",
                "zero_point": True, "backend": "autoawq", "do_fuse": False, "exllama_config": None},
    "AutoFP8": {"activation_scheme": "static", "ignored_layers": ["lm_head"], "kv_cache_scheme": "static",
                "quant_method": "fp8"},
    "Devstral": {"activation_scheme": "static", "dequantize": False, "modules_to_not_convert": ["lm_head"],
                 "quant_method": "fp8", "weight_block_size": None},
    "MLX": {"group_size": 64, "bits": 4, "mode": "affine", "model.embed_tokens": {"group_size": 64, "bits": 8}},
}  # fmt: skip


@pytest.mark.clause("LOAD-106")
@pytest.mark.filterwarnings("error::ferrum.errors.ModelWarning")
@pytest.mark.parametrize("case", QUANTISED)
def test_what_the_usual_programs_say_of_how_they_quantised_is_known(case: str) -> None:
    said = {"quantization_config": QUANTISED[case]}
    assert len(find_formats(Fields(said, "config.json", null_is_absent=False))) == 1


@pytest.mark.clause("LOAD-106")
@pytest.mark.parametrize(("key", "value"), [("format", "marlin"), ("checkpoint_format", "marlin"), ("method", "qqq")])
def test_another_format_of_gptq_is_refused(key: str, value: str) -> None:
    said = {"quantization_config": {**GPTQ, key: value}}
    with pytest.raises(Unsupported, match=f"{key} '{value}' is not supported"):
        find_formats(Fields(said, "config.json", null_is_absent=False))


def test_the_file_of_published_models_is_as_its_maker_writes_it() -> None:
    rows = [f"{json.dumps(name)}: {json.dumps(case)}" for name, case in REAL.items()]
    path = Path(__file__).parents[1] / "goldens" / "real_configs.json"
    assert path.read_text() == "{\n" + ",\n".join(rows) + "\n}\n"
