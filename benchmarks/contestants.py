"""Who takes part in `peers.py`, in which formats, measured in what, and with which settings.

The peers are given their best: llama.cpp with or without flash attention, transformers with sdpa or eager attention,
whichever reached more in a trial, metric by metric.
"""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from formats import Formats
from tasks import Failed, Task, run, say

from ferrum.config import EngineConfig
from ferrum.engine.setup import make_backend
from ferrum.errors import FerrumError

FERRUM, LLAMA_CPP, TRANSFORMERS = "ferrum", "llama.cpp", "transformers"
SCRIPTS = {FERRUM: "with_ferrum.py", LLAMA_CPP: "with_llama_cpp.py", TRANSFORMERS: "with_transformers.py"}
MODULES = {LLAMA_CPP: "llama_cpp", TRANSFORMERS: "transformers"}
CHOICES = {LLAMA_CPP: ("flash", ("on", "off")), TRANSFORMERS: ("attention", ("sdpa", "eager"))}
TRIALS = 2

BATCH = 16
METRICS: dict[str, dict[str, Any]] = {
    "decode": {"metric": "decode", "prompt_len": 16, "gen_len": 64},
    "prefill": {"metric": "prefill", "prompt_len": 512},
    "batch": {"metric": "decode", "prompt_len": 16, "gen_len": 32, "batch": BATCH},
    "start": {"metric": "first_token", "prompt_len": 16},
}
"""As `Task` fields."""
SPEEDS = ("decode", "prefill", "batch")

_AVX2 = (
    "+64bit,+avx,+avx2,+bmi,+bmi2,+cmov,+crc32,+cx16,+cx8,+f16c,+fma,+fxsr,+lzcnt,+mmx,+movbe,+popcnt,+sahf,+sse,+sse2,"
    "+sse3,+sse4.1,+sse4.2,+ssse3,+xsave"
)
TARGETS = {
    f"{FERRUM}, AVX2 only": {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": _AVX2},
    f"{FERRUM}, SSE2 only": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+64bit,+cmov,+cx8,+fxsr,+sse,+sse2"},
}
"""Kernels compiled for less than this processor: what an older one would run."""
BFLOAT16 = f"{FERRUM}, bfloat16 arithmetic"


@dataclass(frozen=True, eq=False)
class Line:
    """One contestant in one format: a line of the table."""

    format: str
    contestant: str
    script: str
    model: str
    metrics: tuple[str, ...]
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by metric
    environment: Mapping[str, str] = field(default_factory=dict)

    def task(self, metric: str, **more: Any) -> Task:
        settings = self.settings.get(metric, {})
        fields: dict[str, Any] = METRICS[metric] | more
        return Task(self.script, model=self.model, settings=settings, environment=self.environment, **fields)


def is_installed(contestant: str) -> bool:
    """Says so where it is not."""
    if contestant not in MODULES or importlib.util.find_spec(MODULES[contestant]):
        return True
    print(f"without {contestant}: it is not installed (pip install '.[bench]')")
    return False


def computes_in_bfloat16() -> bool:
    """Does this processor have it?"""
    try:
        make_backend(EngineConfig(compute="bfloat16"))
    except FerrumError:
        return False
    return True


def make_lines(formats: Formats, names: Sequence[str], metrics: Sequence[str], extras: Sequence[str]) -> list[Line]:
    """Every format's lines together; `extras` are "targets" and "bfloat16"."""
    wanted = tuple(metric for metric in METRICS if metric in metrics)
    speeds = tuple(metric for metric in wanted if metric in SPEEDS)
    peers = [peer for peer in MODULES if is_installed(peer)]
    if TRANSFORMERS in peers and not formats.has_directories:
        print(f"without {TRANSFORMERS}: a model with scaled rotary embeddings is not written for it")
        peers.remove(TRANSFORMERS)
    ours = SCRIPTS[FERRUM]
    lines: list[Line] = []
    for name in names:
        path = str(formats.gguf(name))
        lines.append(Line(name, FERRUM, ours, path, wanted))
        if "bfloat16" in extras and "prefill" in wanted and computes_in_bfloat16():
            lines.append(Line(name, BFLOAT16, ours, path, ("prefill",), {"prefill": {"compute": "bfloat16"}}))
        if "targets" in extras and name == formats.own and platform.machine() in ("x86_64", "AMD64"):
            lines += [Line(name, target, ours, path, speeds, {}, values) for target, values in TARGETS.items()]
        if LLAMA_CPP in peers:
            lines.append(Line(name, LLAMA_CPP, SCRIPTS[LLAMA_CPP], path, wanted))
        if TRANSFORMERS in peers and name in ("f32", "bf16"):
            lines.append(Line(name, TRANSFORMERS, SCRIPTS[TRANSFORMERS], str(formats.directory(name)), wanted))
    return lines


def best_settings(lines: Sequence[Line], own: str, threads: int) -> dict[str, dict[str, dict[str, str]]]:
    """contestant -> metric -> the setting that was faster. It is tried in the model's own format where the contestant
    has that, otherwise in the first one it has."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for contestant, (setting, values) in CHOICES.items():
        candidates = [line for line in lines if line.contestant == contestant]
        if not candidates:
            continue
        line = next((line for line in candidates if line.format == own), candidates[0])
        found[contestant] = {}
        for metric in (metric for metric in line.metrics if metric in SPEEDS):
            reached = dict.fromkeys(values, 0.0)
            for value in values * TRIALS:
                say(f"trial: {contestant}, {metric}, {setting} {value}")
                task = replace(line.task(metric, threads=threads, repeats=1), settings={setting: value})
                try:
                    reached[value] = max(reached[value], run(task)["tokens_s"])
                except Failed as error:
                    say(f"trial failed: {error}")
            found[contestant][metric] = {setting: max(values, key=lambda value: reached[value])}
    return found
