"""What rounding activations to 8 bits costs on a real model: logits of ferrum's int8 class and of others, beside exact.

    python benchmarks/int8_error.py --python llama.cpp=/path/to/bin/python

The texts are 20 prompts, each with the 48 tokens that the model itself goes on with (ferrum, float32, greedy). Every
contestant is given the same texts, and the logits that predict those 960 tokens are compared with ferrum's in float32
of the very same file: *L2*, the norm of the differences relative to that of the logits; *top-1*, at how many positions
the largest logit is another one. No answer depends on an earlier one: a change at one position changes no other.

Files: in Q4_0, Q4_1 and Q8_0 as `formats.py` writes them; in Q4_K, Q5_K and Q6_K of the model widened with zeros
(`widened.py`), for which llama-cpp-python is needed. Writes JSON to benchmarks/results, and prints a table for the
documentation.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from contestants import PEERS, SCRIPT, is_installed
from errors import relative_l2
from formats import Formats
from results import keep, surroundings
from tasks import Failed, Task, run, say
from widened import FILE_TYPES, quantise, write_widened

from ferrum import LLM, SamplingParams
from ferrum.load.resolve import resolve

FORMATS = ("q4_0", "q4_1", "q8_0", *FILE_TYPES)
COMPUTED = ("llama.cpp", "ik_llama.cpp", "OpenVINO")
"""Peers that round activations too."""
ANSWER = 48
PROMPTS = (
    "The capital of France is", "Once upon a time there was a fox who", "Explain how a bicycle works:",
    "def fibonacci(n):", "The sea is deep and", "Water boils at", "In 1969, astronauts", "A good breakfast consists of",
    "My favourite book is", "To install Python on Linux,", "The president of the United States in 1990 was",
    "Photosynthesis is the process", "List three fruits:", "import numpy as np\n", "The quick brown fox",
    "Dear Sir or Madam,", "The square root of 144 is", "Shakespeare wrote", "Climate change is caused by",
    "A recipe for pancakes:",
)  # fmt: skip


def make_texts(path: Path) -> tuple[list[list[int]], np.ndarray]:
    """Token ids of prompts with their answers, and which rows of all their logits predict an answer's tokens."""
    llm = LLM(path, max_num_seqs=len(PROMPTS), kv_memory="256MiB")
    params = SamplingParams(temperature=0, max_tokens=ANSWER, ignore_eos=True)
    texts, rows, start = [], [], 0
    for completion in llm.generate(list(PROMPTS), params):
        prompt = list(completion.prompt_token_ids)
        texts.append(prompt + list(completion.choices[0].token_ids))
        rows += range(start + len(prompt) - 1, start + len(prompt) - 1 + ANSWER)
        start += len(texts[-1])
    return texts, np.array(rows)


class Files:
    """The model in each format."""

    def __init__(self, source: Path, python: str) -> None:
        self._formats, self._source, self._python = Formats(source), source, python

    def path(self, name: str) -> Path:
        if name not in FILE_TYPES:
            return self._formats.gguf(name)
        wide = self._formats.made("wide.gguf", lambda path: write_widened(self._source, path))
        return self._formats.made(f"{name}.gguf", lambda path: quantise(wide, path, name, self._python))


def logits_of(script: str, python: str, path: Path, threads: int, texts: list[list[int]], compute: str) -> np.ndarray:
    """float32 [tokens of all texts, vocabulary]. Raises Failed."""
    with tempfile.TemporaryDirectory() as folder:
        asked, output = Path(folder) / "texts.json", Path(folder) / "logits.npy"
        asked.write_text(json.dumps(texts))
        settings = {"texts": str(asked), "output": str(output), "compute": compute}
        longest = max(map(len, texts))
        run(Task(script, "logits", str(path), threads, longest, settings=settings, python=python))
        return np.load(output)


def compare(exact: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Of the same positions."""
    changed = exact.argmax(1) != other.argmax(1)
    return {"relative_l2": relative_l2(exact, other), "top1_changes": int(changed.sum()), "positions": len(exact)}


def measure(options: argparse.Namespace, pythons: Mapping[str, str], failures: list[str]) -> list[dict[str, Any]]:
    """Format by format, contestant by contestant."""
    source = resolve(options.model).path
    texts, rows = make_texts(source)
    files = Files(source, pythons.get("llama.cpp", sys.executable))
    contestants = {
        "ferrum, int8": (SCRIPT, sys.executable, "int8"),
        "ferrum, bfloat16": (SCRIPT, sys.executable, "bfloat16"),
    }
    contestants |= {peer: (PEERS[peer].script, python, "") for peer, python in pythons.items()}
    found: list[dict[str, Any]] = []
    for name in options.formats:
        path = files.path(name)
        say(f"{name}, exact")
        exact = logits_of(SCRIPT, sys.executable, path, options.threads, texts, "float32")[rows]
        for who, (script, python, compute) in contestants.items():
            say(f"{name}, {who}")
            try:
                other = logits_of(script, python, path, options.threads, texts, compute)[rows]
            except Failed as error:
                failures.append(f"{name}, {who}: {error}")
                continue
            found.append({"format": name, "contestant": who} | compare(exact, other))
    return found


def print_table(found: list[dict[str, Any]]) -> None:
    """For the documentation."""
    names = list(dict.fromkeys(one["contestant"] for one in found))
    print(f"| weights | {' | '.join(f'{name}: L2 | top-1' for name in names)} |")
    print(f"|---|{'---|' * 2 * len(names)}")
    for form in dict.fromkeys(one["format"] for one in found):
        cells = []
        for name in names:
            one = next((one for one in found if (one["format"], one["contestant"]) == (form, name)), None)
            share = (
                "- | -" if one is None else f"{one['relative_l2']:.4f} | {one['top1_changes'] / one['positions']:.1%}"
            )
            cells.append(share)
        print(f"| {form.upper()} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct", help="an alias or a .gguf file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--python", action="append", default=[], metavar="PEER=FILE", help="a peer's interpreter")
    parser.add_argument("--output", type=Path, help="the folder for results")
    options = parser.parse_args()
    named = dict(one.partition("=")[::2] for one in options.python)
    pythons = {peer: named.get(peer, sys.executable) for peer in COMPUTED}
    pythons = {peer: python for peer, python in pythons.items() if is_installed(peer, python)}
    failures: list[str] = []
    found = measure(options, pythons, failures)
    print_table(found)
    for failure in failures:
        print(f"failed: {failure}")
    results = surroundings() | {"model": resolve(options.model).path.name, "lines": found, "failures": failures}
    keep(results, "int8-error", options.output, quick=False)


if __name__ == "__main__":
    main()
