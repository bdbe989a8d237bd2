"""One step's work, packed: which token of which sequence goes where.

Owns: `StepBatch`, the only description of a batch that the model and the attention compositions see.
There is no batch dimension, no padding and no prefill flag: a decode is a prefill of one token.
Specs: OPS, KV. Source: PagedAttention (arXiv 2309.06180). Next: `ferrum.tensor.kv_q8`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ferrum.tensor.compositions import TensorOps
    from ferrum.tensor.ops import Tensor


@dataclass(frozen=True, eq=False)
class StepBatch:
    """All tensors int32. Sequence s owns packed tokens seq_starts[s] .. seq_starts[s + 1] - 1: its newest, in order.

    A *slot* is where one position's key and value live: block id * block size + offset in the block. The block that
    holds position p of sequence s is block_tables[s, p // block size]; entries past the context are never read.

    `starts` and `contexts` are what the host knows of the batch: whoever needs a shape takes it from them and does not
    wait for the device. They belong to this step alone, so a step that reads them cannot be recorded and replayed.
    """

    token_ids: Tensor  # [tokens]
    positions: Tensor  # [tokens] 0-based place in the sequence
    slots: Tensor  # [tokens] where this step's keys and values are written
    seq_starts: Tensor  # [sequences + 1]
    context_lens: Tensor  # [sequences] positions written once this step's tokens are in
    block_tables: Tensor  # [sequences, max blocks]
    logit_rows: Tensor  # [rows] packed tokens whose logits are wanted
    _: KW_ONLY
    starts: Sequence[int]  # seq_starts, on the host
    contexts: Sequence[int]  # context_lens, on the host


@dataclass(frozen=True, eq=False)
class KvLayer:
    """One layer's share of the block pool. Keys lie transposed, so that scores of neighbouring positions are read as
    one contiguous run. Another type of layer may keep its numbers in another way (`ferrum.tensor.kv_q8`).

    keys:   [blocks, kv_heads, head_dim, block_size]
    values: [blocks, kv_heads, block_size, head_dim]
    """

    keys: Tensor
    values: Tensor

    @property
    def block_size(self) -> int:
        return int(self.keys.shape[3])

    def takes(self, key: Tensor, value: Tensor, tokens: int) -> bool:
        """Are key and value those of so many tokens: [tokens, kv_heads, head_dim] or [tokens, kv_heads * head_dim]?"""
        _, kv_heads, _, head_dim = self.values.shape
        whole = ((tokens, kv_heads, head_dim), (tokens, kv_heads * head_dim))
        return tuple(key.shape) == tuple(value.shape) and tuple(key.shape) in whole

    def write(self, ops: TensorOps, block: Tensor, offset: Tensor, key: Tensor, value: Tensor) -> None:
        """key, value [tokens, kv_heads, head_dim] go, in place, to positions `offset` of blocks `block`, [tokens]
        each."""
        stored = str(self.keys.dtype)
        # views with the position in second place: [blocks, block_size, kv_heads, head_dim]
        ops.put(ops.permute(self.keys, (0, 3, 1, 2)), (block, offset), ops.cast(key, stored))
        ops.put(ops.permute(self.values, (0, 2, 1, 3)), (block, offset), ops.cast(value, stored))

    def read(self, ops: TensorOps, table: Tensor, context: int) -> tuple[Tensor, Tensor]:
        """-> keys and values [kv_heads, context, head_dim] in the backend's float type: the first `context` positions
        of the blocks that `table` names in order, and nothing of the others."""
        keys = ops.permute(ops.take(self.keys, table), (1, 0, 3, 2))  # [kv_heads, blocks, block_size, head_dim]
        values = ops.permute(ops.take(self.values, table), (1, 0, 2, 3))  # [kv_heads, blocks, block_size, head_dim]
        keys, values = (flat_positions(ops, x, context) for x in (keys, values))
        return ops.cast(keys, ops.float_dtype), ops.cast(values, ops.float_dtype)

    def asked(self, ops: TensorOps, query: Tensor, scale: float) -> tuple[Tensor, float]:
        """What meets the keys in place of a query [tokens, heads, head_dim], and what scores are still to be multiplied
        with."""
        return query, scale


def flat_positions(ops: TensorOps, x: Tensor, context: int) -> Tensor:
    """[kv_heads, blocks, block_size, n] -> [kv_heads, context, n]: without the unwritten tail, which is cut off before
    any arithmetic: 0 * NaN is NaN."""
    kv_heads, blocks, block_size, length = x.shape
    padded = blocks * block_size
    return ops.split(ops.reshape(x, (kv_heads, padded, length)), (context, padded - context), 1)[0]


@dataclass(frozen=True, eq=False)
class RopeTables:
    """Cosine and sine of every position's rotation: float [positions, rotary_dim / 2] each. Where queries grow with
    their position, what they are multiplied with: float [positions]."""

    cos: Tensor
    sin: Tensor
    growth: Tensor | None = None
