"""The forward pass of a decoder, the whole of it; the forward pass of an encoder is the same without a head.

Owns: the order of operations in a transformer of any family. There is one pass for prefill, decode and any mixture: a
decode is a prefill of one token. Refuses to know: families, backends, files, which sequence holds which blocks, why a
token is in the batch.
Specs: MODEL. Papers: pre-norm 2002.04745, GQA 2305.13245, parallel residual 2204.06745, encoders 1810.04805.
Next: `ferrum.backends.registry`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ferrum.errors import Unsupported
from ferrum.model.params import Branch, DecoderParams, FeedForward, Layer
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention, Experts, GatedMlp, PlainMlp


def forward(
    ops: TensorOps,
    params: DecoderParams,
    rotations: Sequence[RopeTables | None],
    kv: Sequence[KvLayer],
    batch: StepBatch,
) -> Tensor:
    """-> logits [rows, vocab] of the packed tokens that batch.logit_rows lists. The keys and values of every token of
    the batch are stored in `kv`. `rotations` has the rotary tables of each layer, None for a layer that does not
    rotate; `kv` has the KvLayer of each layer. Raises Unsupported for an encoder."""
    if params.head is None:
        raise Unsupported("the model is an encoder: it has no logits")
    return ops.logits(_last_hidden(ops, params, rotations, kv, batch), params.head)


def token_vectors(
    ops: TensorOps,
    params: DecoderParams,
    rotations: Sequence[RopeTables | None],
    kv: Sequence[KvLayer],
    batch: StepBatch,
) -> Tensor:
    """-> [rows, hidden]: the result of the last layer at the tokens that batch.logit_rows lists, normalised as for the
    head if there is one. The text of an encoder must come whole in one step, because every token attends to all of
    them."""
    return ops.normed(
        _last_hidden(ops, params, rotations, kv, batch), None if params.head is None else params.head.norm
    )


def _last_hidden(
    ops: TensorOps,
    params: DecoderParams,
    rotations: Sequence[RopeTables | None],
    kv: Sequence[KvLayer],
    batch: StepBatch,
) -> Tensor:
    """-> [rows, hidden]: the residual stream after the last layer, at the tokens that batch.logit_rows lists."""
    x = ops.embedded(params.embedding, batch)  # [tokens, hidden]
    for layer, tables, cache in zip(params.layers, rotations, kv, strict=True):
        x = through(ops, x, layer, tables, cache, batch)
    return ops.take(x, batch.logit_rows)


def through(
    ops: TensorOps, x: Tensor, layer: Layer, tables: RopeTables | None, cache: KvLayer, batch: StepBatch
) -> Tensor:
    """[tokens, hidden] -> [tokens, hidden]: one layer. A branch adds one term to x: norm `before`, body, norm `after`,
    scale; then comes the norm `closing` of the sum. Each norm may be None. All branches of a stage read the x that
    enters the stage. Most models have two stages of one branch: attention, then the MLP. A parallel residual is one
    stage of both.
    """
    for stage in layer.stages:
        entering = x
        for branch in stage:
            if isinstance(branch.body, Attention):
                x = _attend(ops, entering, branch, branch.body, x, tables, cache, batch)
            else:
                x = _feed_forward(ops, entering, branch, branch.body, x)
            x = ops.normed(x, branch.closing)
    return x


def _attend(
    ops: TensorOps,
    x: Tensor,
    branch: Branch,
    attention: Attention,
    residual: Tensor,
    tables: RopeTables | None,
    cache: KvLayer,
    batch: StepBatch,
) -> Tensor:
    """residual + scale · after(attention(before(x)))"""
    query, key, value = ops.norm_linears(x, branch.before, (attention.query, attention.key, attention.value))
    attended = ops.rope_attention((query, key, value), attention, tables, cache, batch)  # [tokens, heads * head_dim]
    return ops.linear_add(attended, attention.output, residual, branch.after, branch.scale)


def _feed_forward(ops: TensorOps, x: Tensor, branch: Branch, body: FeedForward, residual: Tensor) -> Tensor:
    """residual + scale · after(mlp(before(x)))"""
    match body:
        case GatedMlp() as mlp:
            inner = ops.norm_gated(x, branch.before, mlp)  # [tokens, intermediate]
        case PlainMlp() as mlp:
            inner = ops.norm_activated(x, branch.before, mlp)
        case Experts() as experts:
            mixed = ops.norm_experts(x, branch.before, experts)
            return ops.residual_add(mixed, residual, branch.after, branch.scale)
    return ops.linear_add(inner, mlp.down, residual, branch.after, branch.scale)
