"""The suite is a test too: it must fail on backends that are wrong in the ways backends are usually wrong.

Every class here is the oracle with one mistake. Controls without a mistake must pass.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from functools import partial
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.conformance import test_attention as usual_test_attention
from ferrum.conformance.parts import norms
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.compositions import Compositions
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import (
    Attention,
    Embedding,
    Experts,
    GatedMlp,
    Head,
    Norm,
    PlainMlp,
    sets_beyond,
)
from ferrum.tensor.weights import BlockWeight, Dense, Linear, Weight


def copy_of(module: str) -> ModuleType:
    """A module of the suite, imported a second time: its properties stop at the first failure, instead of spending
    seconds on the smallest one, and remember nothing."""
    settings.register_profile("meta", settings(), max_examples=1000, phases=[Phase.generate], database=None)
    spec = importlib.util.find_spec(f"ferrum.conformance.{module}")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    current = settings.get_current_profile_name()
    settings.load_profile("meta")  # a property keeps the settings under which it was defined
    spec.loader.exec_module(made)
    settings.load_profile(current)
    return made


test_attention, test_compositions, test_parts, test_primitives, test_random, test_shapes = map(
    copy_of, ("test_attention", "test_compositions", "test_parts", "test_primitives", "test_random", "test_shapes")
)


class LoopAttention(NumpyOps):
    """Attention once more, query by query. Right as it stands: the classes below break one line each."""

    def visible(self, position: int, window: int | None) -> range:
        return range(0 if window is None else max(0, position + 1 - window), position + 1)

    def kv_head(self, head: int, heads: int, kv_heads: int) -> int:
        return head // (heads // kv_heads)

    def cap(self, score: Any, scale: float, softcap: float | None) -> Any:
        return score * scale if softcap is None else softcap * np.tanh(score * scale / softcap)

    def paged_attention(self, query: Tensor, attention: Attention, layer: KvLayer, batch: StepBatch) -> Tensor:
        if attention.sinks is not None or not attention.causal:
            return super().paged_attention(query, attention, layer, batch)
        scale, window, softcap = attention.scale, attention.window, attention.softcap
        out = np.empty_like(query)
        heads, kv_heads, size = query.shape[1], layer.keys.shape[1], layer.block_size
        for token, position in enumerate(batch.positions):
            sequence = int(np.searchsorted(batch.seq_starts, token, "right")) - 1
            places = [(batch.block_tables[sequence, p // size], p % size) for p in self.visible(position, window)]
            for head in range(heads):
                own = self.kv_head(head, heads, kv_heads)
                keys = np.stack([layer.keys[block, own, :, offset] for block, offset in places]).astype(query.dtype)
                values = np.stack([layer.values[block, own, offset] for block, offset in places]).astype(query.dtype)
                weights = self.softmax(self.cap(keys @ query[token, head], scale, softcap))
                out[token, head] = weights @ values
        return out


class ReadsOneSlotTooFar(LoopAttention):
    def visible(self, position: int, window: int | None) -> range:
        return range(0 if window is None else max(0, position + 1 - window), position + 2)


class WindowWithoutItself(LoopAttention):
    def visible(self, position: int, window: int | None) -> range:
        return range(0 if window is None else max(0, position - window), position + 1)


class ForgetsTheWindow(LoopAttention):
    def visible(self, position: int, window: int | None) -> range:
        return range(position + 1)


class InterleavedHeads(LoopAttention):
    def kv_head(self, head: int, heads: int, kv_heads: int) -> int:
        return head % kv_heads


class CapsBeforeScaling(LoopAttention):
    def cap(self, score: Any, scale: float, softcap: float | None) -> Any:
        return score * scale if softcap is None else softcap * np.tanh(score / softcap) * scale


class WritesANeighbour(NumpyOps):
    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        super().kv_write(layer, key, value, slots)
        super().kv_write(layer, key[-1:], value[-1:], slots[-1:] ^ 1 if layer.block_size > 1 else slots[-1:])


class AttendsBeforeWriting(NumpyOps):
    def rope_attention(self, projections: Any, attention: Attention, tables: Any, layer: Any, batch: Any) -> Tensor:
        old = KvLayer(layer.keys.copy(), layer.values.copy())
        super().rope_attention(projections, attention, tables, layer, batch)
        scratch = KvLayer(layer.keys.copy(), layer.values.copy())
        with patch.object(self, "paged_attention", partial(self._attend_to, old)):
            return super().rope_attention(projections, attention, tables, scratch, batch)

    def _attend_to(self, old: KvLayer, query: Tensor, attention: Attention, layer: KvLayer, batch: Any) -> Tensor:
        return NumpyOps.paged_attention(self, query, attention, old, batch)


class NeighbouringPairs(NumpyOps):
    def rope(self, x: Tensor, tables: RopeTables, positions: Tensor) -> Tensor:
        out = np.array(x)
        cos, sin = (t[positions][:, None] for t in (tables.cos, tables.sin))
        turned = 2 * cos.shape[-1]
        even, odd = x[..., 0:turned:2], x[..., 1:turned:2]
        out[..., 0:turned:2], out[..., 1:turned:2] = even * cos - odd * sin, odd * cos + even * sin
        return out


class NoEpsilon(NumpyOps):
    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        return super().rms_norm(x, weight, 0.0)


class EpsilonOutsideTheRoot(NumpyOps):
    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        return x / (np.sqrt(np.mean(x * x, -1, keepdims=True)) + x.dtype.type(epsilon)) * weight


class UnshiftedSoftmax(NumpyOps):
    def softmax(self, x: Tensor) -> Tensor:
        e = self.exp(x)
        return self.div(e, self.sum(e, -1))


class LastOnATie(NumpyOps):
    def argmax(self, x: Tensor, axis: int) -> Tensor:
        return x.shape[axis] - 1 - np.argmax(np.flip(x, axis), axis)


class UnstableOrder(NumpyOps):
    def argsort(self, x: Tensor) -> Tensor:
        return np.argsort(x, -1, kind="stable")[..., ::-1]


def blocks_of(weight: Weight) -> np.ndarray:
    """A copy of a weight's data: uint8 [rows, blocks, bytes of a block]"""
    assert isinstance(weight, BlockWeight)
    return np.array(weight.data).reshape(weight.rows, -1, weight.block_bytes)


