"""Makes smollm2_greedy.json: greedy continuations of a real model by Hugging Face transformers in float32.

    python tests/goldens/make_real_goldens.py path/to/SmolLM2-135M-Instruct.Q4_1.gguf

For each prompt: its text or messages, its ids, the next 40 ids by argmax (an end of turn does not stop them), and for
every step the gap between the two largest logits. Two right implementations may part where the gap is tiny, and never
before. transformers ignores how this tokenizer splits digits; see `make_tokenizer_goldens.py`.
Needs torch, transformers, accelerate and gguf (extra `oracle`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

NEW_TOKENS = 40
PROMPTS: list[str | list[dict[str, str]]] = [
    "Gravity is",
    "Once upon a time, in a village by the sea, there lived",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "Der schnelle braune Fuchs springt über",
    "Les élèves apprennent à compter : 1, 2, 3, 42, 2024. Наука — это",
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "Why is the sky blue? 天空为什么是蓝色的？"},
        {"role": "assistant", "content": "Because air scatters blue light the most."},
        {"role": "user", "content": "And at sunset?"},
    ],
]


def load(path: Path) -> tuple[Any, Any]:
    """-> tokenizer and float32 model, dequantised from the file."""
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return tokenizer, model.eval()


def encode(tokenizer: Any, prompt: str | list[dict[str, str]]) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer.encode(prompt, add_special_tokens=False)
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]


@torch.no_grad()
def continue_greedily(model: Any, prompt_ids: list[int]) -> tuple[list[int], list[float]]:
    """-> the next ids, and the gap between the two largest logits that chose each."""
    cache, feed = None, prompt_ids
    chosen: list[int] = []
    gaps: list[float] = []
    for _ in range(NEW_TOKENS):
        out = model(torch.tensor([feed]), past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        best = torch.topk(out.logits[0, -1], 2)
        chosen.append(int(best.indices[0]))
        gaps.append(round(float(best.values[0] - best.values[1]), 4))
        feed = chosen[-1:]
    return chosen, gaps


def main(path: Path) -> None:
    """Writes the golden beside this script."""
    tokenizer, model = load(path)
    lines = []
    for prompt in PROMPTS:
        prompt_ids = encode(tokenizer, prompt)
        greedy_ids, gaps = continue_greedily(model, prompt_ids)
        entry = {"prompt": prompt, "prompt_ids": prompt_ids, "greedy_ids": greedy_ids, "gaps": gaps}
        lines.append(json.dumps(entry, ensure_ascii=False))
        print(repr(tokenizer.decode(greedy_ids)), "smallest gap", min(gaps))
    target = Path(__file__).with_name("smollm2_greedy.json")
    target.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    print(f"{target.name}: {len(lines)} prompts")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
