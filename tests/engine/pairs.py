"""Two threads and one `LLM`: every pair of calls at the same time, each with the answer that it has alone.

`python -m tests.engine.pairs --rounds 200` makes each pair 200 times; the tests make it a few times.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np

from ferrum import LLM, SamplingParams
from ferrum.backends.registry import load_backend
from ferrum.config import EngineConfig
from ferrum.text.byte_tokenizer import ByteTokenizer
from ferrum.text.template_names import ChatTemplates
from tests.tiny import TinyModel, tiny_config, tiny_params

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
SAMPLED = SamplingParams(seed=7, n=2, max_tokens=9, ignore_eos=True, logprobs=2, repetition_penalty=1.2)
TEXT = list(range(2, 42))


def make(backend: str = "numba", threads: int = 2) -> LLM:
    """An `LLM` with a random model so large that kernels run in several threads."""
    config = tiny_config(hidden_size=128, intermediate_size=256, heads=4, kv_heads=2, head_dim=32, max_positions=256)
    templates = ChatTemplates({"default": "{% for m in messages %}{{ m.content }}{% endfor %}"})
    model = TinyModel(config, tiny_params(config), ByteTokenizer(), templates)
    ops = load_backend(backend, threads=threads) if backend == "numba" else load_backend(backend)
    return LLM.from_loaded(model, ops, EngineConfig(kv_memory=1 << 22, max_num_batched_tokens=32))


class Calls:
    """The public calls of one `LLM`, by name. Each returns a value that can be compared."""

    def __init__(self, llm: LLM, folder: Path) -> None:
        self.llm, self.folder = llm, folder
        self.saved = folder / "saved"
        llm.save_prefix(TEXT, self.saved)

    def generate(self) -> Any:
        return [(each.text, each.token_ids) for each in self.llm.generate([TEXT, TEXT[5:]], GREEDY)]

    def sample(self) -> Any:
        (answer,) = self.llm.generate([TEXT], SAMPLED)
        return [(choice.token_ids, choice.finish_reason) for choice in answer.choices]

    def chat(self) -> Any:
        return self.llm.chat([{"role": "user", "content": "abc" * 5}], GREEDY)[0].token_ids

    def stream(self) -> Any:
        return [chunk.token_id for chunk in self.llm.stream(TEXT[3:], GREEDY)]

    def left_stream(self) -> Any:
        """The first token of a stream that is not read to its end."""
        return next(self.llm.stream(TEXT[7:], GREEDY)).token_id

    def logits(self) -> Any:
        return np.asarray(self.llm.logits(TEXT)).argmax(-1).tolist()

    def save_prefix(self) -> Any:
        return self.llm.save_prefix(TEXT, self.folder / str(threading.get_ident()))

    def load_prefix(self) -> Any:
        return self.llm.load_prefix(self.saved)

    def stats(self) -> Any:
        return self.llm.stats().device.total

    def names(self) -> list[str]:
        return [name for name, value in vars(Calls).items() if name[0] != "_" and name != "names" and callable(value)]


def together(calls: list[Callable[[], Any]], repeats: int = 1) -> list[list[Any]]:
    """For each call what it returns or raises. Each is made `repeats` times in its own thread, all at the same time."""
    results: list[list[Any]] = [[] for _ in calls]
    start = threading.Barrier(len(calls))

    def run(index: int) -> None:
        start.wait()
        for _ in range(repeats):
            try:
                results[index].append(calls[index]())
            except Exception as error:
                results[index].append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def wrong(rounds: int, backend: str = "numba") -> list[str]:
    """Makes every pair of calls `rounds` times. Returns a line for each call with another answer than it has alone."""
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        calls = Calls(make(backend), Path(folder))
        alone = {name: getattr(calls, name)() for name in calls.names()}
        for first, second in combinations_with_replacement(calls.names(), 2):
            results = together([getattr(calls, first), getattr(calls, second)], rounds)
            for name, answers in zip((first, second), results, strict=True):
                bad = [answer for answer in answers if repr(answer) != repr(alone[name])]
                found += [f"{name} beside {second if name == first else first}: {bad[0]!r}"] if bad else []
        calls.llm.engine.step()
        stats = calls.llm.stats()
        if stats.device.held or stats.running or stats.waiting:
            found.append(f"something is left: {stats}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--backend", default="numba")
    given = parser.parse_args()
    found = wrong(given.rounds, given.backend)
    pairs = len(list(combinations_with_replacement([name for name in vars(Calls) if name[0] != "_"], 2)))
    sys.stdout.write("\n".join(found) or f"every pair, {given.rounds} rounds each: all answers as alone\n")
    sys.exit(bool(found) or pairs == 0)


if __name__ == "__main__":
    main()
