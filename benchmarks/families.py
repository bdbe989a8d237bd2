"""Decode speed of every family at one size, beside Llama's: what a family's parts cost.

    python benchmarks/families.py [--threads N] [--repeat N] [NAME ...]

Every model has random weights in the shape of SmolLM2-135M (30 layers, hidden 576, 9 heads that share 3 keys, 49152
tokens, Q4_0) and the parts of its family: norms, biases, activations, windows, soft-caps as the row of the family and a
golden of the tests say. An MLP without a gate is half as wide again, so that all have as many bytes; what is left of
differences is divided out. The figure is bytes of weights that a second goes through, relative to Llama in the same
run: runs of a family alternate with runs of Llama, medians of the ratios. The first and the last row are Llama beside
itself: what they are off by, the others may be too.
Prints a table, and with --json PATH writes it with the machine and the date.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from ferrum.backends.numpy_backend import NumbaOps
from ferrum.config import EngineConfig, ModelConfig, RopeConfig
from ferrum.engine.llm import LLM
from ferrum.fields import Fields
from ferrum.load.config_json import describe
from ferrum.load.layout import Description
from ferrum.load.random_model import random_model
from ferrum.load.shapes import find_shape
from ferrum.load.token_ids import NO_IDS
from ferrum.sampling_params import SamplingParams

SHAPE = find_shape("smollm2-135m")
TOKENS = 48
GOLDENS = Path(__file__).parents[1] / "tests" / "goldens" / "families"


def grown(config: ModelConfig) -> ModelConfig:
    """A small model's configuration in the size of SHAPE; what layers are is repeated."""
    kinds = tuple(replace(kind, rope=rope_of(kind.rope)) for kind in config.kinds)
    return replace(
        config,
        vocab_size=SHAPE.vocab_size,
        hidden_size=SHAPE.hidden_size,
        intermediate_size=SHAPE.intermediate_size if config.gated else SHAPE.intermediate_size * 3 // 2,
        layers=SHAPE.layers,
        heads=SHAPE.heads,
        kv_heads=SHAPE.kv_heads,
        head_dim=SHAPE.head_dim,
        max_positions=2048,
        rope=rope_of(config.rope),
        layer_kinds=tuple(kinds[number % len(kinds)] for number in range(SHAPE.layers)) if config.layer_kinds else (),
        attention_scale=None,
        tie_embeddings=True,
        eos_token_ids=(),
    )


def rope_of(rope: RopeConfig | None) -> RopeConfig | None:
    """The same share of the head turns; frequencies are nothing to a clock."""
    return None if rope is None else RopeConfig(10000.0, SHAPE.head_dim)


def described(name: str) -> Description:
    fields = Fields(json.loads((GOLDENS / f"{name}.json").read_text())["config"], name, null_is_absent=False)
    return describe(fields, NO_IDS)


class Contestant:
    """One model, ready to decode."""

    def __init__(self, name: str, ops: NumbaOps) -> None:
        about = described(name)
        model = random_model(name, grown(about.config), "q4_0", layout=about.layout, biases=about.biases or frozenset())
        self.name, self.bytes = name, sum(weight.data.nbytes for weight in model.params.weights())
        self.llm = LLM.from_loaded(model, ops, EngineConfig(kv_memory=1 << 27, max_model_len=512))
        self.rate()

    def rate(self) -> float:
        """Bytes of weights that a second of decoding goes through."""
        params = SamplingParams(max_tokens=TOKENS, temperature=0, ignore_eos=True)
        self.llm.generate([[1]], SamplingParams(max_tokens=2, temperature=0, ignore_eos=True))
        start = time.perf_counter()
        self.llm.generate([[1, 2, 3]], params)
        return self.bytes * TOKENS / (time.perf_counter() - start)

    @property
    def replayed(self) -> str:
        decode = self.llm.stats().decode
        return f"{decode.replayed}/{decode.total}"


def compare(name: str, llama: Contestant, ops: NumbaOps, repeat: int) -> dict[str, Any]:
    own = Contestant(name, ops)
    ratios = []
    for _ in range(repeat):
        before, mine, after = llama.rate(), own.rate(), llama.rate()
        ratios.append(2 * mine / (before + after))
    return {
        "family": name,
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "megabytes": own.bytes // 10**6,
        "replayed": own.replayed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="goldens of tests/goldens/families; default: one of each dense family")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    ops = NumbaOps(given.threads)
    names = given.names or [
        path.stem
        for path in sorted(GOLDENS.glob("*-wide.json"))
        if described(path.stem).config.experts is None and not path.stem.startswith("llama")
    ]
    names = ["llama-wide", *names, "llama-wide"]
    llama = Contestant("llama-wide", ops)
    results = []
    for name in names:
        results.append(compare(name, llama, ops, given.repeat))
        print(*(f"{key} {value}" for key, value in results[-1].items()), sep="  ", flush=True)
    if given.json:
        about = {"date": date.today().isoformat(), "machine": platform.processor() or platform.machine()}
        given.json.write_text(json.dumps({**about, "threads": given.threads, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
