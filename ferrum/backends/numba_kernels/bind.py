"""From arrays to rows of words: what a kernel needs to know about its operands, and nothing else.

Owns: the marshalling of every kernel launch, cached weight descriptors, and the test of whether a weight has a native
kernel. Whether a kernel may be used at all is decided by `NumbaOps`, beside the composition it replaces.
Next: `ferrum.backends.numba_kernels.library`.
"""

from __future__ import annotations


import numpy as np

from ferrum.backends.numba_kernels import attention, elementwise, linear, pages
from ferrum.backends.numba_kernels.launch import Launcher, address, float_bits
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.ops import Tensor
from ferrum.tensor.weights import BlockWeight, Dense, Linear, Weight

SERIAL_WORK = 1 << 16
"""Multiply-adds up to which starting a second thread costs more than it saves."""

_DENSE_KINDS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_BLOCK_KINDS = ("q8_0", "q4_0", "q4_1")


def native_kind(weight: Weight) -> str | None:
    """The kernels' name of a weight's format; None where only the composition can multiply it."""
    data = weight.data
    if data.ndim != 2 or data.strides[1] != data.itemsize or weight.rows < 4:
        return None
    if isinstance(weight, Dense):
        return _DENSE_KINDS.get(str(data.dtype)) if weight.columns % 32 == 0 else None
    return weight.kind if isinstance(weight, BlockWeight) and weight.kind in _BLOCK_KINDS else None


