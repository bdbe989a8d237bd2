"""Faults in attention: which positions a query sees, and how they are weighed."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.batch import KvLayer
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention
from meta_tests.backends.fault import caught_by
from meta_tests.backends.right_attention import LoopAttention


@caught_by("test_a_query_sees_its_own_sequence_up_to_itself")
class ReadsOneSlotTooFar(LoopAttention):
    """Sees one position more than there are."""

    def visible(self, position: int, context: int, attention: Attention) -> range:
        seen = super().visible(position, context, attention)
        return range(seen.start, seen.stop + 1)


@caught_by("test_a_window_counts_the_query_itself")
class WindowWithoutItself(LoopAttention):
    """Does not count the query itself in its window (as in vllm #3385)."""

    def visible(self, position: int, context: int, attention: Attention) -> range:
        seen = super().visible(position, context, attention)
        return seen if attention.window is None else range(max(0, position - attention.window), seen.stop)


@caught_by("test_a_window_counts_the_query_itself")
class ForgetsTheWindow(LoopAttention):
    """Attends to the whole context (as in mistral.rs #2094)."""

    def visible(self, position: int, context: int, attention: Attention) -> range:
        return range(super().visible(position, context, attention).stop)


@caught_by("test_a_window_counts_the_query_itself")
class WindowOfWholeBlocks(LoopAttention):
    """Begins a window where a block of 16 begins."""

    def visible(self, position: int, context: int, attention: Attention) -> range:
        seen = super().visible(position, context, attention)
        return range(seen.start // 16 * 16, seen.stop)


@caught_by("test_a_window_counts_the_query_itself")
class WindowFromTheEnd(LoopAttention):
    """Gives every query of a chunk the window of the last one."""

    def visible(self, position: int, context: int, attention: Attention) -> range:
        seen, window = super().visible(position, context, attention), attention.window
        first = 0 if window is None or not attention.causal else min(position, max(0, context - window))
        return range(first if window is not None and attention.causal else seen.start, seen.stop)


@caught_by("test_attention_that_is_not_causal_sees_later_positions_too")
class CausalInAnyCase(LoopAttention):
    """Knows causal attention only."""

    def visible(self, position: int, context: int, attention: Attention) -> range:
        return range(super().visible(position, context, attention).start, position + 1)


@caught_by("test_attention_that_is_not_causal_sees_later_positions_too")
class WindowToOneSide(LoopAttention):
    """Lets an encoder's window reach back only."""

    def visible(self, position: int, context: int, attention: Attention) -> range:
        seen = super().visible(position, context, attention)
        return seen if attention.causal or attention.window is None else range(seen.start, context)


@caught_by("test_a_query_sees_its_own_sequence_up_to_itself")
class MasksNothing(LoopAttention):
    """Lets a query see the later positions of its chunk."""

    def visible(self, position: int, context: int, attention: Attention) -> range:
        return range(super().visible(position, context, attention).start, context)


@caught_by("test_query_heads_share_key_heads_in_consecutive_groups")
@caught_by("test_a_query_sees_its_own_sequence_up_to_itself")
class InterleavedHeads(LoopAttention):
    """Shares key heads with every second or third query head, not with neighbours."""

    def kv_head(self, head: int, heads: int, kv_heads: int) -> int:
        return head % kv_heads


@caught_by("test_attention_at_real_sizes", name="a decode far along")
class GroupsOfFour(LoopAttention):
    """Has registers for four query heads of a group."""

    def kv_head(self, head: int, heads: int, kv_heads: int) -> int:
        return min(head // min(heads // kv_heads, 4), kv_heads - 1)


@caught_by("test_attention_at_real_sizes", name="a chunk far along")
class FourKeyHeads(LoopAttention):
    """Finds key heads with two bits."""

    def kv_head(self, head: int, heads: int, kv_heads: int) -> int:
        return super().kv_head(head, heads, kv_heads) & 3


@caught_by("test_scores_are_scaled_and_then_capped")
class CapsBeforeScaling(LoopAttention):
    """Caps scores before it scales them."""

    def scores(self, keys: Tensor, query: Tensor, attention: Attention) -> Tensor:
        scale, cap = attention.scale, attention.softcap
        scores = keys @ query
        return scores * scale if cap is None else cap * np.tanh(scores / cap) * scale


@caught_by("test_scores_are_scaled_and_then_capped")
class ClipsScores(LoopAttention):
    """Cuts scores off at the cap."""

    def scores(self, keys: Tensor, query: Tensor, attention: Attention) -> Tensor:
        scores, cap = (keys @ query) * query.dtype.type(attention.scale), attention.softcap
        return scores if cap is None else np.clip(scores, -cap, cap)


@caught_by("test_a_query_sees_its_own_sequence_up_to_itself")
class ScalesByTheHead(LoopAttention):
    """Scales by the root of the head's size, whatever the model says."""

    def scores(self, keys: Tensor, query: Tensor, attention: Attention) -> Tensor:
        cap = attention.softcap
        scores = (keys @ query) / query.dtype.type(np.sqrt(len(query)))
        return scores if cap is None else cap * np.tanh(scores / cap)


@caught_by("test_a_query_sees_its_own_sequence_up_to_itself")
class ScoresInHalf(LoopAttention):
    """Adds scores up in float16."""

    def scores(self, keys: Tensor, query: Tensor, attention: Attention) -> Tensor:
        return super().scores(keys, query, attention).astype(np.float16).astype(query.dtype)


@caught_by("test_attention_at_real_sizes", name="a decode far along")
class HeadsOf128(LoopAttention):
    """Has room for 128 dimensions of a head."""

    def scores(self, keys: Tensor, query: Tensor, attention: Attention) -> Tensor:
        return super().scores(keys[:, :128], query[:128], attention)


@caught_by("test_a_query_sees_its_own_sequence_up_to_itself")
class HeadsInSixteens(LoopAttention):
    """Adds up whole sixteens of a head's dimensions (as in vllm #34570)."""

    def scores(self, keys: Tensor, query: Tensor, attention: Attention) -> Tensor:
        whole = len(query) // 16 * 16
        return super().scores(keys[:, :whole], query[:whole], attention)


@caught_by("test_scores_may_be_of_any_size")
class ExponentialsOfScores(LoopAttention):
    """Does not shift scores by the largest of them: some exponentials overflow."""

    def weights(self, scores: Tensor, sink: Tensor | None) -> Tensor:
        beside = scores if sink is None else np.concatenate([scores, sink])
        powers = self.exp(beside)
        return (powers / powers.sum())[: len(scores)]


@caught_by("test_a_low_score_alone_has_all_the_weight")
class RunningMaximumFromZero(LoopAttention):
    """Begins the running maximum of an online softmax with 0: exponentials of low scores vanish."""

    def weights(self, scores: Tensor, sink: Tensor | None) -> Tensor:
        beside = scores if sink is None else np.concatenate([scores, sink])
        powers = self.exp(beside - np.maximum(beside.max(), 0))
        return (powers / powers.sum())[: len(scores)]


@caught_by("test_attention_at_real_sizes", name="a decode far along")
class PartsOf512(LoopAttention):
    """Joins the parts of a long context without weighing them by their sums."""

    def weights(self, scores: Tensor, sink: Tensor | None) -> Tensor:
        if len(scores) <= 512:
            return super().weights(scores, sink)
        parts = [super(PartsOf512, self).weights(scores[at : at + 512], sink) for at in range(0, len(scores), 512)]
        return np.concatenate(parts) / len(parts)


@caught_by("test_attention_at_real_sizes", name="a decode beyond 4096")
class ContextOf2048(LoopAttention):
    """Has shared memory for 2048 scores."""

    def visible(self, position: int, context: int, attention: Attention) -> range:
        seen = super().visible(position, context, attention)
        return range(max(seen.start, seen.stop - 2048), seen.stop)


@caught_by("test_a_sink_takes_weight_and_gives_nothing")
class SinkIsNotShifted(LoopAttention):
    """Adds the exponential of a sink that is not shifted as the scores are."""

    def weights(self, scores: Tensor, sink: Tensor | None) -> Tensor:
        powers = self.exp(scores - scores.max())
        return powers / (powers.sum() + (0 if sink is None else self.exp(sink)[0]))


@caught_by("test_a_sink_takes_weight_and_gives_nothing")
class SinkOfTheKeyHead(LoopAttention):
    """Takes the sink of the key head, where every query head has its own."""

    def sink(self, attention: Attention, head: int, kv_head: int) -> Tensor:
        return attention.sinks[kv_head : kv_head + 1]


@caught_by("test_a_sink_takes_weight_and_gives_nothing")
class SinkIsCapped(LoopAttention):
    """Caps the sink as if it were a score."""

    def sink(self, attention: Attention, head: int, kv_head: int) -> Tensor:
        own, cap = super().sink(attention, head, kv_head), attention.softcap
        return own if cap is None else (cap * np.tanh(own / cap)).astype(own.dtype)


@caught_by("test_a_sink_takes_weight_and_gives_nothing")
class SinkIsScaled(LoopAttention):
    """Scales the sink as if it were a score."""

    def sink(self, attention: Attention, head: int, kv_head: int) -> Tensor:
        return (super().sink(attention, head, kv_head) * attention.scale).astype(attention.sinks.dtype)


@caught_by("test_rope_attention_normalises_rotates_writes_and_then_attends")
class AttendsBeforeWriting(NumpyOps):
    """Attends to the pool as it was before this step."""

    def rope_attention(self, projections: Any, attention: Attention, tables: Any, layer: Any, batch: Any) -> Tensor:
        old = KvLayer(layer.keys.copy(), layer.values.copy())
        super().rope_attention(projections, attention, tables, layer, batch)
        scratch = KvLayer(layer.keys.copy(), layer.values.copy())
        with patch.object(self, "paged_attention", partial(self._attend_to, old)):
            return super().rope_attention(projections, attention, tables, scratch, batch)

    def _attend_to(self, old: KvLayer, query: Tensor, attention: Attention, layer: KvLayer, batch: Any) -> Tensor:
        return NumpyOps.paged_attention(self, query, attention, old, batch)
