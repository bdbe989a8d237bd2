"""Vision models: their text model is run, with either naming of tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum.engine.llm import LLM
from ferrum.errors import ModelError, ModelWarning, Unsupported
from ferrum.load.model import load_model, open_model
from tests.model.families import FAMILIES, write_weights

PICTURES = np.ones((3, 4), np.float32)
OLDER = ("language_model.model.", "language_model.lm_head", "vision_tower.patch.weight")
NEWER = ("model.language_model.", "lm_head", "model.vision_tower.patch.weight")


def write(folder: Path, name: str, kind: str, naming: tuple[str, str, str], **changes: Any) -> Path:
    """Writes the golden as the text part of a vision model."""
    golden, (inner, head, pictures) = FAMILIES[name], naming
    arrays = {
        f"{inner}{key.removeprefix('model.')}" if key.startswith("model.") else key.replace("lm_head", head): array
        for key, array in golden.weights().items()
    }
    folder.mkdir()
    write_weights({**arrays, pictures: PICTURES}, folder / "model.safetensors")
    text = {key: value for key, value in golden.config.items() if key not in ("architectures", "torch_dtype", "dtype")}
    config = {
        "architectures": ["SeesForConditionalGeneration"],
        "model_type": kind,
        "text_config": text,
        "vision_config": {"hidden_size": 4},
        "image_token_index": 5,
        "eos_token_id": [1, 2],
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


CASES = [
    ("gemma3-wide", "gemma3"),
    ("gemma3-odd", "gemma3"),
    ("ministral3-wide", "mistral3"),
    ("mistral-wide", "mistral3"),
]


@pytest.mark.clause("LOAD-95")
@pytest.mark.parametrize("naming", [OLDER, NEWER], ids=["older", "newer"])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_text_of_a_model_that_sees_is_run(name: str, kind: str, naming: Any, tmp_path: Path) -> None:
    golden = FAMILIES[name]
    folder = write(tmp_path / "model", name, kind, naming)
    with pytest.warns(ModelWarning, match="'vision_config'; of this model only the text is run") as told:
        llm = LLM(str(folder), backend="numpy", kv_memory="4MiB")
        logits = llm.logits(golden.tokens)
    assert len(told) == 1
    assert np.linalg.norm(logits - golden.logits) < 1e-5 * np.linalg.norm(golden.logits)
    assert {1, 2} <= set(llm.config.eos_token_ids)


@pytest.mark.clause("LOAD-95")
def test_a_text_config_may_say_only_what_is_different(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "model", "gemma3-wide", "gemma3", NEWER, text_config={"hidden_size": 64, "sliding_window": 9}
    )
    with pytest.warns(ModelWarning):
        config = open_model(folder).config
    assert (config.architecture, config.layers, config.heads, config.kv_heads) == ("gemma3_text", 26, 8, 4)
    assert (config.vocab_size, config.intermediate_size, config.hidden_size, config.head_dim) == (262208, 9216, 64, 256)


@pytest.mark.clause("LOAD-95")
@pytest.mark.filterwarnings("ignore::ferrum.errors.ModelWarning")
@pytest.mark.parametrize("outside", [True, False])
def test_a_tied_head_of_both_counts_where_the_text_says_nothing(outside: bool, tmp_path: Path) -> None:
    def tied(folder: str, **said: Any) -> bool:
        own = {key: value for key, value in FAMILIES["mistral-wide"].config.items() if key != "tie_word_embeddings"}
        changes = {"text_config": {**own, **said}, "tie_word_embeddings": outside}
        return open_model(write(tmp_path / folder, "mistral-wide", "mistral3", NEWER, **changes)).config.tie_embeddings

    assert tied("silent") == outside
    assert tied("speaks", tie_word_embeddings=not outside) == (not outside)


@pytest.mark.clause("LOAD-95")
@pytest.mark.filterwarnings("ignore::ferrum.errors.ModelWarning")
def test_a_tensor_of_the_text_is_still_missed_or_left_over(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "gemma3-wide", "gemma3", NEWER)
    arrays = {
        f"model.language_model.{key.removeprefix('model.')}": a for key, a in FAMILIES["gemma3-wide"].weights().items()
    }
    norm = "model.language_model.layers.0.self_attn.q_norm.weight"
    write_weights({key: array for key, array in arrays.items() if key != norm}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.layers\.0\.self_attn\.q_norm\.weight is missing"):
        load_model(folder)
    write_weights({**arrays, "model.language_model.extra.weight": PICTURES}, folder / "model.safetensors")
    with pytest.raises(Unsupported, match=r"model\.extra\.weight has no place"):
        load_model(folder)
    write_weights({**arrays, "model.something.weight": PICTURES}, folder / "model.safetensors")
    with pytest.raises(Unsupported, match=r"model\.something\.weight has no place"):
        load_model(folder)
