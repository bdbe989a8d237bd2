"""One measurement, one process: what a contestant is told, how it is started, what it answers.

A contestant is a script beside this file. It is given a `Task` as JSON, and its last line of output is a JSON object of
numbers, the largest memory it had among them. Where the way to the first token is measured, it says so on a line of its
own, and the clock is that of who started it: what counts is everything from the start of the process.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

FIRST_TOKEN = "first token"
MOST_SECONDS = 12.0
"""After so long a measurement is not repeated any more within its process."""
PATIENCE = 900.0
"""Seconds after which a process has failed."""


@dataclass(frozen=True)
class Task:
    """`metric` is "decode", "prefill", "first_token" or "logits"; lengths are tokens. `settings` are the contestant's
    own, and for logits the file `output` that they are written to, as float32 [tokens, vocabulary], and the file
    `texts` of token ids, if they are not to be those of one random prompt."""

    script: str
    metric: str
    model: str = ""
    threads: int = 2
    prompt_len: int = 16
    gen_len: int = 64
    batch: int = 1
    repeats: int = 3
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    neighbours: int = 0  # other processes that keep a core busy meanwhile
    python: str = sys.executable  # of an environment that has the contestant


class Failed(Exception):
    """A measurement that came to nothing, with the last line of what it said."""


# ---- who starts it
def run(task: Task) -> dict[str, Any]:
    """The numbers a process answers with; `first_token_s` among them if it said when. Raises Failed."""
    command = [task.python, str(Path(__file__).with_name(task.script)), json.dumps(asdict(task))]
    with busy_neighbours(task.neighbours), tempfile.TemporaryFile("w+") as errors:
        started, first, last = perf_counter(), None, ""
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **task.environment}
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == FIRST_TOKEN:
                    first = perf_counter() - started
                last = line
                if perf_counter() - started > PATIENCE:
                    process.kill()
        if process.returncode:
            errors.seek(0)
            said = errors.read().strip().splitlines()
            raise Failed(said[-1] if said else f"exit code {process.returncode}")
    found: dict[str, Any] = json.loads(last)
    return found if first is None else found | {"first_token_s": first}


def measure_limits(threads: int) -> dict[str, float]:
    """Without them nothing else means much: a failure ends everything."""
    say("limits of the machine")
    return run(Task("limits.py", "limits", threads=threads))


def attempt(what: str, samples: list[Any], failures: list[str], measure: Callable[[], Any]) -> None:
    """One more sample. A failure must not cost hours of other measurements: it is kept for the end."""
    say(what)
    try:
        samples.append(measure())
    except Failed as error:
        failures.append(f"{what}: {error}")
        say(f"failed: {error}")


def say(text: str) -> None:
    """Writes progress to stderr; only tables go to stdout."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def busy_neighbours(count: int) -> Iterator[None]:
    """Processes that do nothing but run."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


# ---- who is started
def told() -> Task:
    """What this process is to measure."""
    return Task(**json.loads(sys.argv[1]))


def answer(**numbers: Any) -> None:
    print(json.dumps(numbers | {"peak_rss_bytes": peak_rss_bytes()}))


def say_first_token() -> None:
    print(FIRST_TOKEN, flush=True)


def repeated(measure: Callable[[int], Mapping[str, float]], repeats: int) -> dict[str, float]:
    """Medians of what `measure` returns for repeat 1, 2, …, after a repeat 0 that warms up and does not count."""
    measure(0)
    started, found = perf_counter(), []
    while len(found) < repeats and (not found or perf_counter() - started < MOST_SECONDS):
        found.append(measure(len(found) + 1))
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def make_prompts(vocab_size: int, length: int, count: int, seed: int) -> list[list[int]]:
    """Random tokens, the same for every contestant."""
    generator = random.Random(seed)
    return [[generator.randrange(vocab_size) for _ in range(length)] for _ in range(count)]


def make_texts(task: Task, vocab_size: int) -> list[list[int]]:
    """Whose logits are wanted, each from its beginning."""
    if "texts" in task.settings:
        found: list[list[int]] = json.loads(Path(task.settings["texts"]).read_text())
        return found
    return make_prompts(vocab_size, task.prompt_len, 1, seed=0)


def peak_rss_bytes() -> int:
    """The largest resident set so far. The statistics of Linux (`ru_maxrss`) include the
    program that started this one, if that was larger; VmHWM is of this program alone."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.is_file() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    from ferrum.cli.statistics import peak_rss_bytes as portable

    return portable()
