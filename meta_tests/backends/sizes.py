"""Faults that only large operands show: tiles, blocks of threads and grids end where most tests do not reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.batch import KvLayer, RopeTables
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import GatedMlp
from ferrum.tensor.weights import Linear, Weight
from meta_tests.backends.fault import caught_by


@caught_by("test_rows_longer_than_a_block_of_threads", count=1025)
class OneBlockOfThreads(NumpyOps):
    """Adds up what one block of 1024 threads sees of a row."""

    def sum(self, x: Tensor, axis: int) -> Tensor:
        return super().sum(np.take(x, range(min(x.shape[axis], 1024)), axis), axis)


@caught_by("test_rows_longer_than_a_block_of_threads", count=1023)
class SumDropsTheRest(NumpyOps):
    """Adds long rows up by fours, and forgets the one to three elements that are left over."""

    def sum(self, x: Tensor, axis: int) -> Tensor:
        length = x.shape[axis]
        return super().sum(np.take(x, range(length // 4 * 4 if length > 256 else length), axis), axis)


@caught_by("test_rows_longer_than_a_block_of_threads", count=4097)
class ScansInTwoPieces(NumpyOps):
    """Begins a running sum at 0 again after 4096 elements."""

    def cumsum(self, x: Tensor, axis: int) -> Tensor:
        running = np.cumsum(x, axis, dtype=x.dtype)
        if axis == -1 and x.shape[-1] > 4096:
            running[..., 4096:] -= running[..., 4095:4096]
        return running


@caught_by("test_rows_longer_than_a_block_of_threads", count=1023)
class ScansRows(NumpyOps):
    """Gives a running sum along the last axis the carry of a tile of 256 one tile late."""

    def cumsum(self, x: Tensor, axis: int) -> Tensor:
        running = np.cumsum(x, axis, dtype=x.dtype)
        if axis % x.ndim == x.ndim - 1 and x.shape[-1] > 512:
            running[..., 512:] -= x[..., 511:512]
        return running


@caught_by("test_rows_longer_than_a_block_of_threads", count=40000)
class MaximumOf32768(NumpyOps):
    """Looks for the largest among the first 32768 elements."""

    def max(self, x: Tensor, axis: int) -> Tensor:
        return super().max(np.take(x, range(min(x.shape[axis], 32768)), axis), axis)


@caught_by("test_rows_longer_than_a_block_of_threads", count=1025)
class ArgmaxOf1024(NumpyOps):
    """Looks for the largest among the first 1024 elements."""

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        return super().argmax(np.take(x, range(min(x.shape[axis], 1024)), axis), axis)


@caught_by("test_a_vocabulary_is_searched_and_sorted_whole", count=151936)
class IndicesOf16Bits(NumpyOps):
    """Sorts with indices of 16 bits: beyond 65536 they begin at 0 again."""

    def argsort(self, x: Tensor) -> Tensor:
        return super().argsort(x) & 0xFFFF


@caught_by("test_rows_longer_than_a_block_of_threads", count=1025)
class SortsTiles(NumpyOps):
    """Sorts tiles of 1024 and does not merge them."""

    def argsort(self, x: Tensor) -> Tensor:
        starts = range(0, max(x.shape[-1], 1), 1024)
        return np.concatenate([super(SortsTiles, self).argsort(x[..., at : at + 1024]) + at for at in starts], -1)


@caught_by("test_a_vocabulary_is_searched_and_sorted_whole", count=49152)
class TopSixtyFour(NumpyOps):
    """Keeps the best in a heap of 64: of a larger k the rest is not in order."""

    def top_k(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        indices = super().top_k(x, k)[1]
        indices[..., 64:] = np.sort(indices[..., 64:], -1)
        return np.take_along_axis(x, indices, -1), indices


@caught_by("test_softmax_of_a_vocabulary", count=49152)
class SoftmaxOfOneTile(NumpyOps):
    """Divides by the sum of the first 1024 exponentials."""

    def softmax(self, x: Tensor) -> Tensor:
        e = self.exp(self.sub(x, self.max(x, -1)))
        return self.div(e, self.sum(e[..., :1024], -1))


@caught_by("test_softmax_of_a_vocabulary", count=49152)
class MaximumOfTheFirstTile(NumpyOps):
    """Shifts a softmax by the maximum of its first tile of 4096: a large element behind it overflows."""

    def softmax(self, x: Tensor) -> Tensor:
        e = self.exp(self.sub(x, self.max(x[..., :4096], -1)))
        return self.div(e, self.sum(e, -1))


@caught_by("test_softmax_of_a_vocabulary", count=49152)
class LogSoftmaxOf32768(NumpyOps):
    """Adds up the exponentials of the first 32768 logits."""

    def log_softmax(self, x: Tensor) -> Tensor:
        shifted = self.sub(x, self.max(x, -1))
        return self.sub(shifted, self.log(self.sum(self.exp(shifted[..., :32768]), -1)))


@caught_by("test_norms_of_wide_rows_and_of_many", centred=True, tokens=3, width=4096)
class NormOf1024(NumpyOps):
    """Takes the mean of squares over the columns that one block of 1024 threads sees."""

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        seen = x[..., :1024]
        return x * self.rsqrt(self.mean(seen * seen, -1) + self.scalar(epsilon)) * weight


@caught_by("test_norms_of_wide_rows_and_of_many", centred=True, tokens=2051, width=65)
class NormOfManyRows(NumpyOps):
    """Normalises the first 1024 rows and leaves the others as they are."""

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        y = super().rms_norm(x, weight, epsilon)
        y[1024:] = x[1024:]
        return y


@caught_by("test_linear_of_many_tokens_rows_and_columns", tokens=1030, rows=37, columns=256, kind="float32")
class ManyTokens(NumpyOps):
    """Computes a product for the first 512 tokens."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        y = super().linear(x, linear)
        y[512:] = 0
        return y


