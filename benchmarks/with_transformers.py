"""The contestant transformers, on PyTorch: the model called directly with its key/value cache, in inference mode.

`generate` would add what is no arithmetic. Only last tokens go through the head. The model is a directory in the type
that is computed in. The setting `attention` is the implementation: sdpa or eager. Where bfloat16 is emulated a step may
take a second: decoding is broken off after a while, and the tokens of fewer steps count.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from tasks import MOST_SECONDS, Task, answer, make_prompts, repeated, say_first_token, told

WARM_UP = 4
"""Steps that do not count: nothing is compiled in them."""


def load(task: Task) -> Any:
    import torch
    import transformers

    torch.set_num_threads(task.threads)
    transformers.utils.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        task.model, dtype="auto", attn_implementation=task.settings.get("attention", "sdpa"), local_files_only=True
    )
    return model.eval()


def step(model: Any, tokens: Any, cache: Any) -> tuple[Any, Any]:
    """[sequences, tokens] -> the greedy token of each, [sequences, 1], and the cache with these tokens."""
    out = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values


def main() -> None:
    task = told()
    model = load(task)
    import torch

    def prompts(seed: int) -> Any:
        return torch.tensor(make_prompts(model.config.vocab_size, task.prompt_len, task.batch, seed))

    def once(seed: int) -> dict[str, float]:
        tokens = prompts(seed)
        started = perf_counter()
        tokens, cache = step(model, tokens, None)
        filled = perf_counter()
        if task.metric == "prefill":
            return {"tokens_s": task.batch * task.prompt_len / (filled - started)}
        done, most = 0, task.gen_len if seed else WARM_UP
        while done < most and perf_counter() - filled < MOST_SECONDS:
            tokens, cache = step(model, tokens, cache)
            done += 1
        return {"tokens_s": task.batch * done / (perf_counter() - filled)}

    with torch.inference_mode():
        if task.metric == "first_token":
            token = int(step(model, prompts(0), None)[0])
            say_first_token()
            answer(token=token)
        else:
            answer(**repeated(once, task.repeats))


if __name__ == "__main__":
    main()
