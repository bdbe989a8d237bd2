"""Faults in rotary embedding: pairs, directions, positions, and what is left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention
from meta_tests.backends.fault import caught_by


@caught_by("test_rope_turns_pairs_that_lie_half_a_rotation_apart")
class NeighbouringPairs(NumpyOps):
    """Turns dimension 2i with 2i + 1, as the first llama files had them."""

    def rope(self, x: Tensor, tables: RopeTables, positions: Tensor) -> Tensor:
        out = np.array(x)
        cos, sin = (t[positions][:, None] for t in (tables.cos, tables.sin))
        turned = 2 * cos.shape[-1]
        even, odd = x[..., 0:turned:2], x[..., 1:turned:2]
        out[..., 0:turned:2], out[..., 1:turned:2] = even * cos - odd * sin, odd * cos + even * sin
        return out


@caught_by("test_rope_turns_pairs_that_lie_half_a_rotation_apart")
class PairsOfTheWholeHead(NumpyOps):
    """Turns dimension i with i + head_dim / 2, even where only a part of a head is rotated."""

    def rope(self, x: Tensor, tables: RopeTables, positions: Tensor) -> Tensor:
        out = np.array(x)
        cos, sin = (t[positions][:, None] for t in (tables.cos, tables.sin))
        half, middle = cos.shape[-1], x.shape[-1] // 2
        first, second = x[..., :half], x[..., middle : middle + half]
        out[..., :half], out[..., middle : middle + half] = first * cos - second * sin, second * cos + first * sin
        return out


@caught_by("test_rope_turns_pairs_that_lie_half_a_rotation_apart")
class TurnsBackwards(NumpyOps):
    """Turns by the negative angle."""

    def rope(self, x: Tensor, tables: RopeTables, positions: Tensor) -> Tensor:
        return super().rope(x, replace(tables, sin=-tables.sin), positions)


@caught_by("test_rope_turns_pairs_that_lie_half_a_rotation_apart")
class DropsTheRestOfAHead(NumpyOps):
    """Leaves the dimensions that are not rotated unwritten."""

    def rope(self, x: Tensor, tables: RopeTables, positions: Tensor) -> Tensor:
        out = super().rope(x, tables, positions)
        out[..., 2 * tables.cos.shape[1] :] = 0
        return out


class Positions:
    """Base of the faults that find another row of the table."""

    def seen(self, positions: Tensor, rows: int) -> Tensor:
        raise NotImplementedError

    def rope(self, x: Tensor, tables: RopeTables, positions: Tensor) -> Tensor:
        wrong: Tensor = self.seen(positions, len(tables.cos))
        return super().rope(x, tables, wrong)  # type: ignore[misc]


@caught_by("test_rope_far_along", tokens=9, heads=3, head_dim=256, half=64)
class PositionsOf8Bits(Positions, NumpyOps):
    """Counts positions in bytes."""

    def seen(self, positions: Tensor, rows: int) -> Tensor:
        return positions & 255


@caught_by("test_rope_far_along", tokens=9, heads=3, head_dim=256, half=64)
class PositionsOf4096(Positions, NumpyOps):
    """Begins the table again after 4096 positions."""

    def seen(self, positions: Tensor, rows: int) -> Tensor:
        return positions & 4095


@caught_by("test_rope_far_along", tokens=2051, heads=2, head_dim=16, half=8)
class PositionsOf16Bits(Positions, NumpyOps):
    """Begins the table again after 65536 positions."""

    def seen(self, positions: Tensor, rows: int) -> Tensor:
        return positions & 0xFFFF


@caught_by("test_rope_far_along", tokens=9, heads=3, head_dim=256, half=64)
class PositionsInHalf(Positions, NumpyOps):
    """Holds positions in float16: beyond 2048 neighbours are one."""

    def seen(self, positions: Tensor, rows: int) -> Tensor:
        rounded = np.minimum(positions, 60000).astype(np.float16).astype(np.int32)
        return np.minimum(np.where(positions > 60000, positions, rounded), rows - 1)


@caught_by("test_rope_turns_pairs_that_lie_half_a_rotation_apart")
class PositionsOfTheStep(Positions, NumpyOps):
    """Counts positions from the beginning of the step: right for a prompt that comes at once."""

    def seen(self, positions: Tensor, rows: int) -> Tensor:
        return np.arange(len(positions), dtype=np.int32) % rows


@caught_by("test_rope_turns_pairs_that_lie_half_a_rotation_apart")
class PositionOfTheFirst(Positions, NumpyOps):
    """Counts on from the first token's position: right for one sequence alone."""

    def seen(self, positions: Tensor, rows: int) -> Tensor:
        return (positions[0] + np.arange(len(positions), dtype=np.int32)) % rows


