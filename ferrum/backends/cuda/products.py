"""Products of weights with a few tokens, and weights in plain numbers.

Owns: which formats of weights have kernels, and how a product is shared out to warps. A token's result has the same
bits however many tokens there are: a kernel for more of them adds up in the same order.
Refuses to know: when a product is one of few tokens. Specs: CUDA-20 to CUDA-25. Next: `ferrum.backends.cuda.exactly`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ferrum.backends.cuda.device import Array, Device
from ferrum.backends.cuda.elementwise import contiguous, lined_up
from ferrum.backends.cuda.launch import Kernel, Size
from ferrum.tensor.parts import ACTIVATIONS, GatedMlp, sets_beyond
from ferrum.tensor.weights import BlockWeight, Dense, Linear, Weight


@dataclass(frozen=True)
class Format:
    """What a matrix must be for the kernels: columns in whole blocks, and an address that is a multiple."""

    block: int
    alignment: int


FORMATS = {
    "float32": Format(4, 16),
    "float16": Format(4, 8),
    "bfloat16": Format(4, 8),
    "q8_0": Format(32, 2),
    "q4_0": Format(32, 2),
    "q4_1": Format(32, 4),
    "q4_k": Format(256, 16),
    "q5_k": Format(256, 16),
    "q6_k": Format(256, 2),
}
"""By the names of the structs in kernels/formats.cuh."""
TOKENS = (1, 2, 4, 8)
"""Tokens of a warp; where there are more, more warps read the same rows."""
ROWS = 4
"""Rows of a warp."""
MOST_TOGETHER = 3
"""Linears of one launch."""

_MOST_WARPS = 4  # of a block: with fewer, a small product is spread over more processors
_THREADS = 256  # of a block, where each decodes a run of weights
_RUN = {name: 8 if name.endswith("_k") else 4 for name in FORMATS}  # as in kernels/formats.cuh
_OUT = {"float32": "float", "bfloat16": "bfloat_t"}
_KNOWN_OF_MLP = frozenset(["gate", "up", "down", "activation", "limit", "up_offset"])

VARIANTS: tuple[tuple[str, dict[str, str]], ...] = (
    *(("linear_few", {"FORMAT": f, "TOKENS": str(t), "ROWS": str(ROWS)}) for f in FORMATS for t in TOKENS),
    *(("dequantize", {"FORMAT": f, "out_t": out}) for f in FORMATS for out in _OUT.values()),
    *(("embed", {"FORMAT": f}) for f in FORMATS),
)


class Products:
    """Products and weights on one device."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def format_of(self, weight: Weight) -> str | None:
        """The kernels' name of how a weight is stored; None where they cannot read it."""
        data = weight.data
        name = str(data.dtype) if isinstance(weight, Dense) else weight.kind
        known = FORMATS.get(name) if isinstance(weight, (Dense, BlockWeight)) else None
        if known is None or data.ndim != 2 or not data.flags.c_contiguous or weight.columns % known.block:
            return None
        return None if self._device.address(data) % known.alignment else name

    def fits(self, x: Array, linears: Sequence[Linear]) -> bool:
        """Can `few` multiply x with these, side by side?"""
        formats = {self.format_of(each.weight) for each in linears}
        shapes = {(each.weight.columns,) for each in linears}
        return (
            0 < len(linears) <= MOST_TOGETHER
            and len(formats) == 1
            and None not in formats
            and shapes == {x.shape[1:]}
            and str(x.dtype) == "float32"
            and all(plain(each.bias) for each in linears)
        )

    def fits_gated(self, x: Array, mlp: GatedMlp) -> bool:
        """Can `gated` compute it?"""
        same = mlp.gate.weight.rows == mlp.up.weight.rows
        return same and has_kernel(mlp) and self.fits(x, (mlp.gate, mlp.up))

    def few(self, x: Array, linears: Sequence[Linear], residual: Array | None = None, scale: float = 1.0) -> Array:
        """[tokens, columns] -> [tokens, rows of all linears]: scale · (x · weightᵀ + bias) + residual."""
        (tokens, columns), rows = x.shape, [each.weight.rows for each in linears]
        out = self._device.empty((tokens, sum(rows)), "float32")
        kernel, grid, block = self._prepared("linear_few", linears[0].weight, tokens, sum(-(-n // ROWS) for n in rows))
        weights, biases = ([getattr(each, name) for each in linears] for name in ("weight", "bias"))
        kernel(
            grid, block, lined_up(self._device, x), *_filled((each.data for each in weights), None),
            *_filled(biases, None), *_filled(rows, 0),
            None if residual is None else contiguous(self._device, residual), scale, tokens, columns, out,
        )  # fmt: skip
        return out

    def gated(self, x: Array, mlp: GatedMlp) -> Array:
        """[tokens, columns] -> [tokens, intermediate]: all of a gated MLP but `down`."""
        (tokens, columns), rows = x.shape, mlp.gate.weight.rows
        out = self._device.empty((tokens, rows), "float32")
        kernel, grid, block = self._prepared("gated_few", mlp.gate.weight, tokens, -(-rows // (ROWS // 2)))
        kernel(
            grid, block, lined_up(self._device, x), mlp.gate.weight.data, mlp.up.weight.data, mlp.gate.bias,
            mlp.up.bias, rows, *gate_facts(mlp), tokens, columns, out,
        )  # fmt: skip
        return out

    def dequantized(self, weight: Weight, dtype: str) -> Array:
        """[rows, columns] in float32 or bfloat16, of a weight that has a format."""
        name = str(self.format_of(weight))
        out = self._device.empty(weight.shape, dtype)
        kernel = self._device.kernels.get("dequantize", "dequantize", FORMAT=name, out_t=_OUT[dtype])
        kernel(_grid(out.size // _RUN[name]), (_THREADS,), weight.data, out, *weight.shape)
        return out

    def rounded(self, x: Array) -> Array:
        """float32 of any shape, to the nearest bfloat16."""
        out = self._device.empty(x.shape, "bfloat16")
        name = next(iter(FORMATS))  # the file is compiled for one; this kernel needs none
        kernel = self._device.kernels.get("dequantize", "rounded", FORMAT=name, out_t="float")
        kernel(_grid(out.size), (_THREADS,), contiguous(self._device, x), out, out.size)
        return out

    def embed(self, table: Weight, token_ids: Array, scale: float = 1.0) -> Array | None:
        """[vocab, hidden], int32 [tokens] -> [tokens, hidden]: scale · the tokens' rows; NaN for a token that the table
        does not have. None where the kernel cannot read the operands."""
        name = self.format_of(table)
        if name is None or str(token_ids.dtype) != "int32" or token_ids.ndim != 1:
            return None
        (vocab, columns), tokens = table.shape, token_ids.shape[0]
        out = self._device.empty((tokens, columns), "float32")
        kernel = self._device.kernels.get("embed", "embed", FORMAT=name)
        token_ids = contiguous(self._device, token_ids)
        grid = _grid(out.size // _RUN[name])
        kernel(grid, (_THREADS,), table.data, token_ids, scale, vocab, tokens, columns, out)
        return out

    def _prepared(self, name: str, weight: Weight, tokens: int, groups: int) -> tuple[Kernel, Size, Size]:
        """The kernel of linear_few.cu for so many tokens, its grid and its block, where each warp takes one of so many
        groups of rows."""
        own = next((each for each in TOKENS if tokens <= each), TOKENS[-1])
        crowds = -(-tokens // own)
        kernel = self._device.kernels.get(
            "linear_few", name, FORMAT=str(self.format_of(weight)), TOKENS=str(own), ROWS=str(ROWS)
        )
        warps = warps_of_block(self._device, groups * crowds)
        return kernel, (-(-groups // warps) * crowds,), (32 * warps,)


def plain(x: Array | None) -> bool:
    """float32 without gaps, or nothing?"""
    return x is None or (str(x.dtype) == "float32" and x.flags.c_contiguous)


def has_kernel(mlp: GatedMlp) -> bool:
    """Do kernels know what stands between its products?"""
    return mlp.activation in ACTIVATIONS and not sets_beyond(mlp, _KNOWN_OF_MLP)


def gate_facts(mlp: GatedMlp) -> tuple[int, float, float]:
    """What kernels are told of a gate: the activation's number, the limit, what is added to up."""
    limit = float("inf") if mlp.limit is None else mlp.limit
    return ACTIVATIONS.index(mlp.activation), limit, mlp.up_offset


def warps_of_block(device: Device, warps: int) -> int:
    """In how large blocks so many warps should run: no larger than leaves every processor one."""
    return max(1, min(_MOST_WARPS, warps // device.processors))


def _filled(values: Any, nothing: Any) -> tuple[Any, ...]:
    """As many as a kernel has parameters for."""
    return (*values, *(nothing,) * MOST_TOGETHER)[:MOST_TOGETHER]


def _grid(threads: int) -> Size:
    return (-(-threads // _THREADS),)