class SwappedNibbles(NumpyOps):
    def dequantize(self, weight: Weight) -> Tensor:
        if isinstance(weight, Dense) or weight.kind == "q8_0":
            return super().dequantize(weight)
        data = blocks_of(weight)
        codes = data[:, :, -16:]
        data[:, :, -16:] = codes >> 4 | codes << 4
        return weight.dequantize(self, data.reshape(weight.rows, -1))


class CutsGroupScales(NumpyOps):
    """Takes the scales and minimums of the last four groups of a K block for numbers of four bits."""

    def dequantize(self, weight: Weight) -> Tensor:
        if weight.kind not in ("q4_k", "q5_k"):
            return super().dequantize(weight)
        data = blocks_of(weight)
        data[:, :, 4:12] &= 63
        return weight.dequantize(self, data.reshape(weight.rows, -1))


class ForgetsHighBits(NumpyOps):
    def dequantize(self, weight: Weight) -> Tensor:
        places = {"q5_k": slice(16, 48), "q6_k": slice(128, 192)}
        if weight.kind not in places:
            return super().dequantize(weight)
        data = blocks_of(weight)
        data[:, :, places[weight.kind]] = 0
        return weight.dequantize(self, data.reshape(weight.rows, -1))


class DropsTheRest(NumpyOps):
    """Works in tiles of four rows."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        y = super().linear(x, linear)
        y[:, y.shape[1] // 4 * 4 :] = 0
        return y


class ForgetsTheBias(NumpyOps):
    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        return super().linear(x, Linear(linear.weight))


class HalfPrecision(NumpyOps):
    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        rounded = x.astype(np.float16).astype(x.dtype) if isinstance(linear.weight, BlockWeight) else x
        return super().linear(rounded, linear)


class ScalesByTheBatch(NumpyOps):
    """Rounds activations to 8 bits of the largest in the batch."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        step = np.abs(x).max() / 127 + 1e-9
        return super().linear((np.round(x / step) * step).astype(x.dtype), linear)


class ChangesItsInput(NumpyOps):
    def linear_add(
        self, x: Tensor, linear: Linear, residual: Tensor, after: Norm | None = None, scale: float = 1.0
    ) -> Tensor:
        result = super().linear_add(x, linear, residual, after, scale)
        if residual.flags.writeable:
            residual[...] = result
        return result


class AssumesContiguity(NumpyOps):
    def silu(self, x: Tensor) -> Tensor:
        return super().silu(np.reshape(x, -1, order="K").reshape(np.shape(x)))


class ReturnsItsInput(NumpyOps):
    def relu(self, x: Tensor) -> Tensor:
        return x if (x >= 0).all() else super().relu(x)


class GatesWithTheSecond(NumpyOps):
    def gated(self, gate: Tensor, up: Tensor, mlp: GatedMlp) -> Tensor:
        return super().gated(up, gate, mlp)


