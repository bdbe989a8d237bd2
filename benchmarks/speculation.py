"""What speculative decoding brings: tokens per second with it and without, on answers that repeat their question and on
free prose; and what a step of several tokens takes, from which the engine decides how many to propose.

    python benchmarks/speculation.py smollm2-135m-instruct --threads 2 --speculate ngram
    python benchmarks/speculation.py model.gguf --compute int8

Every question is answered greedily with and without, in turns, by the same engine, which has read the question before:
what goes first goes second in the next round. A ratio is that of a pair, of the time after the first token. Both
answers must be the same. Writes JSON to benchmarks/results; with --quick, which is for trying it out, only where
--output says.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from time import perf_counter
from typing import Any

from results import keep, spread, summary, surroundings
from speculation_prompts import QUESTIONS

from ferrum import LLM, SamplingParams
from ferrum.sched.plan import Chunk, StepPlan
from ferrum.sched.sequence import TokenSequence
from ferrum.types import Completion

STEPS = (1, 2, 3, 4, 5, 8, 12, 16)
CONTEXT = 300


def answer(llm: LLM, question: str, speculate: str, max_tokens: int) -> Completion:
    params = SamplingParams(temperature=0, max_tokens=max_tokens, speculate=speculate)
    (found,) = llm.chat([[{"role": "user", "content": question}]], params)
    return found


def pairs(llm: LLM, questions: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Ratios and rates over all questions of a kind. A round that compiles and reads is not counted."""
    rates: dict[str, list[float]] = {"off": [], options.speculate: []}
    ratios: list[float] = []
    proposed = accepted = tokens = 0
    for number in range(options.rounds + 1):
        for question in questions:
            order = sorted(rates, reverse=number % 2 == 1)
            found = {how: answer(llm, question, how, options.max_tokens) for how in order}
            first, second = found.values()
            if first.token_ids != second.token_ids:
                raise RuntimeError(f"with and without speculation the answers differ: {first.text!r}, {second.text!r}")
            if number:
                speeds = {how: one.timings.decode_tok_s for how, one in found.items()}
                ratios.append(speeds[options.speculate] / speeds["off"])
                for how, speed in speeds.items():
                    rates[how].append(speed)
                usage = found[options.speculate].usage
                proposed, accepted = proposed + usage.draft_tokens, accepted + usage.accepted_tokens
                tokens += usage.completion_tokens
    told = {"tokens": tokens, "proposed": proposed, "accepted": accepted}
    return told | {"ratio": summary(ratios), "off": summary(rates["off"]), "on": summary(rates[options.speculate])}


def steps(llm: LLM, rounds: int) -> dict[int, float]:
    """The time of a step of so many tokens in that of a step of one, medians, in turns."""
    manager, times = llm.scheduler.manager, {count: [] for count in STEPS}  # type: ignore[var-annotated]
    sequence = TokenSequence([7 + number % 97 for number in range(CONTEXT)], SamplingParams(), 0)
    sequence.table = manager.new_table()
    manager.reserve(sequence.table, 0, CONTEXT + max(STEPS))
    llm.runner.run(StepPlan((Chunk(sequence, 0, CONTEXT - 1, 0),)))
    for number in range(3 * rounds + 1):
        for count in STEPS:
            began = perf_counter()
            llm.runner.run(StepPlan((Chunk(sequence, CONTEXT - 1, 1, 1, (9,) * (count - 1)),)))
            if number:  # the first one is recorded
                times[count].append(perf_counter() - began)
    manager.close(sequence.table)
    return {count: statistics.median(found) / statistics.median(times[1]) for count, found in times.items()}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compute", default="float32")
    parser.add_argument("--speculate", default="ngram")
    parser.add_argument("--draft-model")
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="2 rounds")
    parser.add_argument("--output", type=Path, help="the folder for results")
    options = parser.parse_args()
    options.rounds = 2 if options.quick else options.rounds
    return options


def main() -> None:
    options = parse()
    llm = LLM(
        options.model, threads=options.threads, compute=options.compute, draft_model=options.draft_model,
        kv_memory="256MiB",
    )  # fmt: skip
    times = steps(llm, options.rounds)
    print("a step of so many tokens takes, in steps of one: " + ", ".join(f"{n}: {t:.2f}" for n, t in times.items()))
    found = {kind: pairs(llm, questions, options) for kind, questions in QUESTIONS.items()}
    print(f"{'answers':8}  {'ratio':18}  {'tokens/s off':20}  {options.speculate:20}  proposed, accepted of all tokens")
    for kind, one in found.items():
        print(f"{kind:8}  {spread(one['ratio'], digits=2):18}  {spread(one['off']):20}  {spread(one['on']):20}  "
              f"{one['proposed'] / one['tokens']:.2f}, {one['accepted'] / one['tokens']:.2f}")  # fmt: skip
    results = surroundings() | {name: getattr(options, name) for name in ("threads", "compute", "speculate", "rounds")}
    results |= {"model": llm.model_name, "dtype": llm.dtype_name, "steps": times, "results": found}
    keep(results, "speculation", options.output, options.quick)


if __name__ == "__main__":
    main()
