"""Attention once more, query by query: right as it stands, so that a fault is one line of it.

Owns: what of attention a faulty backend replaces. Refuses to know: the definition in `ferrum.tensor.attention`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.batch import KvLayer, StepBatch
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention
from meta_tests.backends.fault import permitted


@permitted(
    "it is right: another way to the same numbers",
    "test_a_query_sees_its_own_sequence_up_to_itself",
    "test_a_window_counts_the_query_itself",
    "test_query_heads_share_key_heads_in_consecutive_groups",
    "test_scores_are_scaled_and_then_capped",
    "test_a_sink_takes_weight_and_gives_nothing",
    "test_attention_that_is_not_causal_sees_later_positions_too",
    "test_kv_write_touches_its_slots_and_no_others",
    "test_rope_attention_normalises_rotates_writes_and_then_attends",
)
class LoopAttention(NumpyOps):
    """Visits every query and every head by itself."""

    def visible(self, position: int, context: int, attention: Attention) -> range:
        window = attention.window
        first = 0 if window is None else max(0, position + 1 - window)
        if attention.causal:
            return range(first, position + 1)
        return range(first, context if window is None else min(context, position + window))

    def sequence(self, batch: StepBatch, token: int) -> int:
        return int(np.searchsorted(batch.seq_starts, token, "right")) - 1

    def places(self, batch: StepBatch, sequence: int, positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
        return batch.block_tables[sequence, positions // size], positions % size

    def kv_head(self, head: int, heads: int, kv_heads: int) -> int:
        return head // (heads // kv_heads)

    def scores(self, keys: Tensor, query: Tensor, attention: Attention) -> Tensor:
        scores, cap = (keys @ query) * query.dtype.type(attention.scale), attention.softcap
        return scores if cap is None else (cap * np.tanh(scores / cap)).astype(query.dtype)

    def sink(self, attention: Attention, head: int, kv_head: int) -> Tensor:
        return attention.sinks[head : head + 1]

    def weights(self, scores: Tensor, sink: Tensor | None) -> Tensor:
        beside = scores if sink is None else np.concatenate([scores, sink])
        return self.softmax(beside)[: len(scores)]

    def paged_attention(self, query: Tensor, attention: Attention, layer: KvLayer, batch: StepBatch) -> Tensor:
        if type(layer) is not KvLayer:
            return super().paged_attention(query, attention, layer, batch)
        out = np.empty_like(query)
        for token, position in enumerate(batch.positions.tolist()):
            sequence = self.sequence(batch, token)
            visible = np.array(self.visible(position, int(batch.context_lens[sequence]), attention))
            blocks, offsets = self.places(batch, sequence, visible, layer.block_size)
            for head in range(query.shape[1]):
                out[token, head] = self._one(query[token, head], attention, layer, (blocks, offsets), head, query.shape)
        return out

    def _one(
        self, query: Tensor, attention: Attention, layer: KvLayer, places: Any, head: int, shape: tuple[int, ...]
    ) -> Tensor:
        blocks, offsets = places
        own = self.kv_head(head, shape[1], layer.keys.shape[1])
        keys, values = layer.keys[blocks, own, :, offsets], layer.values[blocks, own, offsets]
        sink = None if attention.sinks is None else self.sink(attention, head, own)
        scores = self.scores(keys.astype(query.dtype), query, attention)
        return self.weights(scores, sink) @ values.astype(query.dtype)
