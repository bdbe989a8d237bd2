"""One call of every operation that makes a new tensor, with operands from a seed.

Owns: operands of one size for each operation, and of each kind of weight for operations that read weights. Properties
about all operations that do not check values use these calls. Refuses to know: what comes out.
Specs: OPS-09, OPS-46. Next: `ferrum.conformance.harness`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ferrum.conformance.large import large_linear, normal
from ferrum.conformance.oracles import ACTIVATIONS
from ferrum.conformance.paged import Rotation, placed_case
from ferrum.conformance.strategies import KINDS, lay
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Embedding, Experts, GatedMlp, Head, Norm, PlainMlp
from ferrum.tensor.weights import Linear

TOKENS, WIDTH = 5, 256

Arguments = Callable[[TensorOps, int], tuple[Any, ...]]
"""(backend, seed) -> the operands."""


def x(ops: TensorOps, seed: int, *shape: int) -> Tensor:
    return lay(ops, normal(*shape or (TOKENS, WIDTH), seed=seed))


def positive(ops: TensorOps, seed: int) -> Tensor:
    return lay(ops, np.abs(normal(TOKENS, WIDTH, seed=seed)) + 0.1)


def whole(ops: TensorOps, seed: int, dtype: str, top: int, *shape: int) -> Tensor:
    """Integers from 1 to top."""
    drawn = np.random.default_rng(seed).integers(1, top + 1, shape or (TOKENS, WIDTH))
    return lay(ops, drawn, dtype=dtype)


def norm(ops: TensorOps, seed: int, width: int = WIDTH, centred: bool = False) -> Norm:
    return Norm(x(ops, seed + 50, width), 1e-5, x(ops, seed + 51, width), centred)


def linear(ops: TensorOps, seed: int, kind: str = "float32", rows: int = 64, columns: int = WIDTH) -> Linear:
    return large_linear(kind, rows, columns, seed).place(ops)


def mlp(ops: TensorOps, seed: int, kind: str = "float32", width: int = WIDTH) -> GatedMlp:
    gate, up = (linear(ops, seed + offset, kind, 32, width) for offset in (10, 20))
    return GatedMlp(gate, up, linear(ops, seed, "float32", width, 32))


def experts(ops: TensorOps, seed: int) -> Experts:
    return Experts(linear(ops, seed, rows=4), tuple(mlp(ops, seed + i, "q8_0") for i in range(4)), 2)


def unary(ops: TensorOps, seed: int) -> tuple[Any, ...]:
    return (x(ops, seed),)


def binary(ops: TensorOps, seed: int) -> tuple[Any, ...]:
    return x(ops, seed), x(ops, seed + 100)


def along(axis: int) -> Arguments:
    return lambda ops, seed: (x(ops, seed), axis)


def of_integers(dtype: str, top: int) -> Arguments:
    return lambda ops, seed: (whole(ops, seed, dtype, top), whole(ops, seed + 100, dtype, 7))


def attending(ops: TensorOps, seed: int) -> tuple[Any, ...]:
    """Query, attention, pool, batch."""
    case = placed_case((37 + seed, 9), (3, 1), kv_heads=2, group=2, head_dim=32)
    return lay(ops, normal(4, 4, 32, seed=seed)), case.attention(ops), case.layer(ops, True), case.batch(ops)


def rope_attending(ops: TensorOps, seed: int) -> tuple[Any, ...]:
    query, attention, layer, batch = attending(ops, seed)
    projections = ops.reshape(query, (4, 128)), x(ops, seed + 1, 4, 64), x(ops, seed + 2, 4, 64)
    return projections, attention, rotation().place(ops), layer, batch


def rotation() -> Rotation:
    angles = normal(64, 16)
    return Rotation(*(np.asarray(wave, np.float32).astype(np.float64) for wave in (np.cos(angles), np.sin(angles))))


def turning(ops: TensorOps, seed: int) -> tuple[Any, ...]:
    return x(ops, seed, TOKENS, 4, 32), rotation().place(ops), whole(ops, seed, "int32", 60, TOKENS)


def settings(ops: TensorOps, seed: int) -> Tensor:
    rows = [[1.0, 40 * (i % 2), 0.9, 0.01, (seed * 7 + i * 3) % 10 / 10] for i in range(TOKENS)]
    return lay(ops, np.array(rows), dtype="float64")


PLAIN: dict[str, tuple[str, Arguments]] = {
    **{name: (name, binary) for name in ("add", "sub", "mul", "maximum", "less", "equal", "residual_add")},
    **{name: (name, unary) for name in ("exp", "tanh", "erf", "cos", "sin", "argsort", "sort")},
    **{name: (name, unary) for name in ("sigmoid", *ACTIVATIONS, "softmax", "log_softmax")},
    **{name: (name, along(-1)) for name in ("sum", "max", "argmax", "cumsum", "mean")},
    **{f"{name} of columns": (name, along(0)) for name in ("sum", "max", "argmax", "cumsum")},
    **{name: (name, lambda ops, seed: (positive(ops, seed),)) for name in ("log", "rsqrt")},
    "div": ("div", lambda ops, seed: (x(ops, seed), positive(ops, seed))),
    "times a row": ("mul", lambda ops, seed: (x(ops, seed), x(ops, seed, WIDTH))),
    "floor_divide": ("floor_divide", of_integers("int64", 1000)),
    "bitwise_and": ("bitwise_and", of_integers("uint8", 200)),
    "bitwise_xor": ("bitwise_xor", of_integers("uint64", 200)),
    "right_shift": ("right_shift", of_integers("uint8", 200)),
    "matmul": ("matmul", lambda ops, seed: (x(ops, seed), x(ops, seed, WIDTH, 33))),
    "where": ("where", lambda ops, seed: (ops.less(*binary(ops, seed)), *binary(ops, seed))),
    "cast": ("cast", lambda ops, seed: (x(ops, seed), "float16")),
    "bitcast": ("bitcast", lambda ops, seed: (whole(ops, seed, "uint8", 100), "float16")),
    "concat": ("concat", lambda ops, seed: (binary(ops, seed), 0)),
    "take": ("take", lambda ops, seed: (x(ops, seed), whole(ops, seed, "int64", TOKENS - 1, 3))),
    "take_along": ("take_along", lambda ops, seed: (x(ops, seed), whole(ops, seed, "int64", 200, TOKENS, 9))),
    "full": ("full", lambda ops, seed: ((TOKENS, WIDTH), seed, ops.float_dtype)),
    "zeros": ("zeros", lambda ops, seed: ((TOKENS, WIDTH), ops.float_dtype)),
    "uniform": ("uniform", lambda ops, seed: ((TOKENS, WIDTH), seed, 0)),
    "normal": ("normal", lambda ops, seed: ((TOKENS, WIDTH), seed, 0)),
    "activated": ("activated", lambda ops, seed: (x(ops, seed), "silu")),
    "minimum": ("minimum", lambda ops, seed: (x(ops, seed), 0.5)),
    "softcapped": ("softcapped", lambda ops, seed: (x(ops, seed), 2.0)),
    "gated": ("gated", lambda ops, seed: (*binary(ops, seed), mlp(ops, seed))),
    "rms_norm": ("rms_norm", lambda ops, seed: (x(ops, seed), x(ops, seed, WIDTH), 1e-5)),
    "layer_norm": ("layer_norm", lambda ops, seed: (x(ops, seed), x(ops, seed, WIDTH), x(ops, 1, WIDTH), 1e-5)),
    "normed": ("normed", lambda ops, seed: (x(ops, seed), norm(ops, seed))),
    "normed, centred": ("normed", lambda ops, seed: (x(ops, seed), norm(ops, seed, centred=True))),
    "head_norm": ("head_norm", lambda ops, seed: (x(ops, seed), norm(ops, seed, 64), 64)),
    "top_k": ("top_k", lambda ops, seed: (x(ops, seed), 9)),
    "choose": ("choose", lambda ops, seed: (x(ops, seed), settings(ops, seed))),
    "ranked": ("ranked", lambda ops, seed: (x(ops, seed), whole(ops, seed, "int64", 200, TOKENS), 4)),
    "rope": ("rope", turning),
    "paged_attention": ("paged_attention", attending),
    "rope_attention": ("rope_attention", rope_attending),
    "embedded": ("embedded", lambda ops, seed: (Embedding(linear(ops, seed).weight, 2.0), attending(ops, seed)[3])),
    "norm_activated": (
        "norm_activated",
        lambda ops, seed: (x(ops, seed), norm(ops, seed), PlainMlp(linear(ops, seed), linear(ops, 1, columns=64))),
    ),
    "norm_experts": ("norm_experts", lambda ops, seed: (x(ops, seed), norm(ops, seed), experts(ops, seed))),
}  # fmt: skip


def of_weights(kind: str) -> dict[str, tuple[str, Arguments]]:
    """The operations that read a weight, with one of this kind."""
    return {
        f"{name}, {kind}": (name, arguments)
        for name, arguments in {
            "dequantize": lambda ops, seed: (linear(ops, seed, kind).weight,),
            "embed": lambda ops, seed: (linear(ops, seed, kind).weight, whole(ops, seed, "int32", 63, TOKENS)),
            "linear": lambda ops, seed: (x(ops, seed), linear(ops, seed, kind)),
            "linear_add": lambda ops, seed: (x(ops, seed), linear(ops, seed, kind), x(ops, seed, TOKENS, 64)),
            "norm_linears": lambda ops, seed: (
                x(ops, seed), norm(ops, seed), [linear(ops, seed + offset, kind) for offset in (0, 1)]
            ),
            "norm_gated": lambda ops, seed: (x(ops, seed), norm(ops, seed), mlp(ops, seed, kind)),
            "logits": lambda ops, seed: (x(ops, seed), Head(norm(ops, seed), linear(ops, seed, kind), 2.0, 30.0)),
        }.items()
    }  # fmt: skip


CALLS = {**PLAIN, **{name: call for kind in KINDS for name, call in of_weights(kind).items()}}
"""By the name of the call: the name of the operation, and the function that makes its operands."""


def results(ops: TensorOps, name: str, arguments: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """The results of the call of that name for these arguments."""
    result = getattr(ops, CALLS[name][0])(*arguments)
    return result if isinstance(result, tuple) else (result,)