@caught_by("test_linear_of_many_tokens_rows_and_columns", tokens=1, rows=4099, columns=256, kind="float32")
class ManyFeatures(NumpyOps):
    """Computes the first 1024 output features of a product."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        y = super().linear(x, linear)
        y[:, 1024:] = 0
        return y


@caught_by("test_linear_of_many_tokens_rows_and_columns", tokens=3, rows=33, columns=4352, kind="float32")
class DeepProducts(NumpyOps):
    """Splits a product of more than 2048 columns and forgets to add the last part."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        narrow = np.array(x)
        narrow[:, 2048:] = 0
        return super().linear(narrow, linear)


@caught_by("test_embed_finds_far_rows_for_thousands_of_tokens", kind="float32")
class EmbedsManyTokens(NumpyOps):
    """Looks up the first 256 tokens of a prompt."""

    def embed(self, table: Weight, token_ids: Tensor) -> Tensor:
        x = super().embed(table, token_ids)
        x[256:] = 0
        return x


@caught_by("test_embed_finds_far_rows_for_thousands_of_tokens", kind="float32")
class LateRowsOfTheTable(NumpyOps):
    """Finds a row of a large table with an offset that is cut to 16 bits."""

    def embed(self, table: Weight, token_ids: Tensor) -> Tensor:
        return super().embed(table, np.where(token_ids >= 1024, token_ids & 1023, token_ids))


@caught_by("test_many_indices_move_many_rows")
class GathersManyRows(NumpyOps):
    """Takes the first 2048 of the rows that are asked for, and then begins again."""

    def take(self, x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
        return super().take(x, np.resize(indices[:2048], indices.shape) if indices.ndim == 1 else indices, axis)


@caught_by("test_far_rows_are_moved_as_near_ones_are", dtype="float32", count=65553)
class PutsManyRows(NumpyOps):
    """Writes 1024 rows in one launch and makes no second one."""

    def put(self, x: Tensor, indices: Sequence[Tensor], values: Tensor) -> None:
        super().put(x, [each[:1024] for each in indices], values[:1024])


@caught_by("test_many_pieces_are_cut_and_joined")
class JoinsSixteen(NumpyOps):
    """Joins sixteen tensors in one launch and forgets the others."""

    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor:
        whole = super().concat(xs, axis)
        joined = sum(x.shape[axis] for x in xs[:16])
        np.moveaxis(whole, axis, 0)[joined:] = 0
        return whole


@caught_by("test_elements_of_wide_rows_and_of_many", tokens=3001, width=70)
class OneDimensionOfBlocks(NumpyOps):
    """Launches 65535 elements at most and leaves the others unwritten."""

    def exp(self, x: Tensor) -> Tensor:
        y = super().exp(x)
        if y.size > 65535:
            y.reshape(-1)[65535:] = 0
        return y


@caught_by("test_dequantize_reads_the_bytes", kind="q6_k")
class FourAxes(NumpyOps):
    """Broadcasts over four axes at most."""

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        if max(x.ndim, y.ndim) > 4:
            raise ValueError("more than four axes")
        return super().mul(x, y)


@caught_by("test_kv_write_at_real_sizes", name="many tokens")
class WritesManyTokens(NumpyOps):
    """Writes keys and values of the first 256 tokens of a step."""

    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        super().kv_write(layer, key[:256], value[:256], slots[:256])


@caught_by("test_rope_far_along", tokens=2051, heads=2, head_dim=16, half=8)
class RotatesManyTokens(NumpyOps):
    """Rotates the first 256 tokens of a step."""

    def rope(self, x: Tensor, tables: RopeTables, positions: Tensor) -> Tensor:
        y = super().rope(x, tables, positions)
        y[256:] = x[256:]
        return y


@caught_by("test_elements_of_wide_rows_and_of_many", tokens=2, width=14337)
class WideMlp(NumpyOps):
    """Computes the first 1024 columns of a gated activation."""

    def gated(self, gate: Tensor, up: Tensor, mlp: GatedMlp) -> Tensor:
        y = super().gated(gate, up, mlp)
        y[..., 1024:] = 0
        return y


@caught_by("test_elements_of_wide_rows_and_of_many", tokens=2, width=14337)
class WideResidual(NumpyOps):
    """Adds the first 1024 columns to the residual stream."""

    def residual_add(self, y: Tensor, residual: Tensor, *rest: Any, **named: Any) -> Tensor:
        total = super().residual_add(y, residual, *rest, **named)
        total[..., 1024:] = residual[..., 1024:]
        return total
