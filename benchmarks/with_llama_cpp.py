"""The contestant llama.cpp, through the C interface that llama-cpp-python exposes: nothing of its Python is timed but
the filling of batches.

Prompts are one call of llama_decode in micro-batches of 512; all sequences of a step are one batch, each with a cache
of its own. Logits are wanted of last tokens only, and the greedy token is their argmax. As everywhere here, threads are
those asked for, for prompts as for single tokens. The setting `flash` turns flash attention on or off.
`with_ik_llama_cpp.py` measures the fork ik_llama.cpp in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from tasks import Task, answer, make_prompts, make_texts, repeated, say_first_token, told

MICRO_BATCH = 512


class Model:
    """A model with a context for so many sequences of so many tokens."""

    def __init__(self, task: Task) -> None:
        import numpy as np

        self._np, self._c = np, self._library()
        self._c.llama_backend_init()
        self._model = self._c.llama_model_load_from_file(task.model.encode(), self._model_parameters(task))
        prompts = task.batch * task.prompt_len
        self._context = self._c.llama_init_from_model(self._model, self._parameters(task, prompts))
        if not self._context:
            raise RuntimeError(f"{task.model} cannot be loaded")
        self.vocab_size = self._c.llama_vocab_n_tokens(self._c.llama_model_get_vocab(self._model))
        self._batch = self._c.llama_batch_init(max(prompts, task.batch), 0, 1)

    def _library(self) -> Any:
        import llama_cpp

        self.quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.quiet, None)
        return llama_cpp

    def _model_parameters(self, task: Task) -> Any:
        return self._c.llama_model_default_params()

    def _parameters(self, task: Task, prompts: int) -> Any:
        found = self._c.llama_context_default_params()
        found.n_ctx = task.batch * (task.prompt_len + task.gen_len + 8)  # shared out evenly
        found.n_batch, found.n_ubatch, found.n_seq_max = max(prompts, 32), MICRO_BATCH, task.batch
        found.n_threads = found.n_threads_batch = task.threads
        self._set_flash(found, task.settings.get("flash", ""))
        return found

    def _set_flash(self, found: Any, flash: str) -> None:
        c = self._c
        values = {"on": c.LLAMA_FLASH_ATTN_TYPE_ENABLED, "off": c.LLAMA_FLASH_ATTN_TYPE_DISABLED}
        found.flash_attn_type = values.get(flash, c.LLAMA_FLASH_ATTN_TYPE_AUTO)
        found.no_perf = True

    def forget(self) -> None:
        self._c.llama_memory_clear(self._c.llama_get_memory(self._context), True)

    def step(self, rows: Sequence[Sequence[int]], start: int) -> list[list[int]]:
        """Tokens of each sequence from position `start` on -> the greedy token of each, as a list of one."""
        return [[int(token)] for token in self.logits(rows, start).argmax(axis=1)]

    def logits(self, rows: Sequence[Sequence[int]], start: int, *, of_all: bool = False) -> Any:
        """Float32 [sequences, vocabulary] after the last tokens, or [tokens, vocabulary] after all of one sequence."""
        batch, count = self._batch, 0
        for sequence, tokens in enumerate(rows):
            for offset, token in enumerate(tokens):
                batch.token[count], batch.pos[count] = token, start + offset
                batch.n_seq_id[count], batch.seq_id[count][0] = 1, sequence
                batch.logits[count] = of_all or offset == len(tokens) - 1
                count += 1
        batch.n_tokens = count
        if self._c.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        shape = (count if of_all else len(rows), self.vocab_size)
        return self._np.ctypeslib.as_array(self._c.llama_get_logits(self._context), shape)


def main() -> None:
    task = told()
    measure(task, Model(task))


def write_logits(task: Task, model: Model) -> None:
    import numpy as np

    found = []
    for text in make_texts(task, model.vocab_size):
        model.forget()
        found.append(model.logits([text], 0, of_all=True).copy())
    np.save(task.settings["output"], np.concatenate(found))
    answer(texts=len(found))


def measure(task: Task, model: Model) -> None:
    """Whatever the task asks for."""
    if task.metric == "logits":
        write_logits(task, model)
        return
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
