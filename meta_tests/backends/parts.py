"""Faults in the parts of a decoder: activations, residuals, experts, the embedding and the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Embedding, Experts, GatedMlp, Head, Norm
from ferrum.tensor.weights import Linear
from meta_tests.backends.fault import caught_by


@caught_by("test_activations", name="gelu")
class GeluByTanh(NumpyOps):
    """Takes the approximation of gelu for gelu."""

    def gelu(self, x: Tensor) -> Tensor:
        return self.gelu_tanh(x)


@caught_by("test_activations", name="silu")
class SiluOverflows(NumpyOps):
    """Computes silu as x eˣ / (1 + eˣ), which is infinity over infinity for a large x."""

    def silu(self, x: Tensor) -> Tensor:
        power = self.exp(x)
        return x * power / (1 + power)


@caught_by("test_activations", name="gelu_tanh")
class GeluCubesInHalf(NumpyOps):
    """Lets the cube of a large x overflow, so that gelu_tanh of it is NaN."""

    def gelu_tanh(self, x: Tensor) -> Tensor:
        y = super().gelu_tanh(x)
        return np.where(np.abs(x) > 900, x.dtype.type(np.nan), y)


@caught_by("test_softcapped_never_passes_the_cap")
class SoftcapCuts(NumpyOps):
    """Cuts off at the cap, where tanh bends."""

    def softcapped(self, x: Tensor, cap: float) -> Tensor:
        return np.clip(x, -cap, cap)


@caught_by("test_gated_gates_with_its_first_argument")
class GatesWithTheSecond(NumpyOps):
    """Activates the second operand, not the first."""

    def gated(self, gate: Tensor, up: Tensor, mlp: GatedMlp) -> Tensor:
        return super().gated(up, gate, mlp)


@caught_by("test_gated_gates_with_its_first_argument")
class LimitsAfterwards(NumpyOps):
    """Cuts the gate off after its activation."""

    def gated(self, gate: Tensor, up: Tensor, mlp: GatedMlp) -> Tensor:
        if mlp.limit is None:
            return super().gated(gate, up, mlp)
        open_gate = self.minimum(self.activated(gate, mlp.activation), mlp.limit)
        return open_gate * (np.clip(up, -mlp.limit, mlp.limit) + up.dtype.type(mlp.up_offset))


@caught_by("test_gated_gates_with_its_first_argument")
class LimitsOneSide(NumpyOps):
    """Cuts the second operand off above only."""

    def gated(self, gate: Tensor, up: Tensor, mlp: GatedMlp) -> Tensor:
        if mlp.limit is None:
            return super().gated(gate, up, mlp)
        inner = replace(mlp, limit=None)
        return super().gated(self.minimum(gate, mlp.limit), self.minimum(up, mlp.limit), inner)


@caught_by("test_gated_gates_with_its_first_argument")
class LimitsTheGateBelow(NumpyOps):
    """Cuts the gate off below as well."""

    def gated(self, gate: Tensor, up: Tensor, mlp: GatedMlp) -> Tensor:
        return super().gated(gate if mlp.limit is None else np.maximum(gate, -mlp.limit).astype(gate.dtype), up, mlp)


@caught_by("test_gated_gates_with_its_first_argument")
class OffsetBeforeTheLimit(NumpyOps):
    """Adds the offset before it cuts off."""

    def gated(self, gate: Tensor, up: Tensor, mlp: GatedMlp) -> Tensor:
        return super().gated(gate, up + up.dtype.type(mlp.up_offset), replace(mlp, up_offset=0.0))


@caught_by("test_residual_add_scales_what_is_added")
class ScalesTheStream(NumpyOps):
    """Scales the residual stream, not what is added to it."""

    def residual_add(self, y: Tensor, residual: Tensor, after: Norm | None = None, scale: float = 1.0) -> Tensor:
        return super().residual_add(y, residual * residual.dtype.type(scale), after)


@caught_by("test_residual_add_scales_what_is_added")
class NormsTheStream(NumpyOps):
    """Normalises after the addition."""

    def residual_add(self, y: Tensor, residual: Tensor, after: Norm | None = None, scale: float = 1.0) -> Tensor:
        return self.normed(super().residual_add(y, residual, None, scale), after)


@caught_by("test_residual_add_scales_what_is_added")
class ScalesBeforeTheNorm(NumpyOps):
    """Scales before the norm, which takes the scale out again."""

    def residual_add(self, y: Tensor, residual: Tensor, after: Norm | None = None, scale: float = 1.0) -> Tensor:
        return super().residual_add(y * y.dtype.type(scale), residual, after)


@caught_by("test_what_kernels_fuse_with_large_products", tokens=1, kind="float32")
class FirstLinearForAll(NumpyOps):
    """Adds the first linear's bias to every linear of a group."""

    def norm_linears(self, x: Tensor, norm: Norm | None, linears: Sequence[Linear]) -> tuple[Tensor, ...]:
        bias = linears[0].bias
        fits = [each if bias is None or each.bias is None or each.bias.shape != bias.shape else replace(each, bias=bias)
                for each in linears]  # fmt: skip
        return super().norm_linears(x, norm, fits)


