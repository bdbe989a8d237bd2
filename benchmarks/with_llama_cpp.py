"""The contestant llama.cpp, through the C interface that llama-cpp-python exposes: nothing of its Python is timed but
the filling of batches.

Prompts are one call of llama_decode in micro-batches of 512; all sequences of a step are one batch, each with a cache
of its own. Logits are wanted of last tokens only, and the greedy token is their argmax. As everywhere here, threads are
those asked for, for prompts as for single tokens. The setting `flash` turns flash attention on or off.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from tasks import Task, answer, make_prompts, repeated, say_first_token, told

MICRO_BATCH = 512


class Model:
    """A model with a context for so many sequences of so many tokens."""

    def __init__(self, task: Task) -> None:
        import llama_cpp
        import numpy as np

        self._c, self._np = llama_cpp, np
        self.quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.quiet, None)
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(task.model.encode(), llama_cpp.llama_model_default_params())
        prompts = task.batch * task.prompt_len
        self._context = llama_cpp.llama_init_from_model(self._model, self._parameters(task, prompts))
        if not self._context:
            raise RuntimeError(f"{task.model} cannot be loaded")
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(max(prompts, task.batch), 0, 1)

    def _parameters(self, task: Task, prompts: int):  # type: ignore[no-untyped-def]  # -> llama_context_params
        found = self._c.llama_context_default_params()
        found.n_ctx = task.batch * (task.prompt_len + task.gen_len + 8)  # shared out evenly
        found.n_batch, found.n_ubatch, found.n_seq_max = max(prompts, 32), MICRO_BATCH, task.batch
        found.n_threads = found.n_threads_batch = task.threads
        flash = {"on": self._c.LLAMA_FLASH_ATTN_TYPE_ENABLED, "off": self._c.LLAMA_FLASH_ATTN_TYPE_DISABLED}
        found.flash_attn_type = flash.get(task.settings.get("flash", ""), self._c.LLAMA_FLASH_ATTN_TYPE_AUTO)
        found.no_perf = True
        return found

    def forget(self) -> None:
        self._c.llama_memory_clear(self._c.llama_get_memory(self._context), True)

    def step(self, rows: Sequence[Sequence[int]], start: int) -> list[list[int]]:
        """Tokens of each sequence from position `start` on -> the greedy token of each, as a list of one."""
        batch, count = self._batch, 0
        for sequence, tokens in enumerate(rows):
            for offset, token in enumerate(tokens):
                batch.token[count], batch.pos[count] = token, start + offset
                batch.n_seq_id[count], batch.seq_id[count][0] = 1, sequence
                batch.logits[count] = offset == len(tokens) - 1
                count += 1
        batch.n_tokens = count
        if self._c.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        logits = self._np.ctypeslib.as_array(self._c.llama_get_logits(self._context), (len(rows), self.vocab_size))
        return [[int(token)] for token in logits.argmax(axis=1)]


def main() -> None:
    task = told()
    model = Model(task)
    if task.metric == "first_token":
        (token,) = model.step(make_prompts(model.vocab_size, task.prompt_len, 1, seed=0), 0)
        say_first_token()
        answer(token=token[0])
        return

    def once(seed: int) -> dict[str, float]:
        prompts = make_prompts(model.vocab_size, task.prompt_len, task.batch, seed)
        model.forget()
        started = perf_counter()
        tokens = model.step(prompts, 0)
        filled = perf_counter()
        if task.metric == "prefill":
            return {"tokens_s": task.batch * task.prompt_len / (filled - started)}
        for position in range(task.prompt_len, task.prompt_len + task.gen_len):
            tokens = model.step(tokens, position)
        return {"tokens_s": task.batch * task.gen_len / (perf_counter() - filled)}

    answer(**repeated(once, task.repeats))


if __name__ == "__main__":
    main()
