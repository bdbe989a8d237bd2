"""Makes tests/goldens/families/: small random models of every family, and what Hugging Face transformers says of them.

    python -m tests.goldens.make_family_goldens [NAME ...]

The models are those of tests/goldens/family_models.py; tests/model/families.py says what the files hold and computes
the weights, which are not stored. A seed is taken only if the model's answers can be compared: logits of a sane spread,
no near ties between tokens, and the same answers in double precision (so no near ties between experts either).
Needs torch and transformers (extra `oracle`).
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from tests.goldens.family_models import MODELS, Model
from tests.model.families import FOLDER, Golden, Tensors, seed_of, write_model

NEW_TOKENS = 12
SEEDS = 40
NEAR = 2e-3
"""Two logits that differ by less are a near tie."""
ROUNDING = 4e-6
"""How far float32 may be from float64, relative L2 a token: less than half of what tests allow."""
NEOX_KEYS = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}


class Unfit(Exception):
    """The model's answers say too little, or cannot be compared."""


@dataclass(frozen=True)
class Answers:
    logits: np.ndarray  # float32 [tokens, vocab]
    greedy: list[int]


def make_golden(model: Model) -> tuple[Golden, Answers]:
    written, config, tensors = stored_form(model)
    golden, answers = fit(Golden(model.name, config, tensors, 0, [0] * model.tokens, []), seed_of(model.name))
    plain = ask(replace(golden, config=written))
    assert np.array_equal(plain.logits, answers.logits), f"{model.name}: config.json says something else"
    return golden, answers


def fit(golden: Golden, seed: int) -> tuple[Golden, Answers]:
    """The model with the first seed from `seed` on whose answers can be compared; the prompt is as long as it was."""
    for number in range(seed, seed + SEEDS):
        tokens = np.random.RandomState(number).randint(0, golden.config["vocab_size"], len(golden.tokens)).tolist()
        trial = replace(golden, seed=number, tokens=tokens)
        try:
            answers = ask(trial)
        except Unfit as reason:
            print(f"  {golden.name}, seed {number}: {reason}")
            continue
        return replace(trial, greedy=answers.greedy), answers
    raise Unfit(f"{golden.name}: no seed is fit")


def stored_form(model: Model) -> tuple[dict[str, Any], dict[str, Any], Tensors]:
    """config.json as transformers 5 writes it, and as the golden has it; the tensors that `save_pretrained` writes."""
    config = AutoConfig.for_model(model.kind, **model.config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        AutoModelForCausalLM.from_config(config, dtype=getattr(torch, model.dtype)).save_pretrained(folder)
        told = json.loads((folder / "config.json").read_text())
        arrays = load_file(folder / "model.safetensors")
    tensors = {name.removeprefix(model.strip): (str(x.dtype), x.shape) for name, x in sorted(arrays.items())}
    written = copy.deepcopy(told)
    if model.old_dialect:
        to_old_dialect(told, model.old_rope_name)
    for key in model.drop:
        del told[key]
    return written, {**told, **model.say}, tensors


def to_old_dialect(config: dict[str, Any], rope_name: str) -> None:
    """config.json as transformers 4 wrote it; `rope_name`: the kind of RoPE under the key "type", as still older ones
    had it."""
    neox = config["model_type"] == "gpt_neox"
    ropes = config.pop("rope_parameters", {})
    rope = ropes.get("full_attention", ropes)
    if "sliding_attention" in ropes and config["model_type"] == "gemma3_text":
        config["rope_local_base_freq"] = ropes["sliding_attention"]["rope_theta"]
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in rope:
            config[NEOX_KEYS[key] if neox else key] = rope.pop(key)
    if "original_max_position_embeddings" in config:  # Phi-3
        rope.pop("original_max_position_embeddings", None)
    config["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else rope
    if rope_name:
        rope["type"] = rope_name
        del rope["rope_type"]
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.50.0"


def ask(golden: Golden) -> Answers:
    """What transformers says of a model that it reads from a directory. Raises Unfit."""
    with tempfile.TemporaryDirectory() as name:
        model = load(write_model(golden, Path(name)), golden, torch.float32)
        precise = load(Path(name), golden, torch.float64)
    logits = forward(model, golden.tokens)
    if not 0.3 < logits.std() < 5:
        raise Unfit(f"logits of spread {logits.std():.2f} hide or exaggerate errors")
    distance = relative(logits, forward(precise, golden.tokens)).max()
    if distance > ROUNDING:
        raise Unfit(f"float32 is {distance:.1e} from float64")
    return Answers(logits, continuation(model, golden.tokens))


def load(folder: Path, golden: Golden, dtype: torch.dtype) -> Any:
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager", output_loading_info=True
    )
    assert model.config.model_type == golden.config["model_type"]
    for problem in ("missing_keys", "mismatched_keys", "unexpected_keys", "error_msgs"):
        assert not report[problem], f"{golden.name}: {problem} {report[problem]}"
    return model.eval()


def forward(model: Any, tokens: list[int]) -> np.ndarray:
    """[tokens, vocab], teacher forced, all tokens in one step."""
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0].numpy()


def relative(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x - y, axis=1) / np.linalg.norm(y, axis=1)


def continuation(model: Any, tokens: list[int]) -> list[int]:
    """Greedily, NEW_TOKENS of them. Each step computes all of a sequence of the final length, whose unknown end no
    earlier token sees: so RoPE that depends on the length is the same in every step."""
    sequence = tokens + [0] * NEW_TOKENS
    for place in range(len(tokens), len(sequence)):
        logits = forward(model, sequence)[place - 1]
        second, first = np.sort(logits)[-2:]
        if first - second < NEAR * logits.std():
            raise Unfit("two tokens are almost equally likely")
        sequence[place] = int(logits.argmax())
    if len(set(sequence[len(tokens) :])) < NEW_TOKENS // 3:
        raise Unfit("the continuation repeats itself")
    return sequence[len(tokens) :]


def as_json(golden: Golden) -> str:
    """One tensor a line."""
    tensors = ",\n".join(f"  {json.dumps(name)}: {json.dumps(form)}" for name, form in golden.tensors.items())
    parts = {"config": golden.config, "seed": golden.seed, "tokens": golden.tokens, "greedy": golden.greedy}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in parts.items()]
    return "{\n" + ",\n".join([*lines, f' "tensors": {{\n{tensors}\n }}']) + "\n}\n"


def main(names: list[str]) -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for model in MODELS:
        if names and model.name not in names:
            continue
        golden, answers = make_golden(model)
        (FOLDER / f"{model.name}.json").write_text(as_json(golden))
        np.savez_compressed(FOLDER / f"{model.name}.npz", logits=answers.logits)
        print(model.name, golden.seed, f"{answers.logits.std():.2f}", len(set(golden.greedy)), "tokens")


if __name__ == "__main__":
    main(sys.argv[1:])
