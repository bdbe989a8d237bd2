"""One step's work, packed: which token of which sequence goes where.

Owns: `StepBatch`, the only description of a batch that the model and the attention compositions see.
There is no batch dimension, no padding and no prefill flag: a decode is a prefill of one token.
Specs: OPS, KV. Source: PagedAttention (arXiv 2309.06180). Next: `ferrum.tensor.parts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    one contiguous run.

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
        _, kv_heads, head_dim, _ = self.keys.shape
        whole = ((tokens, kv_heads, head_dim), (tokens, kv_heads * head_dim))
        return tuple(key.shape) == tuple(value.shape) and tuple(key.shape) in whole


@dataclass(frozen=True, eq=False)
class RopeTables:
    """Cosine and sine of every position's rotation: float [positions, rotary_dim / 2] each. Where queries grow with
    their position, what they are multiplied with: float [positions]."""

    cos: Tensor
    sin: Tensor
    growth: Tensor | None = None
