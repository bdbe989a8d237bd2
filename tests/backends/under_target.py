"""Results of the backend in a new process: run as a program, under a forced target.

    python -m tests.backends.under_target logits PATH.npz
    python -m tests.backends.under_target int8 PATH.npz KIND...
    python -m tests.backends.under_target code

`logits` saves the logits of a small model, prefilled and decoded, for each kind of weight. `int8` saves products of
weights of each kind under that arithmetic, and prints how many kernels this package's linker could not place. `code`
prints, as JSON, the features that the backend finds on its target, and the instructions and registers in its machine
code.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any
from unittest.mock import patch

import numpy as np

from ferrum.backends.numba_kernels.loading import features, objects
from ferrum.backends.numpy_backend import NumbaOps
from ferrum.conformance.strategies import FLOAT_KINDS, KINDS, WEIGHT_TYPES
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import host_dtype
from ferrum.tensor.weights import Dense, Linear, Weight
from ferrum.testing.blocks import BLOCKS, random_blocks
from tests.backends.company import Model, Part, Session, with_experts, with_weights
from tests.tiny import tiny_config, tiny_params

PROMPT, DECODED = 150, 6
"""Sizes with more than one part of a context for the threads, and with more rows than a panel holds."""
HALF_CACHE = "float32, float16 cache"
Q8_CACHE = "float32, q8_0 cache"
EXPERTS = "float32, experts"
CASES = {
    **{kind: (kind, None) for kind in KINDS},
    HALF_CACHE: ("float32", "float16"),
    Q8_CACHE: ("float32", "q8_0"),
    EXPERTS: ("float32", None),
}
"""The types of the weights, and of keys and values."""

KERNELS = ("activations.silu", "products.product.f16", "products.product.q4_0")
"""Few, because each is compiled anew: an elementary function, and weights that every target decodes in its own way."""


def logits(name: str) -> np.ndarray:
    """The logits [PROMPT + DECODED, vocab]: the prompt in one step, then one token a step, as an engine decodes."""
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


def rounded_products(ops: TensorOps, kind: str) -> np.ndarray:
    """The products [tokens of all cases, rows]. The sizes do not fill whole units and blocks of units, and there is a
    case for the tokens of each tile. Inputs are zeros, numbers of all magnitudes, those with the largest sums, NaN."""
    random, found = np.random.default_rng(1), []
    width = 256 if kind in ("q4_k", "q5_k", "q6_k") else 96
    for tokens in (1, 2, 3, 4, 7, 8, 23):
        data = random_blocks(kind, (37, 3 * width), random, zeros=0.1)
        blocks = data.reshape(37, -1, BLOCKS[kind].bytes)
        scales = [place + more for place in BLOCKS[kind].scales for more in (0, 1)]
        codes = np.setdiff1d(np.arange(blocks.shape[2]), scales)
        for row, code in enumerate((0xFF, 0x80, 0x7F)):
            blocks[row][:, codes] = code
        x = random.standard_normal((tokens, 3 * width)) * 10.0 ** random.integers(-30, 30, (tokens, 1))
        x[random.random(x.shape) < 0.3] = 0
        x[0, 32:64], x[-1, -1] = 0, np.inf if tokens == 23 else 1
        x[1:3] = np.array([[3.0], [-3.0]])[: tokens - 1]
        linear = Linear(WEIGHT_TYPES[kind](data), random.standard_normal(37).astype(np.float32))
        found.append(ops.linear(x.astype(np.float32), linear))
    return np.concatenate(found)


def code() -> dict[str, Any]:
    """The chosen variants of kernels, and the mnemonics and registers in their machine code."""
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
    """The assembly of a kernel, from the target machine that also makes its object code."""
    from ferrum.backends.numba_kernels.compiled import (
        compiler,  # the saved logits need no compiler where kernels are cached
    )

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
    elif sys.argv[1] == "int8":
        ops = NumbaOps(2, compute="int8")
        with patch.object(objects, "_linked_by_llvm", wraps=objects._linked_by_llvm) as by_llvm:
            np.savez(sys.argv[2], **{kind: rounded_products(ops, kind) for kind in sys.argv[3:]})
        sys.stdout.write(f"{by_llvm.call_count} linked by LLVM")
    else:
        sys.stdout.write(json.dumps(code()))


if __name__ == "__main__":
    main()
