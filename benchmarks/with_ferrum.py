"""The contestant ferrum: the engine as a user runs it, with scheduler, sampling and text.

Besides, for decoding: the *kernel loop*, the recorded launches of one decode step replayed again and again with nothing
around them, in turns with the engine. What the engine adds to it is everything that is not arithmetic.
"""

from __future__ import annotations

from time import perf_counter

from tasks import Task, answer, make_prompts, make_texts, repeated, say_first_token, told


def main() -> None:
    task = told()
    if task.metric == "first_token":
        first_token(task)
    elif task.metric == "logits":
        write_logits(task)
    else:
        answer(**speed(task))


def first_token(task: Task) -> None:
    from ferrum import LLM, SamplingParams

    llm = LLM(task.model, threads=task.threads, compute=task.settings.get("compute", "float32"))
    (prompt,) = make_prompts(llm.config.vocab_size, task.prompt_len, 1, seed=0)
    params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
    with llm.stream(prompt, params) as stream:
        token = next(iter(stream)).token_id
        say_first_token()
    answer(token=token)


def write_logits(task: Task) -> None:
    import numpy as np

    llm = load(task)
    texts = make_texts(task, llm.config.vocab_size)
    np.save(task.settings["output"], np.concatenate([llm.logits(text) for text in texts]))
    answer(texts=len(texts))


def load(task: Task):  # type: ignore[no-untyped-def]  # -> LLM: imported late, its import is measured
    from ferrum import LLM

    sizes = {"max_num_seqs": max(task.batch, 1), "kv_memory": task.settings.get("kv_memory", "1GiB")}
    return LLM(task.model, threads=task.threads, compute=task.settings.get("compute", "float32"), **sizes)  # type: ignore[arg-type]


def speed(task: Task) -> dict[str, float]:
    """Tokens per second, of prefill or of decode, and of the kernel loop where there is one."""
    from ferrum.cli.bench import check_room, measure, prompts

    llm = load(task)
    prefills = task.metric == "prefill"
    generated = 1 if prefills else task.gen_len
    check_room(llm, task.prompt_len, generated, task.batch)

    def once(seed: int) -> dict[str, float]:
        prefill, decode = measure(llm, prompts(llm, task.prompt_len, task.batch, seed), generated)
        llm.scheduler.manager.gc()  # or memory would grow with every repeat
        if prefills:
            return {"tokens_s": prefill}
        return {"tokens_s": decode} | kernel_loop(llm, task.gen_len, task.batch)

    return repeated(once, task.repeats)


def kernel_loop(llm, steps: int, batch: int) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """Nothing where steps of this many sequences are not recorded. Blocks that were freed are written to: no sequence
    reads them any more."""
    recorded = [each for known in llm.runner.ops._recorded._known.values() for each in known.recordings.values()]
    if not recorded or recorded[-1] is None or len(recorded[-1].batch.token_ids) < batch:
        return {}
    tape = recorded[-1].tape  # the one used last: of the longest context
    started = perf_counter()
    for _ in range(steps):
        tape.replay(batch)
    return {"kernel_loop_tokens_s": batch * steps / (perf_counter() - started)}


if __name__ == "__main__":
    main()
