"""What a process computes and compiles; run as a program, under a forced target.

    python -m tests.backends.under_target logits PATH.npz
    python -m tests.backends.under_target code

`logits` saves those of a small model, prefilled and decoded, for each kind of weight. `code` prints, as JSON, what the
backend believes of its target, and which instructions and registers stand in its machine code.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any
from unittest.mock import patch

import numpy as np

from ferrum.backends.numba_kernels import features
from ferrum.backends.numpy_backend import NumbaOps
from ferrum.conformance.strategies import FLOAT_KINDS, KINDS, WEIGHT_TYPES
from ferrum.tensor.ops import host_dtype
from ferrum.tensor.weights import Dense, Weight
from ferrum.testing.blocks import random_blocks
from tests.backends.company import Model, Part, Session, with_experts, with_weights
from tests.tiny import tiny_config, tiny_params

PROMPT, DECODED = 150, 6
"""More than one part of a context that is shared out among threads, and more rows than a panel holds."""
HALF_CACHE = "float32, float16 cache"
Q8_CACHE = "float32, q8_0 cache"
EXPERTS = "float32, experts"
CASES = {
    **{kind: (kind, None) for kind in KINDS},
    HALF_CACHE: ("float32", "float16"),
    Q8_CACHE: ("float32", "q8_0"),
    EXPERTS: ("float32", None),
}
"""How weights, and how keys and values are stored."""

KERNELS = ("activations.silu", "products.product.f16", "products.product.q4_0")
"""Few, because each is compiled anew: an elementary function, and weights that every target decodes in its own way."""


def logits(name: str) -> np.ndarray:
    """[PROMPT + DECODED, vocab]: the prompt in one step, then token by token as an engine decodes."""
    config = tiny_config(
        hidden_size=256, intermediate_size=512, head_dim=64, max_positions=PROMPT + DECODED, eos_token_ids=()
    )
    weights, kv_dtype = CASES[name]
    params = with_weights(tiny_params(config), lambda weight: stored(weights, weight))
    if name == EXPERTS:
        params = with_experts(params, 128)
    token_ids = np.random.default_rng(0).integers(0, config.vocab_size, PROMPT + DECODED).tolist()
    session = Session(Model(NumbaOps(2), config, params, kv_dtype), [token_ids], 16, None)
    (text,) = session.texts
    session.run([Part(text, PROMPT, list(range(PROMPT)))], replay=False)
    for _ in range(DECODED):
        session.run([Part(text, 1, [0])], replay=True)
    return np.array([np.frombuffer(text.rows[i], np.float32) for i in range(PROMPT + DECODED)])


def stored(kind: str, weight: Weight) -> Weight:
    """The weight in another float type, or random blocks of its shape and size."""
    if kind in FLOAT_KINDS:
        return Dense(weight.data.astype(host_dtype(kind)))
    random = np.random.default_rng(weight.rows)
    return WEIGHT_TYPES[kind](random_blocks(kind, weight.shape, random, size=weight.shape[1] ** -0.5))


def code() -> dict[str, Any]:
    """The variants that are chosen, and the mnemonics and registers of the kernels that they make."""
    assembly = "\n".join(assembly_of(name) for name in KERNELS)
    return {
        "variants": {
            name: getattr(features, name)
            for name in ("WIDTH", "REGISTERS", "HAS_AVX512", "HAS_BYTE_SHUFFLE", "HAS_HALF")
        },
        "mnemonics": sorted(set(re.findall(r"^\t([a-z]\w*)", assembly, re.MULTILINE))),
        "registers": sorted(set(re.findall(r"%([xyz]mm)\d", assembly))),
    }


def assembly_of(name: str) -> str:
    """Of a kernel, written by the very target machine that makes its object code."""
    from ferrum.backends.numba_kernels import compiler  # the saved logits need no compiler where kernels are cached

    made: list[Any] = []
    original = compiler.cfunc

    def remembering(*arguments: Any, **options: Any) -> Any:
        def decorate(body: Any) -> Any:
            made.append(original(*arguments, **options)(body))
            return made[-1]

        return decorate

    with patch.object(compiler, "cfunc", remembering):
        compiler.compiled(name)
    return str(made[-1]._library.get_asm_str())


def main() -> None:
    if sys.argv[1] == "logits":
        np.savez(sys.argv[2], **{name: logits(name) for name in CASES})
    else:
        sys.stdout.write(json.dumps(code()))


if __name__ == "__main__":
    main()
