"""Published config.json files, made small, against transformers: `pytest -m oracle`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ferrum.engine.llm import LLM
from tests.load.real_configs import REAL, TOKENS, VOCAB, shrunk, text_of
from tests.model.families import tokenizer

pytestmark = pytest.mark.oracle
RUN = [name for name, case in REAL.items() if case["means"] is not None]


@pytest.mark.clause("MODEL-01", "LOAD-90")
@pytest.mark.filterwarnings("ignore::ferrum.errors.ModelWarning")
@pytest.mark.parametrize("name", RUN)
def test_a_small_model_of_a_published_file_says_what_transformers_says(name: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tests.goldens.make_real_configs import make_config

    small = shrunk(text_of(REAL[name]["config"]))
    torch.manual_seed(0)
    auto = transformers.AutoModelForCausalLM
    model = auto.from_config(make_config(small), attn_implementation="eager")
    with torch.no_grad():
        for part, weight in model.named_parameters():
            small_change = "norm" in part or "ln_" in part or "bias" in part or "sinks" in part
            scale = 0.2 if small_change else 0.1 if "embed" in part or "wte" in part else 1.2 / weight.shape[-1] ** 0.5
            weight.copy_(small_change * weight + scale * torch.randn_like(weight))
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({key: small[key] for key in small if key != "auto_map"}))
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer(VOCAB)))
    model = auto.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")  # reads the file
    with torch.no_grad():
        wanted = model.eval()(torch.tensor([TOKENS]), use_cache=False).logits[0].numpy()
    found = LLM(str(tmp_path), backend="numba", kv_memory="8MiB", max_model_len=len(TOKENS)).logits(TOKENS)
    assert np.linalg.norm(found - wanted) < 1e-5 * np.linalg.norm(wanted)
