"""One step's work, packed: which token belongs to which sequence, and in which slot its key and value lie.

Owns: `StepBatch`, the only description of a batch that the model and the attention compositions see, and `KvLayer`, the
keys and values of one layer. There is no batch dimension and no prefill flag: a decode is a prefill of one token.
Tokens are not padded; only the rows of `block_tables` are, to the longest. A worked example with numbers:
`docs/one-life.md`.
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
    """The tokens of one step, packed one sequence after the other. All tensors are int32.

    The tokens of sequence s are the packed tokens seq_starts[s] … seq_starts[s + 1] - 1: its newest, in order.

    A *slot* is the place of one position's key and value in the pool: block id * block size + offset in the block. The
    block of position p of sequence s is block_tables[s, p // block size]. Entries past the context are never read.

    `starts` and `contexts` are the same numbers on the host: code that needs a shape reads them and does not wait for
    the device. They belong to this step alone, so a step that reads them cannot be recorded and replayed.
    """

    token_ids: Tensor  # [tokens]
    positions: Tensor  # [tokens] the place of each token in its sequence, from 0
    slots: Tensor  # [tokens] where the key and value of each token are written
    seq_starts: Tensor  # [sequences + 1] the first packed token of each sequence; last, the number of tokens
    context_lens: Tensor  # [sequences] positions that the last token of each sequence attends to, its own included
    block_tables: Tensor  # [sequences, max blocks] the block ids of each sequence
    logit_rows: Tensor  # [rows] the packed tokens whose logits are computed
    _: KW_ONLY
    starts: Sequence[int]  # seq_starts, on the host
    contexts: Sequence[int]  # context_lens, on the host


@dataclass(frozen=True, eq=False)
class KvLayer:
    """One layer's part of the block pool.

    keys:   [blocks, kv_heads, head_dim, block_size]
    values: [blocks, kv_heads, block_size, head_dim]

    Keys are transposed: one dimension of all positions of a block lies in one contiguous run. A kernel then computes
    the scores of 16 positions at once: it multiplies one number of the query with 16 neighbouring numbers of the keys
    and adds the products to 16 lanes of a vector register. No sum across lanes is needed. Values are not transposed: a
    kernel multiplies the weight of one position with 16 neighbouring dimensions of its value.

    `ferrum.tensor.kv_q8` has a subclass that stores 8-bit codes, and float16 scales in two tensors beside them [blocks,
    kv_heads, head_dim / 32, block_size].
    """

    keys: Tensor
    values: Tensor

    @property
    def block_size(self) -> int:
        return int(self.keys.shape[3])

    def takes(self, key: Tensor, value: Tensor, tokens: int) -> bool:
        """True if `key` and `value` have the shape of new entries for so many tokens: [tokens, kv_heads, head_dim] or
        [tokens, kv_heads * head_dim]."""
        _, kv_heads, _, head_dim = self.values.shape
        shapes = ((tokens, kv_heads, head_dim), (tokens, kv_heads * head_dim))
        return tuple(key.shape) == tuple(value.shape) and tuple(key.shape) in shapes

    def write(self, ops: TensorOps, block: Tensor, offset: Tensor, key: Tensor, value: Tensor) -> None:
        """Stores key and value [tokens, kv_heads, head_dim] in place: token t in block `block[t]` at position
        `offset[t]`; block and offset are [tokens]."""
        stored = str(self.keys.dtype)
        # views with the position in second place: [blocks, block_size, kv_heads, head_dim]
        ops.put(ops.permute(self.keys, (0, 3, 1, 2)), (block, offset), ops.cast(key, stored))
        ops.put(ops.permute(self.values, (0, 2, 1, 3)), (block, offset), ops.cast(value, stored))

    def read(self, ops: TensorOps, table: Tensor, context: int) -> tuple[Tensor, Tensor]:
        """-> keys and values [kv_heads, context, head_dim] in the backend's float type: the first `context` positions
        of the blocks whose ids `table` [blocks] lists in order. Nothing past them is read."""
        keys = ops.permute(ops.take(self.keys, table), (1, 0, 3, 2))  # [kv_heads, blocks, block_size, head_dim]
        values = ops.permute(ops.take(self.values, table), (1, 0, 2, 3))  # [kv_heads, blocks, block_size, head_dim]
        keys, values = (flat_positions(ops, x, context) for x in (keys, values))
        return ops.cast(keys, ops.float_dtype), ops.cast(values, ops.float_dtype)

    def prepared_query(self, ops: TensorOps, query: Tensor, scale: float) -> tuple[Tensor, float]:
        """-> the query [tokens, heads, head_dim] that is multiplied with the keys, and the factor of the scores. A type
        of layer may scale or round queries beforehand; this one changes nothing."""
        return query, scale


def flat_positions(ops: TensorOps, x: Tensor, context: int) -> Tensor:
    """[kv_heads, blocks, block_size, n] -> [kv_heads, context, n]. Unwritten positions at the end are cut off before
    any arithmetic, because 0 * NaN is NaN."""
    kv_heads, blocks, block_size, length = x.shape
    padded = blocks * block_size
    return ops.split(ops.reshape(x, (kv_heads, padded, length)), (context, padded - context), 1)[0]


@dataclass(frozen=True, eq=False)
class RopeTables:
    """The rotation of every position, for rotary embedding (`Compositions.rope`)."""

    cos: Tensor  # float [positions, rotary_dim / 2]
    sin: Tensor  # float [positions, rotary_dim / 2]
    growth: Tensor | None = None  # float [positions]: queries are multiplied with it, in models that grow them