@caught_by("test_embedded_scales_rows_adds_to_them_and_normalises_the_sum")
class ScaleInBfloat16(NumpyOps):
    """Rounds the scale of embeddings to bfloat16, as one family's first code does."""

    def embedded(self, embedding: Embedding, batch: StepBatch) -> Tensor:
        rounded = float(self.cast(self.full((), embedding.scale, "float32"), "bfloat16"))
        return super().embedded(replace(embedding, scale=rounded), batch)


@caught_by("test_embedded_scales_rows_adds_to_them_and_normalises_the_sum")
class PositionsAreScaled(NumpyOps):
    """Scales the rows of positions as well."""

    def embedded(self, embedding: Embedding, batch: StepBatch) -> Tensor:
        plain = super().embedded(replace(embedding, scale=1.0, common=None, norm=None), batch)
        x = plain * plain.dtype.type(embedding.scale)
        return self.normed(x if embedding.common is None else x + embedding.common, embedding.norm)


@caught_by("test_embedded_scales_rows_adds_to_them_and_normalises_the_sum")
class LearnedByTheIndex(NumpyOps):
    """Takes the row of a position by the number of the token in the step."""

    def embedded(self, embedding: Embedding, batch: StepBatch) -> Tensor:
        if embedding.positions is None:
            return super().embedded(embedding, batch)
        index = np.arange(len(batch.token_ids), dtype=np.int32) % embedding.positions.rows
        return super().embedded(embedding, replace(batch, positions=index))


@caught_by("test_logits_are_scaled_and_then_capped")
class CapsThenScales(NumpyOps):
    """Caps logits before it scales them."""

    def logits(self, x: Tensor, head: Head) -> Tensor:
        return super().logits(x, replace(head, scale=1.0)) * x.dtype.type(head.scale)


@caught_by("test_a_token_is_computed_by_the_experts_that_its_router_chooses")
class SoftmaxOfTheChosen(NumpyOps):
    """Weighs experts with the softmax of the chosen scores, even where it is that of all."""

    def norm_experts(self, x: Tensor, norm: Norm | None, experts: Experts) -> Tensor:
        return super().norm_experts(x, norm, replace(experts, normalised=True))


@caught_by("test_a_token_is_computed_by_the_experts_that_its_router_chooses")
class DropsACrowd(NumpyOps):
    """Has room for 64 tokens in an experts' batch and drops the rest."""

    def norm_experts(self, x: Tensor, norm: Norm | None, experts: Experts) -> Tensor:
        y = super().norm_experts(x, norm, experts)
        y[64:] = 0
        return y


@caught_by("test_of_experts_with_one_score_the_first_is_chosen", tokens=7, middle=16)
class LastExpertOnATie(NumpyOps):
    """Prefers the last of two experts with one score."""

    def norm_experts(self, x: Tensor, norm: Norm | None, experts: Experts) -> Tensor:
        weight, bias = self.dequantize(experts.router.weight)[::-1], experts.router.bias
        router = Linear(type(experts.router.weight)(weight) if experts.router.weight.kind == "dense" else (
            experts.router.weight), None if bias is None else bias[::-1])  # fmt: skip
        turned = experts.router.weight.kind == "dense"
        other = replace(experts, router=router, experts=experts.experts[::-1]) if turned else experts
        return super().norm_experts(x, norm, other)


@caught_by("test_a_token_is_computed_by_the_experts_that_its_router_chooses")
class SharedWithoutItsDoor(NumpyOps):
    """Adds a shared expert whole, whatever its gate says."""

    def norm_experts(self, x: Tensor, norm: Norm | None, experts: Experts) -> Tensor:
        return super().norm_experts(x, norm, replace(experts, shared_weight=None))


@caught_by("test_a_token_is_computed_by_the_experts_that_its_router_chooses")
class DoorOfTheOldStream(NumpyOps):
    """Opens the door of a shared expert by the stream before the norm."""

    def norm_experts(self, x: Tensor, norm: Norm | None, experts: Experts) -> Tensor:
        shared, door = experts.shared, experts.shared_weight
        if shared is None or door is None:
            return super().norm_experts(x, norm, experts)
        normed = self.normed(x, norm)
        routed = super().norm_experts(normed, None, replace(experts, shared=None, shared_weight=None))
        result = self.linear(self.norm_gated(normed, None, shared), shared.down)
        return routed + self.sigmoid(self.linear(x, door)) * result
