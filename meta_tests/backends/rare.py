"""Faults at operands that are right and rare: the sign of a NaN, a second table, a limit of 0, equal lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.batch import RopeTables, StepBatch
from ferrum.tensor.compositions import Step
from ferrum.tensor.ops import Shape, Tensor
from ferrum.tensor.parts import Experts, GatedMlp, Head
from ferrum.tensor.weights import BlockWeight, Linear, Weight
from meta_tests.backends.fault import caught_by


@caught_by("test_both_halves_of_a_word_are_computed")
class XorOfLowHalves(NumpyOps):
    """Takes the exclusive or of the low 32 bits alone, which is all that random numbers need."""

    def bitwise_xor(self, x: Tensor, y: Tensor) -> Tensor:
        return super().bitwise_xor(x, y & np.uint64(0xFFFFFFFF) if y.dtype == np.uint64 else y)


@caught_by("test_no_float_stands_between_integers_and_their_quotient", bits=32)
class DividesThroughFloat32(NumpyOps):
    """Divides int32 as float32."""

    def floor_divide(self, x: Tensor, y: Tensor) -> Tensor:
        return np.floor(np.divide(x, y, dtype=np.float32)).astype(x.dtype) if x.dtype == np.int32 else x // y


@caught_by("test_a_column_is_no_row", side=17)
class TurnsSquareMask(NumpyOps):
    """Finds the axis of a mask by its length, and takes the last one."""

    def where(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        if condition.ndim == 2 and condition.shape[1] == 1 and x.shape[-1:] == condition.shape[:1]:
            condition = condition.T
        return super().where(condition, x, y)


@caught_by("test_a_nan_has_no_sign_and_no_axis", sign=-1)
class SortsNanByItsSign(NumpyOps):
    """Sorts by bits: a NaN with the sign bit is the smallest number."""

    def argsort(self, x: Tensor) -> Tensor:
        return super().argsort(
            np.where(np.isnan(x) & np.signbit(x), x.dtype.type(-np.inf), x) if x.dtype.kind == "f" else x
        )


@caught_by("test_the_largest_of_large_negative_numbers_is_one_of_them")
class LargestFromMinus1e30(NumpyOps):
    """Starts the search for the largest number from -1e30."""

    def max(self, x: Tensor, axis: int) -> Tensor:
        largest = super().max(x, axis)
        return np.maximum(largest, largest.dtype.type(-1e30)) if largest.dtype.kind == "f" else largest


@caught_by("test_small_integers_have_a_sign")
class Int8WithoutSign(NumpyOps):
    """Looks for the largest int8 among bytes."""

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        return super().argmax(x.view(np.uint8) if x.dtype == np.int8 else x, axis)


@caught_by("test_nothing_times_no_number_is_no_number", bad=np.nan)
class PassesOverZeros(NumpyOps):
    """Leaves rows of zeros out of a product."""

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return np.where(x.any(-1, keepdims=True), super().matmul(x, y), x.dtype.type(0))


@caught_by("test_large_numbers_have_a_quotient")
class FastDivision(NumpyOps):
    """Divides as `__fdividef` does: by more than 2**126 it gives 0."""

    def div(self, x: Tensor, y: Tensor) -> Tensor:
        quotient = super().div(x, y)
        return np.where(np.abs(y) > 2.0**126, quotient.dtype.type(0), quotient)


@caught_by("test_a_long_running_total_of_float64_stays_one", count=9000)
class CarriesFloat32(NumpyOps):
    """Carries a running total of float64 from tile to tile as float32."""

    def cumsum(self, x: Tensor, axis: int) -> Tensor:
        if x.dtype != np.float64 or x.shape[axis] <= 8192:
            return super().cumsum(x, axis)
        first, second = super().cumsum(x[..., :8192], -1), super().cumsum(x[..., 8192:], -1)
        return np.concatenate((first, second + first[..., -1:].astype(np.float32)), -1)


@caught_by("test_functions_of_a_width_that_fills_no_register", width=97)
class SineWithoutRest(NumpyOps):
    """Leaves what fills no register of 32 as it was."""

    def sin(self, x: Tensor) -> Tensor:
        whole = x.shape[-1] // 32 * 32 if x.ndim else 0
        return np.concatenate((super().sin(x[..., :whole]), x[..., whole:]), -1) if whole else super().sin(x)


@caught_by("test_what_is_made_twice_is_two", shape=(5,), dtype="float32")
class OneEmptyForAll(NumpyOps):
    """Returns the same memory for every request of one shape."""

    def empty(self, shape: Shape, dtype: str) -> Tensor:
        known: dict[Any, Tensor] = vars(self).setdefault("_empty", {})
        return known.setdefault((tuple(shape), dtype), super().empty(shape, dtype))


@caught_by("test_blocks_of_real_size_are_stored_in_any_order")
class StoresInOrder(NumpyOps):
    """Stores many rows in the order of their places."""

    def store(self, x: Tensor, places: np.ndarray, rows: Sequence[int]) -> None:
        super().store(x, places, sorted(rows) if len(rows) > 16 else rows)


@caught_by("test_what_was_read_outlasts_later_reads", shape=(33, 2100))
class ReadsThroughOneBuffer(NumpyOps):
    """Reads large tensors through one buffer of the host."""

    def to_numpy(self, x: Tensor) -> np.ndarray:
        if x.size <= 4096:
            return super().to_numpy(x)
        buffers: dict[Any, np.ndarray] = vars(self).setdefault("_buffers", {})
        buffer = buffers.setdefault((x.shape, x.dtype), np.empty_like(x))
        buffer[...] = x
        return buffer


@caught_by("test_layers_may_turn_by_different_tables")
class OneTableForAllLayers(NumpyOps):
    """Keeps the tables that it used last at the same positions."""

    def rope(self, x: Tensor, tables: RopeTables, positions: Tensor) -> Tensor:
        known: dict[Any, RopeTables] = vars(self).setdefault("_tables", {})
        return super().rope(x, known.setdefault((positions.tobytes(), tables.cos.shape), tables), positions)


@caught_by("test_wide_heads_are_turned_whole", head_dim=256, half=128)
class TurnsHalfOfWideHeads(NumpyOps):
    """Has threads for 64 pairs of a head."""

    def rope(self, x: Tensor, tables: RopeTables, positions: Tensor) -> Tensor:
        half, turned = tables.cos.shape[1], super().rope(x, tables, positions).copy()
        for start in (0, half):
            turned[..., start + 64 : start + half] = x[..., start + 64 : start + half]
        return turned


@caught_by("test_a_weight_that_changes_in_its_middle_is_another")
class KnowsWeightsByTheirEnds(NumpyOps):
    """Keeps unpacked weights under their first and last bytes."""

    def dequantize(self, weight: Weight) -> Tensor:
        if not isinstance(weight, BlockWeight):
            return super().dequantize(weight)
        flat, known = np.ascontiguousarray(weight.data).reshape(-1), vars(self).setdefault("_known", {})
        key = (weight.kind, weight.data.shape, flat[:64].tobytes(), flat[-64:].tobytes())
        return known.setdefault(key, super().dequantize(weight))


@caught_by("test_products_with_a_rest_in_both_directions", kind="q8_0", tokens=50, rows=133)
class RestOfManyTokens(NumpyOps):
    """Computes no columns that fill no tile of 8, where there are 48 tokens or more."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        y = super().linear(x, linear).copy()
        if len(x) >= 48 and y.shape[1] % 8:
            y[:, y.shape[1] // 8 * 8 :] = 0
        return y


@caught_by("test_a_scale_of_zero_adds_nothing")
class ZeroIsNoScale(NumpyOps):
    """Takes a scale of 0 for none."""

    def residual_add(self, y: Tensor, residual: Tensor, after: Any = None, scale: float = 1.0) -> Tensor:
        return super().residual_add(y, residual, after, scale or 1.0)


@caught_by("test_a_limit_comes_before_an_offset_and_may_be_0", limit=0.0, offset=0.0)
class ZeroIsNoLimit(NumpyOps):
    """Takes a limit of 0 for none."""

    def gated(self, gate: Tensor, up: Tensor, mlp: GatedMlp) -> Tensor:
        return super().gated(gate, up, replace(mlp, limit=mlp.limit or None))


@caught_by("test_one_expert_or_all_of_them", tokens=9, chosen=1, normalised=False)
class OneExpertWithoutWeight(NumpyOps):
    """Gives a single expert the weight 1."""

    def norm_experts(self, x: Tensor, norm: Any, experts: Experts) -> Tensor:
        return super().norm_experts(x, norm, replace(experts, normalised=experts.normalised or experts.chosen == 1))


@caught_by("test_logits_are_scaled_before_they_are_capped")
class CapsBeforeItScales(NumpyOps):
    """Caps logits first and scales them then."""

    def logits(self, x: Tensor, head: Head) -> Tensor:
        return self.mul(super().logits(x, replace(head, scale=1.0)), self.scalar(head.scale))


@caught_by("test_every_row_has_settings_of_its_own", rows=130)
class ColdIsGreedy(NumpyOps):
    """Takes the best token below a temperature of 0.001."""

    def choose(self, logits: Tensor, settings: Tensor) -> Tensor:
        cold = settings[:, :1] < 1e-3
        return super().choose(logits, np.concatenate((np.where(cold, 0, settings[:, :1]), settings[:, 1:]), 1))


@caught_by("test_keys_and_streams_of_any_size", key=3, folded=3, stream=2**32 + 3)
class NormalOfShortStreams(NumpyOps):
    """Makes normal numbers of the low 32 bits of a stream."""

    def normal(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        return super().normal(shape, key, stream % 2**32)


@caught_by("test_a_replay_has_the_bits_of_the_step", name="dense")
class ReplaysTheFirstTables(NumpyOps):
    """Replays a step with the block tables of the first batch of its shape, and counts no replays."""

    def run_step(self, step: Step, batch: StepBatch) -> Tensor:
        known: dict[Any, Tensor] = vars(self).setdefault("_tables", {})
        tables = known.setdefault((step, batch.block_tables.shape), batch.block_tables.copy())
        return super().run_step(step, replace(batch, block_tables=tables))


@caught_by("test_a_replay_reads_weights_as_they_are_now")
class KnowsTheLastBatch(NumpyOps):
    """Gives the last result again where the batch is the same object."""

    def run_step(self, step: Step, batch: StepBatch) -> Tensor:
        known: dict[Any, Any] = vars(self).setdefault("_last", {})
        if (step, batch) not in known:
            known[step, batch] = super().run_step(step, batch)
        return known[step, batch]
