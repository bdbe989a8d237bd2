"""The pictures of `docs/benchmarks.md`: each is drawn from a file of `benchmarks/results/` when the site is built.

A comment `<!-- picture: NAME -->` stands where the picture comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from docs.site.navigation import ROOT
from docs.site.plots import Bar, Series, bars, lines

COMMENT = re.compile(r"<!-- picture: (?P<name>[\w-]+) -->")
RESULTS = ROOT / "benchmarks" / "results"
BILLION = "peers-llama-3.2-1b-q4_0-2026-11-30"
SMALL = "peers-smollm2-135m-instruct.q4_1-q4_0-q8_0-2026-11-30"


def with_pictures(text: str) -> str:
    """The text of a page with its pictures."""
    return COMMENT.sub(lambda comment: f"\n{PICTURES[comment['name']]()}\n", text)


def result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def peers(name: str, form: str, work: str, title: str) -> str:
    """Tokens a second of every engine in one kind of work."""
    rows = []
    for line in result(name)["lines"]:
        if line["format"] == form and work in line:
            speed = line[work]["tokens_s"]
            ours = line["contestant"].startswith("ferrum")
            label = f"{line['contestant']}{' (exact)' if line['class'] == 'exact' else ''}"
            rows.append(Bar(label, speed["median"], speed["low"], speed["high"], ours))
    return bars(title, "tokens a second", rows)


def scaling(what: str, kind: str, title: str, across: str) -> str:
    """Tokens a second of SmolLM2-135M over one quantity."""
    cases = result("scaling-2026-11-30")["cases"]
    measured = [case for case in cases if (case["what"], case["kind"]) == (what, kind)]
    points = [(case["value"], case["tokens_s"]["median"]) for case in measured]
    return lines(title, "tokens a second", across, [Series("exact", points)])


def sizes() -> str:
    """The share of the memory's bandwidth that decoding takes, from small to large models."""
    rows = []
    for name, label in (("scaling-size-2026-11-30", "exact"), ("scaling-size-int8-2026-11-30", "int8")):
        for case in result(name)["cases"]:
            if case["kind"] == "decode":
                share = 100 * case["share_of_limit"]
                rows.append(Bar(f"{case['value']}, {label}", share, share, share))
    return bars("Decoding one sequence", "percent of the measured read bandwidth", rows)


def speculation() -> str:
    rows = []
    for name, label in (("speculation-2026-11-30", "exact"), ("speculation-int8-2026-11-30", "int8")):
        for task, found in result(name)["results"].items():
            ratio = found["ratio"]
            rows.append(Bar(f"{task}, {label}", ratio["median"], ratio["low"], ratio["high"]))
    return bars("Several tokens a step (ngram)", "times the speed without", rows)


def serving() -> str:
    rows = []
    for name, speed in result("serving-2026-11-29")["output_tok_s"].items():
        if name != "ratio":
            rows.append(Bar(name, speed["median"], speed["low"], speed["high"], name == "ferrum"))
    return bars("A server and 16 clients", "output tokens a second", rows)


def rounding() -> str:
    rows = []
    for line in result("int8-error-2026-11-29")["lines"]:
        if line["format"] in ("q4_0", "q8_0", "q4_k"):
            error = line["relative_l2"]
            ours = line["contestant"].startswith("ferrum")
            rows.append(Bar(f"{line['format']}, {line['contestant']}", error, error, error, ours))
    return bars("Error of logits", "norm of the differences relative to that of exact logits", rows)


PICTURES: dict[str, Callable[[], str]] = {
    "billion-decode": lambda: peers(BILLION, "q4_0", "decode", "Llama-3.2-1B's shape, Q4_0, decode"),
    "billion-prefill": lambda: peers(BILLION, "q4_0", "prefill", "Llama-3.2-1B's shape, Q4_0, prompt of 512"),
    "small-decode": lambda: peers(SMALL, "q4_0", "decode", "SmolLM2-135M, Q4_0, decode"),
    "small-batch": lambda: peers(SMALL, "q4_0", "batch", "SmolLM2-135M, Q4_0, 16 sequences"),
    "context": lambda: scaling("context", "decode", "Decode, by the length of the context", "tokens of the context"),
    "batch": lambda: scaling("batch", "decode", "Decode, by the number of sequences", "sequences at a time"),
    "prompt": lambda: scaling("prompt", "prefill", "Prefill, by the length of the prompt", "tokens of the prompt"),
    "sizes": sizes,
    "speculation": speculation,
    "serving": serving,
    "rounding": rounding,
}