class ChoosesByArithmetic(NumpyOps):
    def where(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        chosen = np.asarray(condition).astype(self.float_dtype)
        return chosen * x + (1 - chosen) * y


class SwallowsNaN(NumpyOps):
    def maximum(self, x: Tensor, y: Tensor) -> Tensor:
        return np.fmax(x, y)


class TruncatesToBfloat16(NumpyOps):
    def cast(self, x: Tensor, dtype: str) -> Tensor:
        if dtype == "bfloat16" and x.dtype == np.float32:
            bits = np.array(x).view(np.uint32) & np.uint32(0xFFFF0000)
            x = bits.view(np.float32)
        return super().cast(x, dtype)


class OtherWord(NumpyOps):
    def uniform(self, shape: Any, key: int, stream: int = 0) -> Tensor:
        return super().uniform(shape, key, stream + 1)


class SignedShift(NumpyOps):
    def right_shift(self, x: Tensor, y: Tensor) -> Tensor:
        signed = np.dtype(f"int{8 * x.dtype.itemsize}")
        return np.right_shift(x.view(signed), y.astype(signed)).view(x.dtype)


BROKEN: list[tuple[type[NumpyOps], Callable[..., None], dict[str, Any]]] = [
    (ReadsOneSlotTooFar, test_attention.test_a_query_sees_its_own_sequence_up_to_itself, {}),
    (WindowWithoutItself, test_attention.test_a_window_counts_the_query_itself, {}),
    (ForgetsTheWindow, test_attention.test_a_window_counts_the_query_itself, {}),
    (InterleavedHeads, test_attention.test_query_heads_share_key_heads_in_consecutive_groups, {}),
    (InterleavedHeads, test_attention.test_a_query_sees_its_own_sequence_up_to_itself, {}),
    (CapsBeforeScaling, test_attention.test_scores_are_scaled_and_then_capped, {}),
    (WritesANeighbour, test_attention.test_kv_write_touches_its_slots_and_no_others, {}),
    (WritesANeighbour, test_attention.test_rope_attention_normalises_rotates_writes_and_then_attends, {}),
    (AttendsBeforeWriting, test_attention.test_rope_attention_normalises_rotates_writes_and_then_attends, {}),
    (NeighbouringPairs, test_attention.test_rope_turns_pairs_that_lie_half_a_rotation_apart, {}),
    (NoEpsilon, test_compositions.test_norms_add_epsilon_under_the_root, {}),
    (EpsilonOutsideTheRoot, test_compositions.test_norms_add_epsilon_under_the_root, {}),
    (UnshiftedSoftmax, test_compositions.test_softmax_of_any_row_with_a_survivor, {}),
    (LastOnATie, test_primitives.test_the_lowest_index_wins_a_tie, {}),
    (LastOnATie, test_primitives.test_argmax_along_any_axis, {}),
    (UnstableOrder, test_primitives.test_the_lowest_index_wins_a_tie, {}),
    (SwappedNibbles, test_compositions.test_dequantize_reads_the_bytes, {"kind": "q4_0"}),
    (SwappedNibbles, test_compositions.test_dequantize_reads_the_bytes, {"kind": "q4_k"}),
    (SwappedNibbles, test_compositions.test_linear_with_every_kind_of_weight, {"kind": "q4_1"}),
    (SwappedNibbles, test_parts.test_norm_linears_is_each_linear_of_the_norm, {}),
    (CutsGroupScales, test_compositions.test_dequantize_reads_the_bytes, {"kind": "q4_k"}),
    (CutsGroupScales, test_parts.test_norm_linears_is_each_linear_of_the_norm, {}),
    (CutsGroupScales, test_parts.test_norm_gated_is_all_but_the_last_linear, {}),
    (CutsGroupScales, test_parts.test_linear_add_is_linear_then_norm_then_add, {}),
    (ForgetsHighBits, test_compositions.test_dequantize_reads_the_bytes, {"kind": "q5_k"}),
    (ForgetsHighBits, test_compositions.test_linear_with_every_kind_of_weight, {"kind": "q6_k"}),
    (DropsTheRest, test_compositions.test_linear_with_every_kind_of_weight, {"kind": "float32"}),
    (ForgetsTheBias, test_compositions.test_linear_with_every_kind_of_weight, {"kind": "bfloat16"}),
    (HalfPrecision, test_compositions.test_linear_with_every_kind_of_weight, {"kind": "q8_0"}),
    (ScalesByTheBatch, test_parts.test_a_row_of_a_batch_is_the_row_alone, {}),
    (ChangesItsInput, test_parts.test_linear_add_is_linear_then_norm_then_add, {}),
    (AssumesContiguity, test_compositions.test_activations, {"name": "silu"}),
    (ReturnsItsInput, test_shapes.test_a_result_is_a_new_tensor, {"name": "relu"}),
    (GatesWithTheSecond, test_parts.test_gated_gates_with_its_first_argument, {}),
    (ChoosesByArithmetic, test_primitives.test_where_chooses_and_never_mixes, {}),
    (SwallowsNaN, test_primitives.test_nan_and_infinity_follow_ieee, {}),
    (TruncatesToBfloat16, test_shapes.test_cast_rounds_to_nearest_even, {}),
    (TruncatesToBfloat16, test_shapes.test_cast_halfway_cases, {"to": "bfloat16"}),
    (OtherWord, test_random.test_uniform_is_a_function_of_key_stream_and_index, {}),
    (SignedShift, test_primitives.test_right_shift_fills_with_zeros, {}),
]


def without(part: Any, field: str) -> Any:
    """The part with one field at its default; a backend that knows nothing of the field sees this."""
    plain = next(each.default for each in fields(part) if each.name == field)
    return replace(part, **{field: plain})


OPTIONAL = [
    (kind, each.name)
    for kind in (RopeTables, Norm, Embedding, Attention, GatedMlp, PlainMlp, Experts, Head)
    for each in fields(kind)
    if each.default is not MISSING
]
SUITES: dict[type[Any], list[Callable[..., None]]] = {
    RopeTables: [test_attention.test_rope_attention_normalises_rotates_writes_and_then_attends],
    Norm: [test_parts.test_normed_is_the_norm_that_a_model_has],
    Embedding: [test_parts.test_embedded_scales_rows_adds_to_them_and_normalises_the_sum],
    Attention: [test_attention.test_rope_attention_normalises_rotates_writes_and_then_attends],
    GatedMlp: [test_parts.test_gated_gates_with_its_first_argument],
    PlainMlp: [test_parts.test_norm_activated_is_all_but_the_last_linear],
    Experts: [test_parts.test_a_token_is_computed_by_the_experts_that_its_router_chooses],
    Head: [test_parts.test_logits_are_scaled_and_then_capped],
}
PLACES = {
    RopeTables: "rope_attention",
    Norm: "normed",
    Embedding: "embedded",
    Attention: "rope_attention",
    GatedMlp: "gated",
    PlainMlp: "norm_activated",
    Experts: "norm_experts",
    Head: "logits",
}
"""The composition that every use of a part goes through."""


@pytest.mark.clause("OPS-59")
@pytest.mark.parametrize(("kind", "field"), OPTIONAL, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_backend_that_knows_nothing_of_a_field_is_caught(kind: type[Any], field: str) -> None:
    """The suite sets every field of every part: no kernel can leave one out."""

    def ignorant(self: NumpyOps, *arguments: Any) -> Any:
        known = [without(each, field) if isinstance(each, kind) else each for each in arguments]
        return getattr(NumpyOps, PLACES[kind])(self, *known)

    broken = type(f"Without{field}", (NumpyOps,), {PLACES[kind]: ignorant})
    assert not any(survives(broken(), prove, {}) for prove in SUITES[kind])


@pytest.mark.clause("OPS-59")
@given(data=st.data())
def test_a_field_in_use_is_seen(data: st.DataObject) -> None:
    norm = data.draw(norms(4)).place(NumpyOps())
    known = data.draw(st.sets(st.sampled_from(["bias", "centred"])))
    used = {name for name, is_used in (("bias", norm.bias is not None), ("centred", norm.centred)) if is_used}
    assert sets_beyond(norm, known | {"weight", "epsilon"}) == bool(used - known)
    assert sets_beyond(norm, known | {"weight"})  # what has no default is always in use


CONTROLS = list(dict.fromkeys(prove.__name__ for _, prove, _ in BROKEN if prove.__module__ == test_attention.__name__))


def survives(ops: Compositions, prove: Callable[..., None], arguments: dict[str, Any]) -> bool:
    """Does a property hold on this backend?"""
    try:
        prove(ops=ops, **arguments)
    except Exception:
        return False
    return True


@pytest.mark.clause("OPS-11")
@pytest.mark.parametrize(("broken", "prove", "arguments"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_broken_backend_is_caught(broken: type[NumpyOps], prove: Any, arguments: dict[str, Any]) -> None:
    assert not survives(broken(), prove, arguments), f"{prove.__name__} does not notice {broken.__name__}"


@pytest.mark.clause("OPS-11")
@pytest.mark.parametrize("name", CONTROLS)
def test_another_right_way_passes(name: str) -> None:
    """As many examples as for any other backend: looking harder is for finding mistakes."""
    assert survives(LoopAttention(), getattr(usual_test_attention, name), {})


@pytest.mark.clause("OPS-01")
def test_a_missing_primitive_is_caught() -> None:
    methods = {name: value for name, value in vars(NumpyOps).items() if name not in ("erf", "__dict__", "__weakref__")}
    lacking = type("Lacking", (Compositions,), methods)()
    assert survives(lacking, test_primitives.test_every_primitive_is_there, {"name": "tanh"})
    assert not survives(lacking, test_primitives.test_every_primitive_is_there, {"name": "erf"})
