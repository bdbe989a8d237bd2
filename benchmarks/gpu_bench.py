"""A GPU measured: its bounds, every kind of kernel, whole models, and transformers on the same weights.

    pip install '.[cuda13]' && python benchmarks/gpu_bench.py

Takes less than ten minutes, with `--steps` as few as it is told to. Each step is a process of its own with a limit of
time; what it finds is written to benchmarks/results/gpu-DEVICE-DATE.json as soon as it is known, so that neither a
failure nor an interruption costs what was measured before. The steps: `versions`; `bounds`: a copy within the GPU's
memory, and a product of two bfloat16 matrices of 8192 by 8192, which are the limits that shares refer to; `kernels`:
operations in the sizes of the model, µs and GB/s or TFLOP/s, over inputs that take turns; `smollm2`: the real small
model, eager and in graphs; `model`: random weights in the shape of a big one (--shape); `transformers`: the same
weights in transformers, eager and compiled, and both models' logits for the same tokens.

--dry-run tries every step on the shim, without a GPU, with a tiny model: its numbers mean nothing, and are written only
where --output says.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from results import RESULTS, surroundings
from tasks import say

STEPS = {"versions": 60, "bounds": 60, "kernels": 120, "smollm2": 100, "model": 150, "transformers": 240}
"""Seconds that each may take."""
USUAL = {"batches": (1, 8, 32), "prompts": (512, 2048), "gen": 64, "context": 2048, "budget": 570, "patience": 1}
DRY = {"batches": (1, 2), "prompts": (16, 32), "gen": 3, "context": 40, "budget": 3600, "patience": 5}
"""What options are where they are not given."""
Tell = Callable[[str, Any], None]


# ---- who starts the steps
class Results:
    """What is known so far, and its file."""

    def __init__(self, options: argparse.Namespace) -> None:
        told = {name: value for name, value in vars(options).items() if name not in ("output", "child")}
        self.all: dict[str, Any] = surroundings() | {"options": told, "steps": {}}
        self._folder = options.output or (None if options.dry_run else RESULTS)

    def begin(self, step: str) -> None:
        self.all["steps"][step] = {"found": {}}

    def found(self, step: str, key: str, value: Any) -> None:
        say(f"  {key}: {value}")
        self.all["steps"][step]["found"][key] = value
        self.write()

    def end(self, step: str, seconds: float, failure: str | None) -> None:
        if failure is not None:
            say(f"{step} failed: {failure}")
        self.all["steps"][step] |= {"seconds": round(seconds, 1)} | ({"failed": failure} if failure else {})
        self.write()

    def write(self) -> None:
        """The whole file, in one piece: an interruption leaves the one before."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        device = self.all["steps"].get("versions", {}).get("found", {}).get("device", "unknown")
        name = re.sub(r"\W+", "-", device.removeprefix("NVIDIA ")).strip("-").lower()
        unfinished = self._folder / f"gpu-{self.all['date']}.part"
        unfinished.write_text(json.dumps(self.all, indent=1, ensure_ascii=False) + "\n", "utf-8")
        unfinished.replace(self._folder / f"gpu-{name}-{self.all['date']}.json")


def run_steps(options: argparse.Namespace) -> list[str]:
    """-> those that failed."""
    results, end, failed = Results(options), perf_counter() + options.budget, []
    for step in options.steps:
        limit, started = min(options.patience * STEPS[step], end - perf_counter()), perf_counter()
        results.begin(step)
        if limit > 0:
            say(f"{step}: at most {limit:.0f} s")
            failure = run_step(step, limit, partial(results.found, step))
        else:
            failure = f"no time was left of {options.budget:.0f} s"
        results.end(step, perf_counter() - started, failure)
        failed += [step] if failure else []
    return failed


def run_step(step: str, limit: float, tell: Tell) -> str | None:
    """Why it failed; None where it did not. Every line of its output is something it has found."""
    command = [sys.executable, __file__, "--child", step, *sys.argv[1:]]
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            late = threading.Event()
            timer = threading.Timer(limit, lambda: (late.set(), process.kill()))
            timer.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith("{"):
                        told = json.loads(line)
                        tell(told["key"], told["value"])
            finally:
                timer.cancel()
        if late.is_set():
            return f"it took more than {limit:.0f} s"
        if process.returncode:
            errors.seek(0)
            said = errors.read().strip().splitlines()
            return said[-1][:500] if said else f"exit code {process.returncode}"
    return None


# ---- the command line
def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(","))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--shape", default="llama-3.1-8b", help="of the random model")
    parser.add_argument("--batches", type=numbers, help="sequences that are decoded together, usually 1,8,32")
    parser.add_argument("--prompts", type=numbers, help="tokens of a prompt, usually 512,2048")
    parser.add_argument("--context", type=int, help="tokens that attention sees in `kernels`, usually 2048")
    parser.add_argument("--gen", type=int, help="tokens to generate, usually 64")
    parser.add_argument("--budget", type=float, help=f"seconds for everything, usually {USUAL['budget']}")
    parser.add_argument("--patience", type=float, help="times the seconds that a step may take")
    parser.add_argument("--output", type=Path, help="the folder for results")
    parser.add_argument("--dry-run", action="store_true", help="try every step without a GPU")
    parser.add_argument("--child", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name, value in (DRY if options.dry_run else USUAL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def tell(key: str, value: Any) -> None:
    """To who started this step."""
    print(json.dumps({"key": key, "value": value}), flush=True)


def main() -> None:
    options = parse()
    if options.child:
        from gpu_steps import RUN

        RUN[options.child](options, tell)
        return
    if not options.dry_run:
        from ferrum.backends.cuda.probe import check
        from ferrum.errors import BackendError

        try:
            check()
        except BackendError as error:
            sys.exit(f"gpu_bench: {error}")
    failed = run_steps(options)
    say("done" + (f", but not {', '.join(failed)}" if failed else ""))
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