@caught_by("test_rope_turns_pairs_that_lie_half_a_rotation_apart")
class TablesOfOneHead(NumpyOps):
    """Turns the first head of a token and copies the others."""

    def rope(self, x: Tensor, tables: RopeTables, positions: Tensor) -> Tensor:
        out = np.array(x)
        out[:, :1] = super().rope(x[:, :1], tables, positions)
        return out


@caught_by("test_rope_turns_pairs_that_lie_half_a_rotation_apart")
class AnglesInBfloat16(NumpyOps):
    """Keeps its tables in bfloat16."""

    def rope(self, x: Tensor, tables: RopeTables, positions: Tensor) -> Tensor:
        cos, sin = (self.cast(self.cast(t, "bfloat16"), self.float_dtype) for t in (tables.cos, tables.sin))
        return super().rope(x, RopeTables(cos, sin), positions)


class Fused(NumpyOps):
    """Base of the faults in the fused operation: what it hands on may be changed."""

    def handed(self, projections: Any, attention: Attention, tables: Any, batch: StepBatch) -> Any:
        raise NotImplementedError

    def rope_attention(
        self, projections: Any, attention: Attention, tables: RopeTables | None, layer: KvLayer, batch: StepBatch
    ) -> Tensor:
        projections, attention, tables, batch = self.handed(projections, attention, tables, batch)
        return super().rope_attention(projections, attention, tables, layer, batch)


@caught_by("test_rope_attention_normalises_rotates_writes_and_then_attends")
class KeysAreNotNormed(Fused):
    """Normalises queries only."""

    def handed(self, projections: Any, attention: Attention, tables: Any, batch: StepBatch) -> Any:
        return projections, replace(attention, key_norm=None), tables, batch


@caught_by("test_rope_attention_normalises_rotates_writes_and_then_attends")
class QueriesNormKeys(Fused):
    """Normalises keys with the numbers of the queries."""

    def handed(self, projections: Any, attention: Attention, tables: Any, batch: StepBatch) -> Any:
        query, key = attention.query_norm, attention.key_norm
        fits = query is not None and key is not None and query.weight.shape == key.weight.shape
        return projections, replace(attention, key_norm=query if fits else key), tables, batch


@caught_by("test_rope_attention_normalises_rotates_writes_and_then_attends")
class ValuesAreRotated(Fused):
    """Rotates values as well."""

    def handed(self, projections: Any, attention: Attention, tables: Any, batch: StepBatch) -> Any:
        query, key, value = projections
        if tables is not None:
            heads = value.reshape(len(value), -1, attention.head_dim)
            value = self.rope(heads, tables, batch.positions).reshape(value.shape)
        return (query, key, value), attention, tables, batch


@caught_by("test_rope_attention_far_along", name="a position beyond 16 bits")
class KeysGrow(Fused):
    """Multiplies keys, too, with what queries grow by."""

    def handed(self, projections: Any, attention: Attention, tables: Any, batch: StepBatch) -> Any:
        query, key, value = projections
        if tables is not None and tables.growth is not None and attention.key_norm is None:
            key = key * tables.growth[batch.positions][:, None]
        return (query, key, value), attention, tables, batch


@caught_by("test_rope_attention_normalises_rotates_writes_and_then_attends")
class GrowsByTheIndex(Fused):
    """Takes the growth of a query from its number in the step."""

    def handed(self, projections: Any, attention: Attention, tables: Any, batch: StepBatch) -> Any:
        if tables is not None and tables.growth is not None:
            tables = replace(tables, growth=np.resize(tables.growth[: len(batch.positions)], tables.growth.shape))
        return projections, attention, tables, batch
