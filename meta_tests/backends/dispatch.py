"""Faults in the choice between kernels: compiled kernels that are right, and are given what they were not made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ferrum.backends.numpy_backend import NumbaOps
from ferrum.tensor.batch import KvLayer, StepBatch
from ferrum.tensor.compositions import Step
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention, Experts, GatedMlp, Norm
from ferrum.tensor.weights import Linear
from meta_tests.backends.fault import caught_by


@caught_by("test_gated_gates_with_its_first_argument")
class WholeRegistersOnly(NumbaOps):
    """Computes whole registers of sixteen, and leaves the rest of a row unwritten."""

    def gated(self, gate: Tensor, up: Tensor, mlp: GatedMlp) -> Tensor:
        y = super().gated(gate, up, mlp)
        y[..., y.shape[-1] // 16 * 16 :] = 0
        return y


@caught_by("test_linear_with_every_kind_of_weight", kind="float32")
class OneTokenHasNoBias(NumbaOps):
    """Has a kernel for one token, and forgets the bias in it."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        return super().linear(x, Linear(linear.weight) if len(x) == 1 else linear)


@caught_by("test_what_kernels_fuse_with_large_products", tokens=70, kind="float32")
class ManyTokensAreNotNormed(NumbaOps):
    """Leaves the fused path for many tokens, and the norm behind."""

    def norm_linears(self, x: Tensor, norm: Norm | None, linears: Sequence[Linear]) -> tuple[Tensor, ...]:
        return super().norm_linears(x, None if len(x) > self.FUSED_TOKENS else norm, linears)


@caught_by("test_a_window_counts_the_query_itself")
class ChunksHaveNoWindow(NumbaOps):
    """Has another kernel for chunks, which knows no window."""

    def paged_attention(self, query: Tensor, attention: Attention, layer: KvLayer, batch: StepBatch) -> Tensor:
        many = len(query) > len(batch.context_lens)
        return super().paged_attention(query, replace(attention, window=None) if many else attention, layer, batch)


@caught_by("test_kv_write_touches_its_slots_and_no_others")
class OddPoolsAreNotWritten(NumbaOps):
    """Has no kernel for some pools, and does nothing then."""

    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        if self._kernels.cache(layer) is not None:
            super().kv_write(layer, key, value, slots)


@caught_by("test_of_experts_with_one_score_the_first_is_chosen", tokens=1, middle=16)
class OneTokenIsNotShared(NumbaOps):
    """Forgets the shared expert where there is one token."""

    def norm_experts(self, x: Tensor, norm: Norm | None, experts: Experts) -> Tensor:
        known = replace(experts, shared=None, shared_weight=None) if len(x) == 1 else experts
        return super().norm_experts(x, norm, known)


@caught_by("test_linear_with_every_kind_of_weight", kind="float32")
class RowsWithoutGaps(NumbaOps):
    """Gives a kernel rows of a wider tensor as if they lay behind each other."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        if x.ndim == 2 and len(x) > 1 and x.strides[0] > x.strides[1] * x.shape[1] > 0:
            x = np.lib.stride_tricks.as_strided(x, strides=(x.strides[1] * x.shape[1], x.strides[1]))
        return super().linear(x, linear)


@caught_by("test_a_replay_gives_rows_in_the_order_that_is_wanted")
class RecordsAnyOrder(NumbaOps):
    """Replays a step for rows that are wanted in another order than it was recorded for."""

    def run_step(self, step: Step, batch: StepBatch) -> Tensor:
        return self._recorded.run(self, step, batch)
