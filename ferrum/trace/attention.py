"""The weights of attention of sampled tokens, for every layer and head, by the definition.

Owns: `AttentionLog`. Kernels do not keep the weights, so they are computed a second time, from the same projections and
the keys in memory, by `Compositions.rope_attention` and `ferrum.tensor.attention`, for the queries of the sampled
tokens alone. Refuses to know: how the weights are shown.
Specs: TRACE-06, TRACE-07. Next: `ferrum.trace.backend`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.sched.plan import StepPlan
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.compositions import Compositions, TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention
from ferrum.trace.forwarding import ForwardingOps

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Query:
    """A token of a step from whose logits a token may be sampled."""

    row: int  # its place in the packed tokens of the step
    sequence_row: int  # the row of block_tables that its sequence has
    context: int  # positions that it may attend to, its own included


def sampled_queries(plan: StepPlan) -> list[Query]:
    """The last token of each chunk that is sampled, and each of its drafts, in the order of the packed tokens."""
    queries: list[Query] = []
    row = sequence_row = 0
    for chunk in plan.chunks:
        last = row + chunk.count - 1
        if chunk.is_sampled:
            context = chunk.start + chunk.count
            queries += [Query(last + i, sequence_row + i, context + i) for i in range(len(chunk.drafts) + 1)]
        row = last + 1 + len(chunk.drafts)
        sequence_row += 1 + len(chunk.drafts)
    return queries


class AttentionLog:
    """Weights of the sampled tokens of one step at a time, within a number of bytes for all steps together."""

    def __init__(self, layers: Collection[int], heads: int, most_bytes: int) -> None:
        """`layers`: numbers of the layers that are kept; `heads`: query heads of a layer."""
        self.layers, self.heads = sorted(layers), heads
        self._left = most_bytes
        self.skipped = 0
        """Sampled tokens without attention, because there was no room for it."""
        self._queries: list[Query] = []
        self._weights: dict[int, list[Bytes]] = {}  # by the row of the query: a layer each

    def begin(self, plan: StepPlan) -> None:
        """The step that runs next."""
        self._queries, self._weights = [], {}
        for query in sampled_queries(plan):
            size = len(self.layers) * self.heads * query.context
            if size > self._left:
                self._left = 0  # so that attention ends at one token and does not come back
                continue
            self._left -= size
            self._queries.append(query)
            self._weights[query.row] = []

    def compute(
        self,
        ops: TensorOps,
        number: int,
        projections: tuple[Tensor, Tensor, Tensor],
        attention: Attention,
        tables: RopeTables | None,
        layer: KvLayer,
        batch: StepBatch,
    ) -> None:
        """Computes the weights of layer `number`, whose `rope_attention` has run with these operands, so that its keys
        are in memory."""
        if number not in self.layers or not self._queries:
            return
        rows = ops.asarray([query.row for query in self._queries], "int64")
        weights = attention_weights(
            ops,
            tuple(ops.take(each, rows) for each in projections),
            attention,
            tables,
            layer,
            batch_of(ops, batch, self._queries),
        )
        for query, each in zip(self._queries, weights, strict=True):
            self._weights[query.row].append(np.rint(255 * np.nan_to_num(each)).astype(np.uint8))

    def taken(self, row: int) -> dict[str, Any] | None:
        """The weights of one query as a trace writes them; None where they were left out. To be called once."""
        if not self._weights.get(row):
            self.skipped += 1
            return None
        weights = np.stack(self._weights[row])  # [layers, heads, context]
        return {
            "layers": self.layers,
            "heads": self.heads,
            "context": weights.shape[2],
            "weights": b64encode(weights.tobytes()).decode("ascii"),
        }


def batch_of(ops: TensorOps, batch: StepBatch, queries: Sequence[Query]) -> StepBatch:
    """Some tokens of a batch, each as a sequence of one new token."""
    rows, sequences = (
        ops.asarray(numbers, "int64")
        for numbers in ([query.row for query in queries], [query.sequence_row for query in queries])
    )
    count = len(queries)
    contexts = [query.context for query in queries]
    return StepBatch(
        token_ids=ops.take(batch.token_ids, rows),
        positions=ops.take(batch.positions, rows),
        slots=ops.take(batch.slots, rows),
        seq_starts=ops.asarray(list(range(count + 1)), "int32"),
        context_lens=ops.asarray(contexts, "int32"),
        block_tables=ops.take(batch.block_tables, sequences),
        logit_rows=ops.asarray(list(range(count)), "int32"),
        starts=list(range(count + 1)),
        contexts=contexts,
    )


def attention_weights(
    ops: TensorOps,
    projections: tuple[Tensor, ...],
    attention: Attention,
    tables: RopeTables | None,
    layer: KvLayer,
    batch: StepBatch,
) -> list[NDArray[Any]]:
    """The operands of `rope_attention` for sequences of one token each, whose keys are written -> the weights [heads,
    context] of each."""
    probe = AttentionProbe(ops)  # type: ignore[abstract]
    probe.rope_attention(projections, attention, tables, layer, batch)
    return [
        weights.reshape(-1, weights.shape[-1])[:, :context]  # behind the context a sink may stand
        for weights, context in zip(map(ops.to_numpy, probe.weights), batch.contexts, strict=True)
    ]


class AttentionProbe(ForwardingOps):
    """Computes attention as it is defined, writes no keys and values, and keeps every softmax."""

    def __init__(self, inner: TensorOps) -> None:
        super().__init__(inner)
        self.weights: list[Tensor] = []

    rope_attention = Compositions.rope_attention
    paged_attention = Compositions.paged_attention

    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        """Nothing: the step has written them."""

    def softmax(self, x: Tensor) -> Tensor:
        weights = Compositions.softmax(self, x)
        self.weights.append(weights)
        return weights
