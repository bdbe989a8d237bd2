"""How the cost of a token grows: with context, batch, length of the prompt, threads, and the size of the model.

    pip install '.[plot]' && python benchmarks/scaling.py --threads 2

*Context*: a step of one sequence after so many tokens. *Batch*: a step of so many sequences, each after 16 tokens.
*Prompt*: a prompt of so many tokens, until its first new token. *Threads*: decode and prefill on so many. *Size*:
files of random weights in the shapes of known models (`shapes.py`), Q4_0: decode after 16 tokens, and a prompt of 64.
Limit: tokens per second
as a share of what the machine allows (`limits.py`, measured in the same run; `peers.py` explains the shares).

Each measurement is a process of its own, as in `peers.py`, and counts once after a warm-up; cases take turns, round
after round. With --compute the same in bfloat16 or int8. Writes JSON and a picture to benchmarks/results; with --quick,
which is for trying it out, only where --output says.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from formats import ShapeFiles, Work, work_of
from peers_report import limit_of
from results import (
    LIMITS,
    keep,
    picture,
    print_failures,
    print_heading,
    spread,
    summaries,
    summary,
    surroundings,
)
from tasks import Task, attempt, measure_limits, run

from ferrum.engine.setup import COMPUTE
from ferrum.load.resolve import resolve
from ferrum.load.shapes import SHAPES

SCRIPT = "with_ferrum.py"
SHORT = 16  # tokens of a context that should not matter
SHAPE_FORMAT = "q4_0"
CONTEXTS = (16, 128, 512, 1024, 2048, 4096, 8064)  # SmolLM2's context is 8192, and some more is generated
BATCHES = (1, 2, 4, 8, 16, 32, 64)
PROMPTS = (16, 64, 256, 512, 1024, 2048, 4096)
QUICK: dict[str, Sequence[Any]] = {"context": CONTEXTS[:3], "batch": BATCHES[:3], "prompt": PROMPTS[1:4],
                                   "threads": (1, 2), "size": tuple(SHAPES)[:2]}  # fmt: skip
AXES = {"context": "tokens of context", "batch": "sequences in a step", "prompt": "tokens of the prompt",
        "threads": "threads", "size": "GB of weights that a step reads"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """One point: `kind` is decode or prefill, `value` where it stands on the axis of `what`."""

    what: str
    value: Any
    kind: str
    task: Task
    work: Work
    samples: list[dict[str, float]] = field(default_factory=list)


def make_cases(model: Path, threads: int, values: Mapping[str, Sequence[Any]], more: dict[str, Any]) -> Iterator[Case]:
    """All points of all curves. `more` are fields of every task."""

    def case(what: str, value: Any, kind: str, path: Path = model, **fields: Any) -> Case:
        own: dict[str, Any] = {"model": str(path), "threads": threads} | more | fields
        return Case(what, value, kind, Task(SCRIPT, kind, **own), work_of(path))

    for tokens in values["context"]:
        yield case("context", tokens, "decode", prompt_len=tokens)
    for sequences in values["batch"]:
        yield case("batch", sequences, "decode", prompt_len=SHORT, batch=sequences)
    for tokens in values["prompt"]:
        yield case("prompt", tokens, "prefill", prompt_len=tokens)
    for count in values["threads"]:
        yield case("threads", count, "decode", prompt_len=SHORT, threads=count)
        yield case("threads", count, "prefill", prompt_len=512, threads=count)
    for name in values["size"]:
        path = ShapeFiles(name).gguf(SHAPE_FORMAT)
        yield case("size", name, "decode", path, prompt_len=SHORT, gen_len=8)
        yield case("size", name, "prefill", path, prompt_len=64)


def measure(cases: Sequence[Case], rounds: int, threads: int) -> tuple[list[dict[str, float]], list[str]]:
    """Gives every case its samples -> what the limits were meanwhile, and what failed."""
    limits: list[dict[str, float]] = []
    failures: list[str] = []
    for number in range(rounds):
        before = None
        for case in cases[:: -1 if number % 2 else 1]:
            if case.what != before:
                limits.append(measure_limits(threads))
            before = case.what
            title = f"{number + 1} of {rounds}: {case.what} {case.value}, {case.kind}"
            attempt(title, case.samples, failures, partial(run, case.task))
    return limits, failures


def describe(case: Case, limits: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """A point with what was found there; a step has a token of each sequence."""
    rates = [sample["tokens_s"] for sample in case.samples]
    metric = "prefill" if case.kind == "prefill" else "decode" if case.task.batch == 1 else "batch"
    found = {
        "what": case.what, "value": case.value, "kind": case.kind, "threads": case.task.threads,
        "tokens_s": summary(rates), "ms_per_token": summary([1000 / rate for rate in rates]),
        "peak_rss_bytes": summary([sample["peak_rss_bytes"] for sample in case.samples]),
        "read_bytes": case.work.read_bytes,
    }  # fmt: skip
    if metric != "batch" and case.what != "threads":  # the limits are those of as many threads as all others have
        found["share_of_limit"] = found["tokens_s"]["median"] / limit_of(metric, case.work, limits)
    return found


def print_table(results: Mapping[str, Any]) -> None:
    print_heading(results)
    for what in AXES:
        cases = [case for case in results["cases"] if case["what"] == what]
        if not cases:
            continue
        print(f"\n{what:14}  {'':7}  {'tokens/s':24}{'ms per token':26}{'limit':>6}  {'MiB':>6}")
        for case in cases:
            share = f"{100 * case['share_of_limit']:.0f} %" if "share_of_limit" in case else ""
            print(f"{case['value']!s:14}  {case['kind']:7}  {spread(case['tokens_s']):24}"
                  f"{spread(case['ms_per_token'], digits=2):26}{share:>6}  "
                  f"{case['peak_rss_bytes']['median'] / (1 << 20):6.0f}")  # fmt: skip


def draw(results: dict[str, Any], path: Path) -> None:
    """A panel for each axis, both logarithmic: milliseconds per token."""
    shown = [what for what in AXES if any(case["what"] == what for case in results["cases"])]
    with picture(results, path, columns=len(shown), size=(3.6 * len(shown), 3.8)) as panels:
        for axes, what in zip(panels if len(shown) > 1 else [panels], shown, strict=True):
            cases = [case for case in results["cases"] if case["what"] == what]
            for kind in ("decode", "prefill"):
                draw_curve(axes, [case for case in cases if case["kind"] == kind], kind)
            if what == "size":
                draw_reading(axes, cases, results["limits"]["read_bytes_s"]["high"])
            axes.set(xscale="log", yscale="log", xlabel=AXES[what], title=f"milliseconds per token: {what}")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.grid(alpha=0.3, which="both")
            axes.legend(fontsize=8)


def draw_curve(axes: Any, cases: Sequence[Mapping[str, Any]], label: str) -> None:
    if not cases:
        return
    found = [case["ms_per_token"] for case in cases]
    median = [one["median"] for one in found]
    bars = [[one["median"] - one["low"] for one in found], [one["high"] - one["median"] for one in found]]
    places = [case["read_bytes"] / 1e9 if case["what"] == "size" else case["value"] for case in cases]
    axes.errorbar(places, median, bars, marker="o", markersize=4, capsize=3, label=label)


def draw_reading(axes: Any, cases: Sequence[Mapping[str, Any]], bytes_s: float) -> None:
    """What reading the weights alone takes."""
    read = sorted({case["read_bytes"] for case in cases})
    axes.plot([one / 1e9 for one in read], [1000 * one / bytes_s for one in read], ":", color="0.4", label="reading")


def threads_to_try(most: int) -> list[int]:
    """Powers of two, and as many as there are."""
    return sorted({1 << power for power in range(most.bit_length())} | {most})


def axes_of(options: argparse.Namespace) -> dict[str, Sequence[Any]]:
    """Where the points stand on each axis; axes that are not wanted have none."""
    usual = {"context": CONTEXTS, "batch": BATCHES, "prompt": PROMPTS,
             "threads": threads_to_try(os.cpu_count() or 1), "size": options.sizes}  # fmt: skip
    values = QUICK if options.quick else usual
    return {what: values[what] if what in options.only else () for what in AXES}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct",
                        help=f"an alias, a .gguf file, or a shape, in Q4_0: {', '.join(SHAPES)}")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compute", choices=COMPUTE, default="float32")
    parser.add_argument("--rounds", type=int, help="usually 2")
    parser.add_argument("--only", nargs="+", choices=AXES, default=list(AXES), metavar="WHAT",
                        help=f"some of: {', '.join(AXES)}")  # fmt: skip
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="SHAPE",
                        help=f"models of the last axis, some of: {', '.join(SHAPES)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="1 round, fewer points, few tokens")
    parser.add_argument("--output", type=Path, help="the folder for results")
    return parser.parse_args()


def main() -> None:
    options = parse()
    rounds = options.rounds or (1 if options.quick else 2)
    is_shape = options.model in SHAPES
    model = ShapeFiles(options.model).gguf(SHAPE_FORMAT) if is_shape else resolve(options.model).path
    values = axes_of(options)
    settings = {"compute": options.compute}
    more = {"repeats": 1, "gen_len": 8 if options.quick else 32, "settings": settings}
    cases = list(make_cases(model, options.threads, values, more))
    limits, failures = measure(cases, rounds, options.threads)
    results = surroundings() | {"model": model.name, "threads": options.threads, "rounds": rounds} | settings
    results["limits"] = summaries(limits, LIMITS)
    results["cases"] = [describe(case, results["limits"]) for case in cases if case.samples]
    results["failures"] = failures
    print_table(results)
    print_failures(failures)
    name = "scaling" if options.compute == "float32" else f"scaling-{options.compute}"
    keep(
        results, f"{name}-{options.model}" if is_shape else name, options.output, options.quick, partial(draw, results)
    )


if __name__ == "__main__":
    main()
