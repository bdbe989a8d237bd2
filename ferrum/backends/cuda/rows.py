"""Launches of norms, activations and softmax, row by row.

Owns: which operands the kernels can take, and the number of threads of a row. It depends on the length of the row
alone, so the bits of a row do not depend on the number of rows. Refuses to know: the parts of a layer. Specs: CUDA-43,
CUDA-44, CUDA-45.
Next: `ferrum.backends.cuda.products`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ferrum.backends.cuda.device import Array, Device
from ferrum.backends.cuda.elementwise import EACH, THREADS, contiguous, flat_grid, start
from ferrum.backends.cuda.launch import Size
from ferrum.tensor.parts import ACTIVATIONS, GatedMlp, Norm, sets_beyond

MOST_COLUMNS = 1 << 30
_KNOWN_OF_NORM = frozenset(["weight", "epsilon", "bias", "centred"])
_KNOWN_OF_MLP = frozenset(["gate", "up", "down", "activation", "limit", "up_offset"])
_SHORT = 256  # columns of a row for which a warp is enough
_WARPS = 8  # of a block, where each has a row
VARIANTS: tuple[tuple[str, dict[str, str]], ...] = (
    *((file, {"ONE_WARP": one_warp}) for file in ("norm", "softmax") for one_warp in "01"),
    *(("activate", {"ACTIVATION": name}) for name in ACTIVATIONS),
)
"""Every combination of definitions with which the kernels are compiled."""


@dataclass(frozen=True)
class Team:
    """The threads of a row of n columns, four columns each: a warp for a short row, else a block."""

    n: int

    @property
    def one_warp(self) -> bool:
        return self.n <= _SHORT

    @property
    def block(self) -> Size:
        return (32, _WARPS) if self.one_warp else (min(1024, -(-self.n // 128) * 32),)

    def grid(self, rows: int) -> Size:
        return (-(-rows // _WARPS),) if self.one_warp else (rows,)

    @property
    def define(self) -> str:
        return str(int(self.one_warp))


class RowKernels:
    """Norms, activations and softmax on one device. A method returns None if its kernel cannot take the operands."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def normed(self, x: Array, norm: Norm, heads: int = 1) -> Array | None:
        """[..., heads · n] -> the same shape: each head of the last axis is normalised by itself. Rows of a matrix may
        have gaps between them."""
        columns = x.shape[-1] if x.ndim else 0
        if not _fits(norm, columns, heads) or not _is_float(x):
            return None
        rows, stride = self._rows(x)
        out = self._device.empty(x.shape, "float32")
        self._norm(rows, norm, heads, stride, None, 1.0, out)
        return out

    def residual_add(self, y: Array, residual: Array, norm: Norm | None, scale: float = 1.0) -> Array | None:
        """residual + scale · norm(y). y and residual have the same shape."""
        columns = y.shape[-1] if y.ndim else 0
        if y.shape != residual.shape or not (_is_float(y) and _is_float(residual)):
            return None
        if norm is not None and not _fits(norm, columns, 1):
            return None
        residual = contiguous(self._device, residual)
        out = self._device.empty(y.shape, "float32")
        if norm is not None:
            rows, stride = self._rows(y)
            self._norm(rows, norm, 1, stride, residual, scale, out)
        else:
            kernel = self._device.kernels.get("norm", "add_scaled", ONE_WARP="0")
            kernel(flat_grid(y.size), (THREADS,), contiguous(self._device, y), residual, out, y.size, scale)
        return out

    def activated(self, x: Array, name: str) -> Array | None:
        """The activation of this name of every element."""
        if name not in ACTIVATIONS or not _is_float(x):
            return None
        x = contiguous(self._device, x)
        out = self._device.empty(x.shape, "float32")
        kernel = self._device.kernels.get("activate", "activate", ACTIVATION=name)
        kernel(flat_grid(x.size), (THREADS,), x, out, x.size)
        return out

    def gated(self, gate: Array, up: Array, mlp: GatedMlp) -> Array | None:
        """activation(gate) · (up + offset), with gate and up cut off at the limit first. Rows of a matrix may have gaps
        between them."""
        if mlp.activation not in ACTIVATIONS or sets_beyond(mlp, _KNOWN_OF_MLP):
            return None
        if gate.shape != up.shape or not gate.ndim or not (_is_float(gate) and _is_float(up)):
            return None
        columns, limit = gate.shape[-1], math.inf if mlp.limit is None else mlp.limit
        (gate, gate_stride), (up, up_stride) = self._rows(gate), self._rows(up)
        out = self._device.empty(gate.shape, "float32")
        kernel = self._device.kernels.get("activate", "gate", ACTIVATION=mlp.activation)
        grid = (math.prod(gate.shape[:-1]), -(-columns // (THREADS * EACH)))
        kernel(grid, (THREADS,), start(gate), start(up), out, columns, gate_stride, up_stride, limit, mlp.up_offset)
        return out

    def softcapped(self, x: Array, cap: float) -> Array | None:
        """cap · tanh(x / cap)"""
        if not _is_float(x):
            return None
        x = contiguous(self._device, x)
        out = self._device.empty(x.shape, "float32")
        kernel = self._device.kernels.get("activate", "softcap", ACTIVATION="silu")
        kernel(flat_grid(x.size), (THREADS,), x, out, x.size, cap, 1 / cap)
        return out

    def softmax(self, x: Array) -> Array | None:
        """The softmax along the last axis."""
        return self._softmax(x, "softmax")

    def log_softmax(self, x: Array) -> Array | None:
        """The logarithm of the softmax along the last axis."""
        return self._softmax(x, "log_softmax")

    def _softmax(self, x: Array, name: str) -> Array | None:
        if not x.ndim or not _is_float(x):
            return None
        x = contiguous(self._device, x)
        out = self._device.empty(x.shape, "float32")
        rows, team = math.prod(x.shape[:-1]), Team(x.shape[-1])
        kernel = self._device.kernels.get("softmax", name, ONE_WARP=team.define)
        kernel(team.grid(rows if team.n else 0), team.block, x, out, rows, team.n)
        return out

    def _norm(
        self, x: Array, norm: Norm, heads: int, stride: int, residual: Array | None, scale: float, out: Array
    ) -> None:
        n = x.shape[-1] // heads
        rows, team = math.prod(x.shape[:-1]) * heads, Team(n)
        kernel = self._device.kernels.get("norm", "norm_rows", ONE_WARP=team.define)
        facts = (rows, heads, n, stride, norm.weight.ndim == 2, norm.centred, norm.epsilon, scale)
        kernel(team.grid(rows), team.block, start(x), norm.weight, norm.bias, residual, out, *facts)

    def _rows(self, x: Array) -> tuple[Array, int]:
        """[..., columns] -> an array of the same content whose rows are contiguous, and the elements from one row to
        the next."""
        if x.ndim == 2 and (x.shape[1] == 1 or x.strides[1] == x.dtype.itemsize):
            return x, x.strides[0] // x.dtype.itemsize
        return contiguous(self._device, x), x.shape[-1]


def _is_float(x: Array) -> bool:
    return str(x.dtype) == "float32" and (not x.ndim or x.shape[-1] < MOST_COLUMNS)


def _fits(norm: Norm, columns: int, heads: int) -> bool:
    """True if the kernel can normalise rows of `columns` columns in `heads` parts."""
    n, rest = divmod(columns, heads)
    shapes = ((n,), (heads, n))
    vectors = [each for each in (norm.weight, norm.bias) if each is not None]
    plain = all(str(each.dtype) == "float32" and each.flags.c_contiguous for each in vectors)
    alike = norm.weight.shape in shapes and (norm.bias is None or norm.bias.shape == norm.weight.shape)
    return bool(n) and not rest and plain and alike and not sets_beyond(norm, _KNOWN_OF_NORM)
