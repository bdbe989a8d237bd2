"""Launches of products of weights with a few tokens, and of decoding weights.

Owns: which formats of weights the kernels can read, and how a product is divided among warps. The result of a token has
the same bits for any number of tokens, because the kernels for more tokens add in the same order.
Refuses to know: when a product is one of few tokens. Specs: CUDA-20 to CUDA-25.
Next: `ferrum.backends.cuda.exact_products`.
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
    """What the kernels require of a stored matrix."""

    block: int  # the number of columns is a multiple of it
    alignment: int  # the address is a multiple of it, in bytes


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
"""Formats by their names, which are also those of the structs in kernels/formats.cuh."""
TOKENS = (1, 2, 4, 8)
"""Tokens of a warp. For more tokens, more warps read the same rows."""
ROWS = 4
"""Rows of a warp."""
MOST_TOGETHER = 3
"""Most linears of one launch."""

_MOST_WARPS = 4  # of a block; a small product has fewer, so that more processors take part
_THREADS = 256  # of a block; each decodes a run of weights
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
        """The name of the format of a weight; None if kernels cannot read it."""
        data = weight.data
        name = str(data.dtype) if isinstance(weight, Dense) else weight.kind
        stored = FORMATS.get(name) if isinstance(weight, (Dense, BlockWeight)) else None
        if stored is None or data.ndim != 2 or not data.flags.c_contiguous or weight.columns % stored.block:
            return None
        return None if self._device.address(data) % stored.alignment else name

    def fits(self, x: Array, linears: Sequence[Linear]) -> bool:
        """True if `few` can multiply x with all these linears in one launch."""
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
        """True if `gated` can compute it."""
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
        """[tokens, columns] -> [tokens, intermediate]: a gated MLP without `down`."""
        (tokens, columns), rows = x.shape, mlp.gate.weight.rows
        out = self._device.empty((tokens, rows), "float32")
        kernel, grid, block = self._prepared("gated_few", mlp.gate.weight, tokens, -(-rows // (ROWS // 2)))
        kernel(
            grid, block, lined_up(self._device, x), mlp.gate.weight.data, mlp.up.weight.data, mlp.gate.bias,
            mlp.up.bias, rows, *gate_facts(mlp), tokens, columns, out,
        )  # fmt: skip
        return out

    def dequantized(self, weight: Weight, dtype: str) -> Array:
        """A weight that has a format, decoded: [rows, columns] in float32 or bfloat16."""
        name = str(self.format_of(weight))
        out = self._device.empty(weight.shape, dtype)
        kernel = self._device.kernels.get("dequantize", "dequantize", FORMAT=name, out_t=_OUT[dtype])
        kernel(_grid(out.size // _RUN[name]), (_THREADS,), weight.data, out, *weight.shape)
        return out

    def rounded(self, x: Array) -> Array:
        """x, float32 of any shape, rounded to bfloat16."""
        out = self._device.empty(x.shape, "bfloat16")
        name = next(iter(FORMATS))  # the file must be compiled for a format, though this kernel does not use it
        kernel = self._device.kernels.get("dequantize", "rounded", FORMAT=name, out_t="float")
        kernel(_grid(out.size), (_THREADS,), contiguous(self._device, x), out, out.size)
        return out

    def embed(self, table: Weight, token_ids: Array, scale: float = 1.0) -> Array | None:
        """table [vocab, hidden], int32 [tokens] -> [tokens, hidden]: scale times the rows of the tokens; NaN for a
        token out of range. None if the kernel cannot read the operands."""
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
        """A kernel of linear_few.cu for this number of tokens, its grid and its block. Each warp computes one of
        `groups` groups of rows."""
        together = next((each for each in TOKENS if tokens <= each), TOKENS[-1])
        batches = -(-tokens // together)
        kernel = self._device.kernels.get(
            "linear_few", name, FORMAT=str(self.format_of(weight)), TOKENS=str(together), ROWS=str(ROWS)
        )
        warps = warps_of_block(self._device, groups * batches)
        return kernel, (-(-groups // warps) * batches,), (32 * warps,)


def plain(x: Array | None) -> bool:
    """True if x is None or contiguous float32."""
    return x is None or (str(x.dtype) == "float32" and x.flags.c_contiguous)


def has_kernel(mlp: GatedMlp) -> bool:
    """True if kernels can compute the elementwise part of the MLP."""
    return mlp.activation in ACTIVATIONS and not sets_beyond(mlp, _KNOWN_OF_MLP)


def gate_facts(mlp: GatedMlp) -> tuple[int, float, float]:
    """The arguments of kernels for a gate: number of the activation, limit, offset of up."""
    limit = float("inf") if mlp.limit is None else mlp.limit
    return ACTIVATIONS.index(mlp.activation), limit, mlp.up_offset


def warps_of_block(device: Device, warps: int) -> int:
    """The number of warps of a block, for this number of warps in all: as many as leave a block for every processor."""
    return max(1, min(_MOST_WARPS, warps // device.processors))


def _filled(values: Any, nothing: Any) -> tuple[Any, ...]:
    """The values, filled up with `nothing` to the MOST_TOGETHER parameters of a kernel."""
    return (*values, *(nothing,) * MOST_TOGETHER)[:MOST_TOGETHER]


def _grid(threads: int) -> Size:
    return (-(-threads // _THREADS),)
