"""Faults in the pool: where a position lies, and what is written there."""

from __future__ import annotations

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.batch import KvLayer, StepBatch
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention
from meta_tests.backends.fault import caught_by
from meta_tests.backends.right_attention import LoopAttention


@caught_by("test_attention_at_real_sizes", name="a decode far along")
class PagesOf32(LoopAttention):
    """Finds a place in a block with five bits (as in flashinfer #4347 with seven)."""

    def places(self, batch: StepBatch, sequence: int, positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
        blocks, offsets = super().places(batch, sequence, positions, size)
        return blocks, offsets & 31


@caught_by("test_a_query_sees_its_own_sequence_up_to_itself")
class PagesOfPowersOfTwo(LoopAttention):
    """Finds a place in a block by shifting."""

    def places(self, batch: StepBatch, sequence: int, positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
        return super().places(batch, sequence, positions, 1 << (size - 1).bit_length())


@caught_by("test_a_query_sees_its_own_sequence_up_to_itself")
class TablesWithoutPadding(LoopAttention):
    """Reads block tables as if a row were as long as the longest context needs (as in xllm #932)."""

    def places(self, batch: StepBatch, sequence: int, positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
        width = -(-int(batch.context_lens.max()) // size)
        return batch.block_tables.reshape(-1)[sequence * width + positions // size], positions % size


@caught_by("test_a_query_sees_its_own_sequence_up_to_itself")
class BlocksInOrder(LoopAttention):
    """Reads a sequence's blocks as if they lay behind its first one."""

    def places(self, batch: StepBatch, sequence: int, positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
        blocks, offsets = super().places(batch, sequence, positions, size)
        return np.minimum(batch.block_tables[sequence, 0] + positions // size, blocks.max()), offsets


@caught_by("test_attention_at_real_sizes", name="many sequences")
class SixteenSequences(LoopAttention):
    """Looks for a token's sequence among the first sixteen."""

    def sequence(self, batch: StepBatch, token: int) -> int:
        return min(super().sequence(batch, token), 15)


@caught_by("test_a_query_sees_its_own_sequence_up_to_itself")
class OneTokenEach(LoopAttention):
    """Takes the number of a token for that of its sequence, as in a decode step."""

    def sequence(self, batch: StepBatch, token: int) -> int:
        return min(token, len(batch.context_lens) - 1)


@caught_by("test_a_query_sees_its_own_sequence_up_to_itself")
class MasksWhatItReads(NumpyOps):
    """Multiplies slots that were not written by 0, but reads them: 0 · NaN is NaN."""

    def paged_attention(self, query: Tensor, attention: Attention, layer: KvLayer, batch: StepBatch) -> Tensor:
        attended = super().paged_attention(query, attention, layer, batch)
        for sequence, context in enumerate(batch.contexts):
            rest = -context % layer.block_size
            last = layer.values[batch.block_tables[sequence, (context - 1) // layer.block_size]]
            if rest:
                own = slice(batch.starts[sequence], batch.starts[sequence + 1])
                attended[own] += 0 * last[0, -1, 0].astype(attended.dtype)
        return attended


@caught_by("test_kv_write_touches_its_slots_and_no_others")
@caught_by("test_rope_attention_normalises_rotates_writes_and_then_attends")
class WritesANeighbour(NumpyOps):
    """Writes the last token's keys and values to the slot beside its own, too."""

    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        super().kv_write(layer, key, value, slots)
        super().kv_write(layer, key[-1:], value[-1:], slots[-1:] ^ 1 if layer.block_size > 1 else slots[-1:])


@caught_by("test_kv_write_touches_its_slots_and_no_others")
class PaddingWritesSlotZero(NumpyOps):
    """Pads a step to a power of two with tokens that write to slot 0 (as in rvllm #32)."""

    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        super().kv_write(layer, key, value, slots)
        if len(slots) & (len(slots) - 1):
            super().kv_write(layer, 0 * key[:1], 0 * value[:1], 0 * slots[:1])


@caught_by("test_kv_write_touches_its_slots_and_no_others")
class SquareBlocks(NumpyOps):
    """Knows by its shape whether a key block is transposed, and errs where a head is as long as a block."""

    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        if layer.keys.shape[2] == layer.block_size:
            layer = KvLayer(layer.keys.transpose(0, 1, 3, 2), layer.values)
        super().kv_write(layer, key, value, slots)


@caught_by("test_kv_write_touches_its_slots_and_no_others")
class WritesThroughHalf(NumpyOps):
    """Rounds keys and values to float16, whatever the pool holds."""

    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        super().kv_write(layer, *(each.astype(np.float16).astype(each.dtype) for each in (key, value)), slots)


@caught_by("test_kv_write_touches_its_slots_and_no_others")
class WritesTruncated(NumpyOps):
    """Drops bits on the way into a pool of bfloat16, where it has to round."""

    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        if str(layer.keys.dtype) == "bfloat16" and key.dtype == np.float32:
            key, value = ((np.array(x).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32) for x in (key, value))
        super().kv_write(layer, key, value, slots)