class Kernels:
    """Launches on arrays. Operands are float32 [tokens, columns] whose last axis is contiguous (`rows_of`)."""

    def __init__(self, threads: int | None) -> None:
        self.launcher = Launcher(threads)
        # descriptors hold their weights, so that no address outlives its memory
        self._descriptors: dict[tuple[Linear, ...], np.ndarray | None] = {}
        self._tiles: tuple[StepBatch | None, int, np.ndarray] = (None, 0, np.empty((0, 4), np.int32))

    def describe(self, linears: tuple[Linear, ...]) -> np.ndarray | None:
        """int64 [linears, 8]: one descriptor each; None if one of them has no native kernel."""
        if linears not in self._descriptors:
            kinds = [native_kind(each.weight) for each in linears]
            rows = None
            if all(kinds):
                rows = [_descriptor(each, kind) for each, kind in zip(linears, kinds, strict=True) if kind]
            self._descriptors[linears] = None if rows is None else np.array(rows, np.int64)
        return self._descriptors[linears]

    def linears(
        self, x: Tensor, norm: Tensor | None, epsilon: float, descriptors: np.ndarray, residual: Tensor | None
    ) -> Tensor:
        """-> [tokens, all rows]: the outputs side by side."""
        tokens, columns = x.shape
        rows = int(descriptors[:, 3].sum())
        out = np.empty((tokens, rows), np.float32)
        base, size = self.launcher.scratch(4 * columns * tokens + _panel_bytes(columns))
        self.launcher.launch(
            linear.linears,
            address(x), x.strides[0], tokens, 0 if norm is None else address(norm), float_bits(epsilon), columns,
            address(descriptors), len(descriptors), address(out), 4 * rows,
            0 if residual is None else address(residual), 0 if residual is None else residual.strides[0],
            base, size, parallel=tokens * rows * columns > SERIAL_WORK,
        )  # fmt: skip
        return out

    def norm_swiglu(self, x: Tensor, norm: Tensor, epsilon: float, descriptors: np.ndarray) -> Tensor:
        """-> [tokens, intermediate]"""
        tokens, columns = x.shape
        rows = int(descriptors[0, 3])
        out = np.empty((tokens, rows), np.float32)
        base, size = self.launcher.scratch(4 * tokens * (columns + 2 * rows) + _panel_bytes(columns))
        self.launcher.launch(
            linear.norm_swiglu,
            address(x), x.strides[0], tokens, address(norm), float_bits(epsilon), columns, address(descriptors),
            address(out), base, size, parallel=tokens * rows * columns > SERIAL_WORK,
        )  # fmt: skip
        return out

    def embed(self, table: Weight, kind: str, token_ids: Tensor) -> Tensor:
        """-> [tokens, columns]"""
        token_ids = np.ascontiguousarray(token_ids, np.int32)
        out = np.empty((len(token_ids), table.columns), np.float32)
        self.launcher.launch(
            linear.embed,
            address(token_ids), len(token_ids), linear.row_decoder(kind), address(table.data), table.data.strides[0],
            table.columns // 32, address(out), parallel=out.size > SERIAL_WORK,
        )  # fmt: skip
        return out

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """-> [tokens, columns]"""
        out = np.empty(x.shape, np.float32)
        self.launcher.launch(
            elementwise.rms_norm,
            address(x), x.strides[0], x.shape[0], address(weight), float_bits(epsilon), x.shape[1], address(out),
            parallel=out.size > SERIAL_WORK,
        )  # fmt: skip
        return out

    def swiglu(self, gate: Tensor, up: Tensor) -> Tensor:
        """Contiguous operands of one shape."""
        out = np.empty(gate.shape, np.float32)
        self.launcher.launch(
            elementwise.swiglu, address(gate), address(up), address(out), out.size, parallel=out.size > SERIAL_WORK
        )
        return out

    def kv_write(
        self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor, rope: tuple[RopeTables, Tensor] | None
    ) -> None:
        """key and value [tokens, kv_heads * head_dim]; rope: tables and positions, to rotate keys on the way."""
        _, kv_heads, head_dim, block_size = layer.keys.shape
        slots = np.ascontiguousarray(slots, np.int32)
        positions = slots if rope is None else np.ascontiguousarray(rope[1], np.int32)
        base, size = self.launcher.scratch(4 * head_dim)
        self.launcher.launch(
            attention.kv_write,
            address(layer.keys), address(layer.values), address(key), key.strides[0], address(value), value.strides[0],
            address(slots), len(slots), kv_heads, head_dim, block_size, *_rotation(None if rope is None else rope[0]),
            address(positions), base, size, parallel=8 * key.size > SERIAL_WORK,
        )  # fmt: skip

    def attend(
        self,
        query: Tensor,
        layer: KvLayer,
        batch: StepBatch,
        tables: RopeTables | None,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """query [tokens, heads * head_dim], rotated here where tables are given -> [tokens, heads * head_dim]"""
        blocks, kv_heads, head_dim, block_size = layer.keys.shape
        heads = query.shape[1] // head_dim
        tiles = self._tile_list(batch, heads // kv_heads)
        block_tables = np.ascontiguousarray(batch.block_tables, np.int32)
        contexts = np.ascontiguousarray(batch.context_lens, np.int32)
        out = np.empty(query.shape, np.float32)
        base, size = self.launcher.scratch(attention.scratch_bytes(head_dim))
        self.launcher.launch(
            attention.attention,
            address(layer.keys), address(layer.values), address(query), query.strides[0], address(out),
            address(tiles), len(tiles), address(block_tables), block_tables.shape[1], address(contexts),
            heads, kv_heads, head_dim, block_size, *_rotation(tables),
            attention.NO_WINDOW if window is None else min(window, attention.NO_WINDOW), float_bits(scale),
            float_bits(softcap or 0.0), base, size,
            parallel=query.size * int(contexts.max()) > SERIAL_WORK,
        )  # fmt: skip
        return out

    def _tile_list(self, batch: StepBatch, group: int) -> np.ndarray:
        """int32 [tiles, 4]: sequence, first packed token, tokens, first query row; the same for all layers of a step."""
        known, known_group, tiles = self._tiles
        if known is not batch or known_group != group:
            starts = np.asarray(batch.seq_starts, np.int64)
            counts = np.diff(starts)
            per_sequence = -(-counts * group // pages.QUERY_ROWS)
            sequence = np.repeat(np.arange(len(counts)), per_sequence)
            first = np.arange(len(sequence)) - np.repeat(np.cumsum(per_sequence) - per_sequence, per_sequence)
            columns = (sequence, starts[sequence], counts[sequence], first * pages.QUERY_ROWS)
            tiles = np.ascontiguousarray(np.stack(columns, 1), np.int32)
            self._tiles = (batch, group, tiles)
        return tiles


def rows_of(x: Tensor, columns: int) -> Tensor:
    """x as float32 [tokens, columns] with a contiguous last axis; copies only if it must."""
    rows = np.reshape(x, (-1, columns))
    if rows.dtype != np.float32 or (columns > 1 and rows.strides[1] != 4):
        rows = np.ascontiguousarray(rows, np.float32)
    return rows


def _descriptor(each: Linear, kind: str) -> tuple[int, ...]:
    weight = each.weight
    bias = 0 if each.bias is None else address(each.bias)
    return linear.descriptor(
        kind, address(weight.data), weight.data.strides[0], weight.rows, weight.columns, bias
    )


def _panel_bytes(columns: int) -> int:
    """Room for a panel of decoded rows: at least 16 of them."""
    return max(linear.PANEL_BYTES, 16 * 4 * columns)


def _rotation(tables: RopeTables | None) -> tuple[int, int, int]:
    """Half of rotary_dim, address of cos, address of sin; all 0 for no rotation."""
    return (0, 0, 0) if tables is None else (tables.cos.shape[1], address(tables.cos), address(tables.sin))


