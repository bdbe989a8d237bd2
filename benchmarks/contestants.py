"""Who takes part in `peers.py`, in which formats, measured in what, with which settings, and in which class.

Two classes, never compared in one table. *Exact*: products of the stored weights in float32 or bfloat16. *int8*:
activations are rounded to 8 bits in groups, which llama.cpp, ik_llama.cpp and OpenVINO do wherever weights are
quantised. The peers are given their best: each has a setting that is tried out first, metric by metric.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from formats import Variants
from tasks import Failed, Task, run, say

from ferrum.config import EngineConfig
from ferrum.engine.setup import make_backend
from ferrum.errors import FerrumError

EXACT, INT8 = "exact", "int8"
CLASSES = {EXACT: "products of the stored weights in float32 or bfloat16",
           INT8: "activations rounded to 8 bits in groups"}  # fmt: skip
DENSE = ("f32", "f16", "bf16")

FERRUM, LLAMA_CPP = "ferrum", "llama.cpp"
BFLOAT16, FERRUM_INT8 = f"{FERRUM}, bfloat16 arithmetic", f"{FERRUM}, int8"
OURS = {FERRUM: "float32", BFLOAT16: "bfloat16", FERRUM_INT8: "int8"}
"""By contestant: what it computes in."""
SCRIPT = "with_ferrum.py"

BATCH = 16
METRICS: dict[str, dict[str, Any]] = {
    "decode": {"metric": "decode", "prompt_len": 16, "gen_len": 64},
    "prefill": {"metric": "prefill", "prompt_len": 512},
    "batch": {"metric": "decode", "prompt_len": 16, "gen_len": 32, "batch": BATCH},
    "start": {"metric": "first_token", "prompt_len": 16},
}
"""As `Task` fields."""
SPEEDS = ("decode", "prefill", "batch")
TRIAL_LEN = 16
"""Tokens that are generated where only the better of two settings is sought."""
ERROR = {"metric": "logits", "prompt_len": 64}
"""The task whose logits tell what a contestant's arithmetic costs in accuracy."""


@dataclass(frozen=True)
class Peer:
    """Another project's engine. `choice`: its setting to be tried out; `formats`: those it runs, or None for all."""

    script: str
    module: str
    choice: tuple[str, tuple[str, ...]] | None = None
    formats: tuple[str, ...] | None = None
    directory: bool = False  # it reads a directory of safetensors
    metrics: tuple[str, ...] = tuple(METRICS)
    logits: bool = True


PEERS = {
    LLAMA_CPP: Peer("with_llama_cpp.py", "llama_cpp", ("flash", ("on", "off"))),
    "ik_llama.cpp": Peer("with_ik_llama_cpp.py", "ik_llama_cpp", ("repack", ("on", "off"))),
    "OpenVINO": Peer("with_openvino.py", "openvino_genai", ("attention", ("PA", "SDPA")), metrics=SPEEDS),
    "transformers": Peer("with_transformers.py", "transformers", ("attention", ("sdpa", "eager")), ("f32", "bf16"),
                         directory=True, logits=False),
    "vLLM": Peer("with_vllm.py", "vllm", None, ("bf16",), directory=True, metrics=("batch",), logits=False),
}  # fmt: skip

