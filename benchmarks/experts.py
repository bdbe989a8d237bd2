"""What a mixture of experts costs beside a dense model with the parameters that one token of it uses.

    python benchmarks/experts.py --threads 2

Random weights: layers of equal attention, with `--chosen` of `--experts` experts of `--middle` rows in one model, and
one MLP of as many rows as the chosen have together in the other. Both are measured through the engine, in turns, in one
process: decode of one and of several sequences, and a prompt. A ratio is the time that experts take over the dense
model's, in the same round; below 1 nothing is lost. With --output the numbers are written there as JSON.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from results import keep, spread, summary, surroundings

from ferrum import LLM
from ferrum.cli.bench import measure, prompts
from ferrum.config import EngineConfig, ModelConfig, RopeConfig, parse_memory
from ferrum.engine.setup import make_backend
from ferrum.load.random_model import RandomModel
from ferrum.model.params import Branch, DecoderParams, Layer
from ferrum.tensor.k_quants import Q4_K, Q5_K, Q6_K
from ferrum.tensor.parts import Attention, Embedding, Experts, GatedMlp, Head, Norm
from ferrum.tensor.weights import Q4_0, Q4_1, Q8_0, Dense, Linear
from ferrum.testing.blocks import random_blocks

BLOCK_TYPES = {kind.kind: kind for kind in (Q4_0, Q4_1, Q8_0, Q4_K, Q5_K, Q6_K)}
HEAD_DIM, VOCAB = 64, 4096
SHORT = 16
CASES = {"decode": (SHORT, 1), "decode of 8": (SHORT, 8), "prompt of 512": (512, 1)}
"""Tokens of a prompt, and sequences."""


def linear_maker(kind: str, random: np.random.Generator) -> Callable[[int, int], Linear]:
    def linear(rows: int, columns: int) -> Linear:
        return Linear(BLOCK_TYPES[kind](random_blocks(kind, (rows, columns), random, size=columns**-0.5)))

    return linear


def model(arguments: argparse.Namespace, kind: str, *, mixed: bool) -> RandomModel:
    """With experts, or with an MLP as large as those of one token together."""
    random, hidden = np.random.default_rng(0), arguments.hidden
    heads = hidden // HEAD_DIM
    linear, middle = linear_maker(kind, random), arguments.middle

    def mlp(rows: int) -> GatedMlp:
        return GatedMlp(linear(rows, hidden), linear(rows, hidden), linear(hidden, rows))

    def dense(rows: int, columns: int) -> Dense:
        return Dense((columns**-0.5 * random.standard_normal((rows, columns))).astype(np.float32))

    def body() -> GatedMlp | Experts:
        if not mixed:
            return mlp(arguments.chosen * middle)
        router = Linear(dense(arguments.experts, hidden))
        return Experts(router, tuple(mlp(middle) for _ in range(arguments.experts)), arguments.chosen)

    norm, rope = Norm(np.ones(hidden, np.float32), 1e-5), RopeConfig(10000.0, HEAD_DIM)

    def layer() -> Layer:
        key, value = (linear(hidden // 2, hidden) for _ in range(2))
        projections = linear(hidden, hidden), key, value, linear(hidden, hidden)
        attention = Attention(*projections, HEAD_DIM, HEAD_DIM**-0.5)
        return Layer(((Branch(attention, norm),), (Branch(body(), norm),)), rope)

    layers = tuple(layer() for _ in range(arguments.layers))
    params = DecoderParams(Embedding(dense(VOCAB, hidden)), layers, Head(norm, linear(VOCAB, hidden)))
    sizes = VOCAB, hidden, arguments.chosen * middle, len(layers), heads, heads // 2, HEAD_DIM, 1024
    return RandomModel("mixture" if mixed else "dense", ModelConfig("llama", *sizes, 1e-5, rope), params)


def open_model(made: RandomModel, threads: int | None) -> LLM:
    config = EngineConfig(threads=threads, kv_memory=parse_memory("kv_memory", "256MiB"))
    return LLM.from_loaded(made, make_backend(config), config)


def seconds(llm: LLM, case: str, seed: int, generated: int) -> float:
    """A token's, of a prompt or of a step."""
    length, count = CASES[case]
    prefill, decode = measure(llm, prompts(llm, length, count, seed), 1 if length > SHORT else generated)
    llm.scheduler.manager.gc()  # or memory would grow with every round
    return 1 / (prefill if length > SHORT else decode)


def compare(arguments: argparse.Namespace, kind: str) -> dict[str, Any]:
    """-> by case: milliseconds a token of both models, and their ratio."""
    llms = {name: open_model(model(arguments, kind, mixed=name == "experts"), arguments.threads)
            for name in ("dense", "experts")}  # fmt: skip
    found: dict[str, Any] = {}
    for case in CASES:
        samples: dict[str, list[float]] = {name: [] for name in llms}
        for number in range(arguments.rounds + 1):
            for name in list(llms)[:: -1 if number % 2 else 1]:
                taken = seconds(llms[name], case, number, arguments.generated)
                if number:  # the first round compiles and records
                    samples[name].append(1000 * taken)
        ratios = [ours / dense for ours, dense in zip(samples["experts"], samples["dense"], strict=True)]
        found[case] = {name: summary(times) for name, times in samples.items()} | {"ratio": summary(ratios)}
    replayed = llms["experts"].stats().decode
    found["replayed"] = [replayed.replayed, replayed.total]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    sizes = {"hidden": 1024, "middle": 512, "experts": 32, "chosen": 4, "layers": 16, "rounds": 7, "generated": 32}
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--formats", default="q4_0,q4_k", help="of weights, with commas between them")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    shape = {name: getattr(arguments, name) for name in (*sizes, "threads")}
    results = surroundings() | shape | {"formats": {}}
    for kind in arguments.formats.split(","):
        results["formats"][kind] = found = compare(arguments, kind)
        print(f"\n{kind}: ms a token, median (low–high) of {arguments.rounds}; replayed {found['replayed']}")
        for case in CASES:
            numbers = {name: spread(one, digits=2) for name, one in found[case].items()}
            print(f"  {case:14} dense {numbers['dense']:20} experts {numbers['experts']:20} × {numbers['ratio']}")
    keep(results, "experts", arguments.output, quick=True)


if __name__ == "__main__":
    main()
