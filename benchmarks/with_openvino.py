"""The contestant OpenVINO GenAI, which reads the GGUF file itself and makes a model of its own of it.

Making it takes longer than all that is measured: it is saved once, in a folder beside the file, and loaded from there.
One sequence goes through `LLMPipeline`, several through `ContinuousBatchingPipeline`. Times of one are those that the
library reports of its tokens; of several, that of whole answers, less that of answers of one token. The setting
`attention` is PA (paged) or SDPA, for one sequence. Logits are read from the saved model, because GenAI gives none.
Keys and values are stored in 8 bits, as is usual there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from tasks import Task, answer, make_prompts, make_texts, repeated, told

SAVED = "openvino_model.xml"


def folder_of(task: Task) -> Path:
    """Where the saved model is, made when it is first asked for."""
    import openvino_genai

    source = Path(task.model)
    folder = source.with_name(f"{source.stem}-openvino")
    if not (folder / SAVED).exists():
        folder.mkdir(exist_ok=True)
        link = folder / source.name
        if not link.exists():
            link.symlink_to(source)
        openvino_genai.LLMPipeline(str(link), "CPU", enable_save_ov_model=True)
    return folder


def vocab_size_of(task: Task) -> int:
    """As the saved model has it: the width of its logits."""
    import openvino

    shape = openvino.Core().read_model(folder_of(task) / SAVED).output("logits").partial_shape
    return int(shape[2].get_length())


def configuration(task: Task, generated: int) -> Any:
    import openvino_genai

    found = openvino_genai.GenerationConfig()
    found.max_new_tokens, found.ignore_eos, found.do_sample, found.apply_chat_template = generated, True, False, False
    return found


def generate_one(task: Task, generated: int) -> Any:
    """A function: a prompt -> the result for a single sequence."""
    import numpy as np
    import openvino
    import openvino_genai

    properties = {"INFERENCE_NUM_THREADS": task.threads, "ATTENTION_BACKEND": task.settings.get("attention", "PA")}
    pipeline = openvino_genai.LLMPipeline(str(folder_of(task)), "CPU", **properties)
    chosen = configuration(task, generated)
    return lambda prompts: pipeline.generate(openvino.Tensor(np.array(prompts, np.int64)), chosen)


def generate_many(task: Task) -> Any:
    """A function: prompts and a number of tokens -> the results, one for each sequence."""
    import numpy as np
    import openvino
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs, scheduler.max_num_batched_tokens = task.batch, max(task.batch * task.prompt_len, 256)
    scheduler.cache_size = 1  # GB
    pipeline = openvino_genai.ContinuousBatchingPipeline(
        str(folder_of(task)), scheduler, "CPU", {"INFERENCE_NUM_THREADS": task.threads}
    )

    def generate(prompts: Sequence[Sequence[int]], generated: int) -> Any:
        ids = [openvino.Tensor(np.array([one], np.int64)) for one in prompts]
        return pipeline.generate(ids, [configuration(task, generated)] * task.batch)

    return generate


def speed_of_one(task: Task) -> dict[str, float]:
    """Of a prompt until its first token, or of the tokens after it."""
    vocab_size, prefills = vocab_size_of(task), task.metric == "prefill"
    generate = generate_one(task, 1 if prefills else task.gen_len + 1)

    def once(seed: int) -> dict[str, float]:
        metrics = generate(make_prompts(vocab_size, task.prompt_len, 1, seed)).perf_metrics
        if prefills:
            return {"tokens_s": task.prompt_len * 1000 / metrics.get_ttft().mean}
        return {"tokens_s": 1000 / metrics.get_tpot().mean}

    return repeated(once, task.repeats)


def speed_of_many(task: Task) -> dict[str, float]:
    """Of all sequences together, after their first tokens."""
    vocab_size, generate = vocab_size_of(task), generate_many(task)

    def once(seed: int) -> dict[str, float]:
        prompts = make_prompts(vocab_size, task.prompt_len, task.batch, seed)
        started = perf_counter()
        generate(prompts, 1)
        first = perf_counter()
        results = generate(prompts, task.gen_len + 1)
        assert all(len(result.m_generation_ids[0]) == task.gen_len + 1 for result in results)
        return {"tokens_s": task.batch * task.gen_len / ((perf_counter() - first) - (first - started))}

    return repeated(once, task.repeats)


def write_logits(task: Task) -> None:
    import numpy as np
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(folder_of(task) / SAVED, "CPU", {"INFERENCE_NUM_THREADS": task.threads})
    names: Sequence[str] = [one.get_any_name() for one in compiled.inputs]
    found = []
    for text in make_texts(task, vocab_size_of(task)):
        ids = np.array([text], np.int64)
        known: Mapping[str, Any] = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": np.arange(len(text), dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        request = compiled.create_infer_request()
        found.append(request.infer({name: known[name] for name in names})["logits"][0].copy())
    np.save(task.settings["output"], np.concatenate(found))
    answer(texts=len(found))


if __name__ == "__main__":
    task = told()
    if task.metric == "logits":
        write_logits(task)
    else:
        answer(**(speed_of_one(task) if task.batch == 1 else speed_of_many(task)))
