"""This project beside llama.cpp and transformers on the same weights: speed, start, memory, and the machine's limits.

    pip install '.[bench,plot]' && python benchmarks/peers.py --threads 2

Each measurement is a process of its own, so that no library's threads or memory are in another's way; contestants take
turns, round after round, in alternating order, so that a machine whose speed drifts treats them alike. Within a process
the first go warms up (it compiles, and touches memory for the first time) and does not count; of the further ones the
median does. Ratios are of medians over the rounds. `tasks.py` has the protocol, `contestants.py` who takes part,
`formats.py` how one model becomes a file of each format: ferrum and llama.cpp read the very same ones, transformers the
same numbers in float32 and in bfloat16. All are fed the same random tokens and choose greedily.

*Decode 1*: one sequence, 64 tokens after a prompt of 16. *Prefill 512*: a prompt of 512 tokens, until its first token.
*Decode 16*: 16 sequences at a time, 32 tokens each after prompts of 16; tokens/s of all together. *Start*: from the
start of the process to the first token after a prompt of 16, files and kernels in their caches; and once, for ferrum,
with an empty cache of kernels. *MiB*: the largest resident memory while decoding one sequence, files that are mapped
included. ferrum is measured as its users have it, scheduler, sampler and text included; the peers without theirs.

Limits: `limits.py`, before every format of every round; the best that was ever reached is the limit. Decoding is
compared with reading: the weights that a token needs, times tokens/s. A prompt is compared with sgemm: 2 operations for
each weight of the layers and each token. Attention, norms and the cache are not counted, so that true shares are a
little higher. llama.cpp multiplies quantised weights with quantised activations in integers, which may well take it
beyond the limit of float32 arithmetic; ferrum's arithmetic is float32 unless a line says otherwise.

Besides, for ferrum: the *kernel loop*, recorded decode steps replayed with nothing around them, and for the model's own
format kernels compiled for lesser processors. *Neighbour*: decode 1 while another process keeps one core busy, as a
share of the speed just before.

Writes JSON and a picture to benchmarks/results; with --quick, which is for trying it out, only where --output says.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from contestants import FERRUM, LLAMA_CPP, METRICS, Line, best_settings, make_lines
from formats import FORMATS, Formats, work_of
from peers_report import describe, draw, print_extras, print_table, ratios
from results import LIMITS, keep, summaries, surroundings
from tasks import Failed, attempt, measure_limits, run, say

from ferrum.load.resolve import resolve

EXTRAS = ("targets", "bfloat16", "neighbour")
QUICK = {"repeats": 1, "gen_len": 8}
VERSIONS = ("numpy", "numba", "llama-cpp-python", "torch", "transformers")

Sample = dict[str, float]


class Measurements:
    """All samples, as they come in."""

    def __init__(self, lines: Sequence[Line], threads: int, more: dict[str, Any]) -> None:
        self.samples: dict[Line, dict[str, list[Sample]]] = {
            line: {metric: [] for metric in line.metrics} for line in lines
        }
        self.limits: list[Sample] = []
        self.neighbour: dict[str, list[Sample]] = {}
        self.failures: list[str] = []
        self._more = {"threads": threads} | more

    def round(self, number: int, neighbour_format: str | None) -> None:
        """Every measurement once, contestants of the same format and metric one after the other."""
        lines = list(self.samples)[:: -1 if number % 2 else 1]
        for name in dict.fromkeys(line.format for line in lines):
            group = [line for line in lines if line.format == name]
            self.limits.append(measure_limits(self._more["threads"]))
            for metric in METRICS:
                for line in group:
                    if metric in line.metrics:
                        self._measure(line, metric)
            if name == neighbour_format:
                for line in group:
                    if line.contestant in (FERRUM, LLAMA_CPP):
                        self._beside_neighbour(line)

    def _measure(self, line: Line, metric: str) -> None:
        what = f"{line.format}, {line.contestant}, {metric}"
        task = line.task(metric, **self._own(metric))
        attempt(what, self.samples[line][metric], self.failures, lambda: run(task))

    def _beside_neighbour(self, line: Line) -> None:
        task = line.task("decode", **self._own("decode"))

        def both() -> Sample:
            quiet, beside = (run(replace(task, neighbours=count))["tokens_s"] for count in (0, 1))
            return {"quiet_tokens_s": quiet, "beside_tokens_s": beside, "share": beside / quiet}

        what = f"{line.format}, {line.contestant}, neighbour"
        attempt(what, self.neighbour.setdefault(line.contestant, []), self.failures, both)

    def _own(self, metric: str) -> dict[str, Any]:
        """What this run changes of a metric; a start generates nothing, and a prompt is not followed by anything."""
        return {name: value for name, value in self._more.items() if name != "gen_len" or name in METRICS[metric]}


def cold_start(line: Line, threads: int) -> float:
    """Seconds to the first token when no kernel has been compiled yet. Raises Failed."""
    say(f"{line.format}, {line.contestant}, very first start")
    with tempfile.TemporaryDirectory() as empty:
        task = line.task("start", threads=threads)
        return float(run(replace(task, environment={"NUMBA_CACHE_DIR": empty}))["first_token_s"])


def versions() -> dict[str, str]:
    installed = {found.metadata["Name"].lower().replace("_", "-") for found in importlib.metadata.distributions()}
    return {name: importlib.metadata.version(name) for name in VERSIONS if name in installed}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct", help="an alias or a .gguf file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, help="usually 5")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, help="usually all")
    parser.add_argument("--only", nargs="+", choices=(*METRICS, *EXTRAS), default=(*METRICS, *EXTRAS), metavar="WHAT",
                        help=f"some of: {', '.join((*METRICS, *EXTRAS))}")  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="1 round, 2 formats, few tokens, default settings of peers"
    )
    parser.add_argument("--output", type=Path, help="the folder for results")
    return parser.parse_args()


def measure(options: argparse.Namespace, lines: list[Line], own: str) -> tuple[dict[str, Any], Measurements]:
    """What the run chose, and what it found."""
    settings = {} if options.quick else best_settings(lines, own, options.threads)
    lines = [replace(line, settings=settings.get(line.contestant, line.settings)) for line in lines]
    found = Measurements(lines, options.threads, QUICK if options.quick else {})
    results: dict[str, Any] = {"settings": settings}
    if "start" in options.only:
        line = next((line for line in lines if line.format == own), lines[0])
        try:
            results["cold_start_s"] = cold_start(line, options.threads)
        except Failed as error:
            found.failures.append(f"very first start: {error}")
    neighbour_format = None
    if "neighbour" in options.only:
        neighbour_format = own if any(line.format == own for line in lines) else lines[0].format
    for line in lines:
        if line.metrics == ("start",):  # nothing that would have filled the caches comes before it
            attempt(
                f"{line.format}, {line.contestant}, not counted", [], found.failures, partial(run, line.task("start"))
            )
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        found.round(number, neighbour_format)
    return results, found


def main() -> None:
    options = parse()
    formats = Formats(resolve(options.model).path)
    options.rounds = options.rounds or (1 if options.quick else 5)
    names = options.formats or (["bf16", formats.own] if options.quick else list(FORMATS))
    works = {name: work_of(formats.gguf(name)) for name in names}
    lines = make_lines(formats, names, options.only, options.only)
    results = surroundings() | {"model": formats.source.name, "threads": options.threads, "rounds": options.rounds}
    chosen, found = measure(options, lines, formats.own)
    results |= chosen | {"versions": versions(), "work": {name: asdict(work) for name, work in works.items()}}
    results["limits"] = summaries(found.limits, LIMITS)
    results["lines"] = describe(list(found.samples), found.samples, works, results["limits"])
    results["ratios"] = ratios(results["lines"])
    results["neighbour"] = {who: summaries(samples, samples[0]) for who, samples in found.neighbour.items() if samples}
    results["first_tokens"] = {
        f"{line.format}, {line.contestant}": samples["start"][0]["token"]
        for line, samples in found.samples.items()
        if samples.get("start")
    }
    results["failures"] = found.failures
    print_table(results)
    print_extras(results)
    keep(results, "peers", options.output, options.quick, partial(draw, results, works))


if __name__ == "__main__":
    main()
