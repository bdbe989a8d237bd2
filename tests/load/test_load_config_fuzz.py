"""Unusual configurations: the numbers of other engines, or one clear error."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ferrum import LLM
from ferrum.errors import FerrumError, ModelWarning
from ferrum.load.model import load_model, open_model
from tests.load import config_changes, gguf_changes
from tests.load.config_changes import LLAMA, SHOWN, TOKENS, VOCAB, other_values, weights
from tests.load.tiny_models import ABSENT

GOLDENS = Path(__file__).parents[1] / "goldens"

HARMLESS = ("attention_dropout", "initializer_range", "pad_token_id", "pretraining_tp", "use_cache")
"""Keys that ferrum does not read, so that no value of theirs can be wrong; transformers checks them."""
CLASS_TELLS = ("model_type missing", "model_type null")
"""Old files have no model_type: architectures says the same."""


class Numbers:
    """The logits that ferrum computes, each configuration once."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.known: dict[str, np.ndarray] = {}

    def of(self) -> np.ndarray:
        """What the model that lies there now computes. Raises `FerrumError`."""
        config = dataclasses.replace(load_model(self.place).config, eos_token_ids=(), bos_token_id=None)
        if repr(config) not in self.known:
            self.known[repr(config)] = LLM(self.place, backend="numpy").logits(TOKENS)[SHOWN]
        return self.known[repr(config)]


@cache
def golden(name: str) -> tuple[list[np.ndarray], dict[str, int | None]]:
    found = json.loads((GOLDENS / name).read_text())
    return [np.array(row).reshape(len(SHOWN), VOCAB) for row in found["logits"]], found["cases"]


def outcomes(
    name: str, write: Callable[[str], None], numbers: Numbers, cases: dict[str, int | None], close: float
) -> dict[str, str]:
    """The cases for which the two engines differ, with the difference. Cases that both refuse do not differ."""
    rows, _ = golden(name)
    found: dict[str, str] = {}
    for case, expected in cases.items():
        write(case)
        try:
            logits = numbers.of()
        except FerrumError as error:
            assert "\n" not in str(error) and str(numbers.place) in str(error), case
            if expected is not None:
                found[case] = "refused"
            continue
        if expected is None:
            base = rows[cases[case.partition(":")[0]] or 0]
            found[case] = "not refused" if np.abs(logits - base).max() < close else "not refused, other numbers"
        elif np.abs(logits - rows[expected]).max() > close:
            found[case] = "other numbers"
    return found


@pytest.fixture(scope="module")
def differences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of config.json, to transformers."""
    folder = tmp_path_factory.mktemp("odd")
    save_file(weights(), folder / "model.safetensors")
    texts = config_changes.all_changes()
    _, cases = golden("config_changes.json")
    assert texts.keys() == cases.keys()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        return outcomes(
            "config_changes.json",
            lambda case: (folder / "config.json").write_text(texts[case]) and None,
            Numbers(folder),
            cases,
            1e-3,
        )


@pytest.mark.clause("LOAD-81")
def test_no_odd_config_json_gives_other_numbers_than_transformers(differences: dict[str, str]) -> None:
    """But for frequencies that depend on length: those of the longest context that is served (MODEL-15)."""
    others = [case for case, how in differences.items() if how == "other numbers"]
    assert [case for case in others if not case.endswith(" dynamic")] == []


@pytest.mark.clause("LOAD-81")
def test_what_transformers_refuses_is_refused_unless_it_means_nothing_here(differences: dict[str, str]) -> None:
    lenient = {case for case, how in differences.items() if how.startswith("not refused")}
    explained = {case for case in lenient if case.split(": ")[1].split()[0] in HARMLESS or case.endswith(CLASS_TELLS)}
    assert lenient - explained == {"llama: rms_norm_eps int"}  # 1 is 1.0
    assert [case for case in explained if differences[case] != "not refused"] == []


STRICTER = {  # what is refused though transformers goes on, by the end of a case's name
    "a flag is no number": ("flag",),
    "no model has it": ("nought", "negative", "infinite"),
    "half a position": ("half",),
    "an odd list of classes": ("architectures text", "architectures list", "architectures object",
                               "architectures int", "architectures float"),
    "truncate is a flag": ("truncate text", "truncate list", "truncate object", "truncate int", "truncate float"),
    "not implemented": ("partial 0.5", "partial 0.5 outside", "proportional", "rope_parameters object",
                        "partial_rotary_factor = 0.5", "'rope_theta': 50.0}}", "'rope_theta': 50.0}}, named"),
    "null is no number": ("partial None",),
    "of other networks": ("experts = 8", "softcapping = 30.0", "query_pre_attn_scalar = 8",
                          "attention_multiplier = 0.5", "embedding_multiplier = 2.0", "logits_scaling = 2.0",
                          "residual_multiplier = 0.5", "is_encoder_decoder = true", "add_cross_attention = true",
                          "cross_attention_hidden_size = 8", 'pruned_heads = {"0": [0]}'),
    "engines differ about windows": ("sliding_window = 9", "sliding_window = 4096", "use_sliding_window = false",
                                     '["sliding_attention", "sliding_attention"]',
                                     '["full_attention", "sliding_attention"]'),
}  # fmt: skip


@pytest.mark.clause("LOAD-81")
def test_what_is_refused_beside_that_is_known(differences: dict[str, str]) -> None:
    ends = tuple(end for group in STRICTER.values() for end in group)
    refused = [case for case, how in differences.items() if how == "refused"]
    assert [case for case in refused if not case.endswith(ends)] == []
    assert [end for end in ends if not any(case.endswith(end) for case in refused)] == []


@pytest.fixture(scope="module")
def gguf_differences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of GGUF metadata, to llama.cpp."""
    path = tmp_path_factory.mktemp("odd") / "model.gguf"
    files = gguf_changes.all_changes()
    _, cases = golden("gguf_changes.json")
    assert files.keys() == cases.keys()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        return outcomes(
            "gguf_changes.json", lambda case: path.write_bytes(files[case]) and None, Numbers(path), cases, 2e-3
        )


