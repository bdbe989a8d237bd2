"""What a shared prefix costs with prefix caching and without: prompt tokens computed, and time to the first token.

    python benchmarks/shared_prefix.py smollm2-135m-instruct --threads 2 --requests 16 --prefix 512

The prompts are the same random tokens, then a few of their own. They come one after the other, each when the one before
it is answered, or all at once; answers are a few greedy tokens, and no end-of-sequence token ends them early. Each
round has new tokens for either way of coming, so that nothing is known from before, and both engines, one with prefix
caching and one without, answer the same prompts in turns: the one that goes first is the other one in the next round.

Computed tokens are those of the prompt that were not in memory (usage.cached_tokens); the engine's own count of all it
computed must agree. The time to the first token begins when a request is submitted: of those that come all at once,
most wait. Writes JSON to benchmarks/results; with --quick, which is for trying it out, only where --output says.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from results import keep, summary, surroundings

from ferrum import LLM, SamplingParams
from ferrum.types import Completion

OWN = 8  # tokens of each prompt that no other has
GREEDY = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
USUAL = {"requests": 16, "prefix": 512, "rounds": 5}
QUICK = {"requests": 4, "prefix": 128, "rounds": 1}
WAYS = ("one after the other", "all at once")
CACHING = {"with": True, "without": False}


def make_prompts(rng: random.Random, vocab_size: int, requests: int, prefix: int) -> list[list[int]]:
    """Prompts that have their first tokens in common with each other, and with nothing else."""
    shared = [rng.randrange(vocab_size) for _ in range(prefix)]
    return [shared + [rng.randrange(vocab_size) for _ in range(OWN)] for _ in range(requests)]


def answer(llm: LLM, prompts: list[list[int]], way: str) -> list[Completion]:
    if way == "all at once":
        return llm.generate(prompts, GREEDY)
    return [llm.generate([prompt], GREEDY)[0] for prompt in prompts]


def measure(llm: LLM, prompts: list[list[int]], way: str) -> dict[str, Any]:
    """Per request, in order of submission: prompt tokens computed and seconds to the first token."""
    before, start = llm.stats(), perf_counter()
    completions = answer(llm, prompts, way)
    seconds, after = perf_counter() - start, llm.stats()
    computed = [one.usage.prompt_tokens - one.usage.cached_tokens for one in completions]
    decoded = sum(one.usage.completion_tokens - 1 for one in completions)  # the last token is never computed
    counted = after.computed_tokens - before.computed_tokens - decoded
    if counted != sum(computed) and after.preemptions == before.preemptions:
        raise RuntimeError(f"the engine computed {counted} tokens of prompts, requests say {sum(computed)}")
    return {"computed": computed, "ttft_s": [one.timings.ttft_s for one in completions], "seconds": seconds}


def measure_rounds(engines: dict[str, LLM], options: argparse.Namespace) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(way, caching) -> what each round found. A round before them, with other prompts, compiles and is not counted."""
    rng = random.Random(options.seed)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {(way, caching): [] for way in WAYS for caching in CACHING}
    for number in range(options.rounds + 1):
        for way in WAYS:
            vocab_size = engines["with"].config.vocab_size
            prompts = make_prompts(rng, vocab_size, options.requests, options.prefix)
            for caching in sorted(engines, reverse=number % 2 == 1):
                result = measure(engines[caching], prompts, way)
                if number:
                    found[way, caching].append(result)
    return found


def describe(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the first request and of all others, over the rounds; and of all requests together."""

    def of(metric: str, chosen: slice) -> list[float]:
        return [value for one in rounds for value in one[metric][chosen]]

    described: dict[str, Any] = {"seconds": summary([one["seconds"] for one in rounds])}
    for who, chosen in (("first", slice(0, 1)), ("others", slice(1, None))):
        described[who] = {
            "computed_tokens": statistics.fmean(of("computed", chosen)),
            "ttft_s": summary(of("ttft_s", chosen)),
        }
    return described


def print_results(results: Sequence[dict[str, Any]]) -> None:
    print("computed: tokens of a prompt, on the mean; first token: milliseconds, median (lowest to highest)")
    print(f"{'requests come':19}  {'caching':7}  {'computed: first':>15}  {'others':>7}  {'drop':>6}  "
          f"{'first token: first':26}  {'others':26}  all, s")  # fmt: skip
    for case in results:
        drop = "" if case["drop_percent"] is None else f"{case['drop_percent']:.1f} %"
        times = []
        for who in ("first", "others"):
            ttft = {name: 1000 * seconds for name, seconds in case[who]["ttft_s"].items()}
            times.append(f"{ttft['median']:.0f} ({ttft['low']:.0f} to {ttft['high']:.0f})")
        print(f"{case['way']:19}  {case['caching']:7}  {case['first']['computed_tokens']:15.1f}  "
              f"{case['others']['computed_tokens']:7.1f}  {drop:>6}  {times[0]:26}  {times[1]:26}  "
              f"{case['seconds']['median']:.2f}")  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--requests", type=int, help="at least 2; usually 16")
    parser.add_argument("--prefix", type=int, help="tokens that all prompts begin with; usually 512")
    parser.add_argument("--rounds", type=int, help="usually 5")
    parser.add_argument("--seed", type=int, default=0, help="of the random tokens")
    parser.add_argument("--quick", action="store_true", help="4 requests, 128 tokens, 1 round, unless they are given")
    parser.add_argument("--output", type=Path, help="the folder for results")
    options = parser.parse_args()
    for name, value in (QUICK if options.quick else USUAL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.requests < 2 or options.rounds < 1:
        parser.error("there must be a first request and another one, and a round")
    return options


def main() -> None:
    options = parse()
    engines = {name: LLM(options.model, threads=options.threads, prefix_caching=on) for name, on in CACHING.items()}
    found = measure_rounds(engines, options)
    cases = [{"way": way, "caching": caching} | describe(rounds) for (way, caching), rounds in found.items()]
    for case in cases:
        (other,) = (one for one in cases if one["way"] == case["way"] and one["caching"] == "without")
        share = case["others"]["computed_tokens"] / other["others"]["computed_tokens"]
        case["drop_percent"] = None if case is other else 100 * (1 - share)
    print_results(cases)
    results = surroundings() | {name: getattr(options, name) for name in ("threads", "requests", "prefix", "rounds")}
    results |= {"model": engines["with"].model_name, "dtype": engines["with"].dtype_name, "results": cases}
    keep(results, "shared_prefix", options.output, options.quick)


if __name__ == "__main__":
    main()
