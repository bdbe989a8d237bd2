"""Keys and values in each type: the time of attention at growing contexts, and what rounding costs on a real model.

    taskset -c 0 python benchmarks/kv_types.py --threads 1

Speed: one token attends to contexts of 512 to 8192 positions, in as many layers as come from memory (their blocks lie
anywhere). Types take turns; a figure is the median, with the quartiles, of the ratios of one round: how many times as
long float32 and float16 take as q8_0. *int8*: with rounded queries (`compute="int8"`).
Error: the texts of `int8_error.py`; logits beside those of float32 alone, in arithmetic and in keys and values: *L2*,
the norm of the differences relative to that of the logits; *top-1*, at how many positions the largest is another one.
Writes JSON to benchmarks/results and prints tables for the documentation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from int8_error import compare, make_texts
from results import keep, surroundings

from ferrum import LLM
from ferrum.backends.numpy_backend import NumbaOps
from ferrum.load.resolve import resolve
from ferrum.tensor.batch import KvLayer, StepBatch
from ferrum.tensor.kv_q8 import new_layer
from ferrum.tensor.parts import Attention
from ferrum.tensor.weights import Dense, Linear

CONTEXTS = (512, 1024, 2048, 4096, 8192)
BLOCK_SIZE = 16
MEMORY = 256 << 20
"""Bytes of keys and values in float32 that a round reads: more than any cache holds."""
WAYS = {"float32": ("float32", "float32"), "float16": ("float16", "float32"), "q8_0": ("q8_0", "float32"),
        "q8_0, int8": ("q8_0", "int8")}  # fmt: skip
"""By name: the type of keys and values, and the class of arithmetic."""


@dataclass(frozen=True)
class Shape:
    """The attention of a model."""

    kv_heads: int
    group: int
    head_dim: int

    def attention(self) -> Attention:
        unused = Linear(Dense(np.zeros((1, 1), np.float32)))
        return Attention(unused, unused, unused, unused, self.head_dim, self.head_dim**-0.5)


SHAPES = {
    "SmolLM2-135M": Shape(3, 3, 64),
    "Llama-3.2-1B": Shape(8, 4, 64),
    "Llama-3.1-8B": Shape(8, 4, 128),
}


def one_token(context: int, random: np.random.Generator) -> StepBatch:
    """The last token of a context whose blocks are shuffled."""

    def integers(values: Any) -> np.ndarray:
        return np.array(values, np.int32)

    table = random.permutation(context // BLOCK_SIZE).astype(np.int32)[None]
    return StepBatch(
        integers([0]), integers([context - 1]), integers([0]), integers([0, 1]), integers([context]), table,
        integers([0]), starts=[0, 1], contexts=[context],
    )  # fmt: skip


def filled(ops: NumbaOps, dtype: str, shape: Shape, context: int, random: np.random.Generator) -> KvLayer:
    layer = new_layer(ops.empty, dtype, context // BLOCK_SIZE, shape.kv_heads, shape.head_dim, BLOCK_SIZE)
    key, value = random.standard_normal((2, context, shape.kv_heads, shape.head_dim)).astype(np.float32)
    ops.kv_write(layer, key, value, np.arange(context, dtype=np.int32))
    return layer


def steps(shape: Shape, context: int, threads: int) -> dict[str, Callable[[], None]]:
    """By way: a token's attention in all layers."""
    random, attention = np.random.default_rng(context), shape.attention()
    layers = max(1, MEMORY // (8 * context * shape.kv_heads * shape.head_dim))
    backends = {compute: NumbaOps(threads, compute=compute) for compute in ("float32", "int8")}
    batch = one_token(context, random)
    query = random.standard_normal((1, shape.kv_heads * shape.group, shape.head_dim)).astype(np.float32)
    pools = {
        dtype: [filled(backends["float32"], dtype, shape, context, random) for _ in range(layers)]
        for dtype in dict.fromkeys(dtype for dtype, _ in WAYS.values())
    }

    def attend(dtype: str, compute: str) -> None:
        for layer in pools[dtype]:
            backends[compute].paged_attention(query, attention, layer, batch)

    return {name: lambda way=way: attend(*way) for name, way in WAYS.items()}  # type: ignore[misc]


def timed(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratios(shape: Shape, context: int, threads: int, rounds: int) -> dict[str, list[float]]:
    """By "slower / faster": quartiles of how many times as long the first takes."""
    runs = steps(shape, context, threads)
    for run in runs.values():
        run()
    seconds = [{name: timed(run) for name, run in runs.items()} for _ in range(rounds)]
    found = {}
    for fast in ("q8_0", "q8_0, int8"):
        for slow in ("float32", "float16"):
            each = [one[slow] / one[fast] for one in seconds]
            found[f"{slow} / {fast}"] = [float(x) for x in np.quantile(each, (0.25, 0.5, 0.75))]
    return found


def errors(model: str, threads: int) -> dict[str, dict[str, float]]:
    """By way: what becomes of the logits."""
    path = resolve(model).path
    texts, rows = make_texts(path)

    def logits(dtype: str, compute: str) -> np.ndarray:
        llm = LLM(path, threads=threads, kv_dtype=dtype, compute=compute, kv_memory="256MiB")
        return np.concatenate([llm.logits(text) for text in texts])[rows]

    exact = logits("float32", "float32")
    ways = {**WAYS, "float32, int8": ("float32", "int8")}
    return {name: compare(exact, logits(*way)) for name, way in ways.items() if name != "float32"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct", help="an alias or a .gguf file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--contexts", nargs="+", type=int, default=CONTEXTS)
    parser.add_argument("--output", type=Path, help="the folder for results")
    options = parser.parse_args()
    lines = []
    for name in options.shapes:
        for context in options.contexts:
            found = ratios(SHAPES[name], context, options.threads, options.rounds)
            lines.append({"shape": name, "context": context, "ratios": found})
            cells = (f"{median:.2f} ({low:.2f}-{high:.2f})" for low, median, high in found.values())
            print(f"| {name} | {context} | {' | '.join(cells)} |", flush=True)
    wrong = errors(options.model, options.threads)
    for way, one in wrong.items():
        print(f"| {way} | {one['relative_l2']:.4f} | {one['top1_changes']} of {one['positions']} |")
    keep(surroundings() | {"speed": lines, "error": wrong}, "kv-types", options.output, quick=False)


if __name__ == "__main__":
    main()