@pytest.mark.clause("LOAD-81")
def test_no_odd_metadata_gives_other_numbers_than_llama_cpp(gguf_differences: dict[str, str]) -> None:
    assert [case for case, how in gguf_differences.items() if how == "other numbers"] == []


@pytest.mark.clause("LOAD-81")
def test_a_number_of_another_type_is_the_same_number(gguf_differences: dict[str, str]) -> None:
    """llama.cpp refuses it; here nothing but the number counts, and what is not read may be anything."""
    others = [case for case, how in gguf_differences.items() if how == "not refused, other numbers"]
    assert others == ["plain: llama.attention.layer_norm_rms_epsilon int"]  # 1 is 1.0


@pytest.mark.clause("LOAD-81")
def test_what_is_refused_of_metadata_is_known(gguf_differences: dict[str, str]) -> None:
    refused = {case.partition(": ")[2] or case for case, how in gguf_differences.items() if how == "refused"}
    changed = {case.split(" = ")[0] for case in refused if " = " in case}
    assert changed == {f"llama.{key}" for key in (
        "attention.causal", "attention.clamp_kqv", "attention.max_alibi_bias", "attention.scale",
        "attn_logit_softcapping", "final_logit_softcapping", "embedding_scale", "expert_weights_scale", "logit_scale",
        "residual_scale", "rope.scaling.alpha", "rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor",
        "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_log_multiplier", "use_parallel_residual",
    )}  # fmt: skip
    odd = {case for case in refused if " = " not in case} - {"scaling 'longrope'", "yarn with divisors"}
    assert [
        case for case in odd if not case.endswith(("nought", "infinite", "negative", "largest", "mixed list"))
    ] == []


GENERATION = {
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "temperature": 0.6, "top_p": 0.9, "top_k": 50,
    "do_sample": True, "max_length": 64, "repetition_penalty": 1.1, "transformers_version": "4.57.0",
    "suppress_tokens": [3], "_from_model_config": True, "unheard_of": 1.5,
}  # fmt: skip
IDS = ("bos_token_id", "eos_token_id")


@pytest.mark.clause("LOAD-82")
@pytest.mark.parametrize("key", GENERATION)
def test_an_odd_generation_config_changes_nothing_but_the_ends(tmp_path: Path, key: str) -> None:
    """transformers reads none of it before it generates."""
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "eos_token_id": 5}))
    for way, other in (*other_values(GENERATION[key]), ("same", GENERATION[key])):
        keys = {k: v for k, v in {**GENERATION, key: other}.items() if v is not ABSENT}
        (tmp_path / "generation_config.json").write_text(json.dumps(keys))
        files = open_model(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModelWarning)
            try:
                ends = files.config.eos_token_ids
            except FerrumError as error:
                assert key in IDS and key in str(error) and "\n" not in str(error), way
                continue
        if key != "eos_token_id":
            assert ends == (5, 2), way
        elif way in ("missing", "null", "negative"):
            assert ends == (5,), way
        else:
            assert (way, ends) in [("list", (5, 2)), ("doubled", (5, 4)), ("nought", (5, 0)), ("same", (5, 2))]


@pytest.mark.clause("LOAD-82")
def test_of_a_key_that_comes_twice_the_last_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 3, "eos_token_id": 7}')
    assert open_model(tmp_path).config.eos_token_ids == (2, 7)