_AVX2 = (
    "+64bit,+avx,+avx2,+bmi,+bmi2,+cmov,+crc32,+cx16,+cx8,+f16c,+fma,+fxsr,+lzcnt,+mmx,+movbe,+popcnt,+sahf,+sse,+sse2,"
    "+sse3,+sse4.1,+sse4.2,+ssse3,+xsave"
)
TARGETS = {
    "AVX2": {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": _AVX2},
    "SSE2": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+64bit,+cmov,+cx8,+fxsr,+sse,+sse2"},
}
"""Kernels compiled for less than this processor: what an older one would run."""


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
    python: str = sys.executable
    has_logits: bool = True

    @property
    def group(self) -> str:
        """Its class."""
        if self.script == SCRIPT:
            return INT8 if self.contestant == FERRUM_INT8 else EXACT
        return EXACT if self.format in DENSE else INT8

    def task(self, metric: str, **more: Any) -> Task:
        settings = self.settings.get(metric, {})
        fields: dict[str, Any] = METRICS[metric] | more
        where: dict[str, Any] = {"environment": self.environment, "python": self.python}
        return Task(self.script, model=self.model, settings=settings, **where, **fields)

    def logits_task(self, path: str, threads: int) -> Task:
        """Writes the logits of a prompt to a file."""
        usual = dict(next(iter(self.settings.values()), {}))
        where: dict[str, Any] = {"environment": self.environment, "python": self.python}
        settings = usual | {"output": path}
        return Task(self.script, model=self.model, threads=threads, settings=settings, **where, **ERROR)


def is_installed(peer: str, python: str) -> bool:
    """Says so where it is not."""
    found = f"import importlib.util, sys; sys.exit(not importlib.util.find_spec({PEERS[peer].module!r}))"
    if subprocess.run([python, "-c", found], check=False).returncode == 0:
        return True
    print(f"without {peer}: {PEERS[peer].module} is not installed; --python {peer}=… names an environment that has it")
    return False


def refusal(compute: str) -> str | None:
    """Why ferrum cannot compute in that on this machine."""
    try:
        make_backend(EngineConfig(compute=compute))
    except FerrumError as error:
        return str(error)
    return None


def make_lines(
    variants: Variants, names: Sequence[str], only: Sequence[str], pythons: Mapping[str, str], target: str | None
) -> list[Line]:
    """Every format's lines together. `only` are metrics and the extras "targets", "bfloat16" and "int8"; `pythons` the
    interpreters of peers that are asked for; kernels of ours are compiled for `target`."""
    wanted = tuple(metric for metric in METRICS if metric in only)
    peers = {name: peer for name, peer in PEERS.items() if name in pythons and is_installed(name, pythons[name])}
    lines: list[Line] = []
    for name in names:
        lines += _ours(variants, name, wanted, only, target)
        for who, peer in peers.items():
            metrics = tuple(metric for metric in wanted if metric in peer.metrics)
            if not metrics or name not in (peer.formats or names) or (peer.directory and not variants.has_directories):
                continue
            path = variants.directory(name) if peer.directory else variants.gguf(name)
            python = pythons[who]
            lines.append(Line(name, who, peer.script, str(path), metrics, python=python, has_logits=peer.logits))
    return lines


def _ours(
    variants: Variants, name: str, wanted: tuple[str, ...], only: Sequence[str], target: str | None
) -> list[Line]:
    """Those of ferrum. One that this machine cannot compute is named, with the reason."""
    path, environment = str(variants.gguf(name)), TARGETS[target] if target else {}
    lines = [Line(name, FERRUM, SCRIPT, path, wanted, environment=environment)]
    speeds = tuple(metric for metric in wanted if metric in SPEEDS)
    for who, extra, metrics in ((BFLOAT16, "bfloat16", ("prefill",)), (FERRUM_INT8, "int8", wanted)):
        metrics = tuple(metric for metric in metrics if metric in wanted)
        if extra not in only or not metrics or (extra == "int8" and name in DENSE) or (extra != "int8" and target):
            continue
        reason = refusal(OURS[who])
        if reason is not None:
            print(f"without {who}: {reason}")
            continue
        settings = {metric: {"compute": OURS[who]} for metric in metrics}
        lines.append(Line(name, who, SCRIPT, path, metrics, settings, environment))
    if "targets" in only and target is None and name == variants.own and platform.machine() in ("x86_64", "AMD64"):
        lines += [Line(name, f"{FERRUM}, {each} only", SCRIPT, path, speeds, {}, values)
                  for each, values in TARGETS.items()]  # fmt: skip
    return lines


def best_settings(lines: Sequence[Line], own: str, threads: int, trials: int) -> dict[str, dict[str, dict[str, str]]]:
    """contestant -> metric -> the setting that was faster. It is tried in the model's own format where the contestant
    has that, otherwise in the first one it has."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for contestant, peer in PEERS.items():
        candidates = [line for line in lines if line.contestant == contestant]
        if not candidates or peer.choice is None:
            continue
        line = next((line for line in candidates if line.format == own), candidates[0])
        setting, values = peer.choice
        found[contestant] = {}
        for metric in (metric for metric in line.metrics if metric in SPEEDS):
            reached = dict.fromkeys(values, 0.0)
            for value in values * trials:
                say(f"trial: {contestant}, {metric}, {setting} {value}")
                short = {"gen_len": TRIAL_LEN} if "gen_len" in METRICS[metric] else {}
                task = replace(line.task(metric, threads=threads, repeats=1, **short), settings={setting: value})
                try:
                    reached[value] = max(reached[value], run(task)["tokens_s"])
                except Failed as error:
                    say(f"trial failed: {error}")
            found[contestant][metric] = {setting: max(values, key=lambda value: reached[value])}
    return found
