"""The forward pass of a decoder, the whole of it.

Owns: the order of operations in a Llama-family transformer. There is one pass for prefill, decode and any mixture:
a decode is a prefill of one token. Refuses to know: backends, files, who owns the blocks, why a token is in the batch.
Specs: MODEL. Papers: RMSNorm 1910.07467, GQA 2305.13245, SwiGLU 2002.05202. Next: `ferrum.backends.numpy_backend`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ferrum.config import ModelConfig
from ferrum.model.params import DecoderParams
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor


def forward(
    ops: TensorOps,
    config: ModelConfig,
    params: DecoderParams,
    tables: RopeTables,
    kv: Sequence[KvLayer],
    batch: StepBatch,
) -> Tensor:
    """-> logits [rows, vocab] of the packed tokens named in batch.logit_rows; keys and values of every token of the
    batch are written to `kv`, one KvLayer per decoder layer."""
    epsilon = config.norm_epsilon
    x = ops.embed(params.embedding, batch.token_ids)  # [tokens, hidden], the residual stream
    for layer, cache in zip(params.layers, kv, strict=True):
        query, key, value = ops.norm_linears(x, layer.attention_norm, epsilon, (layer.query, layer.key, layer.value))
        attended = ops.rope_attention(
            (query, key, value),
            tables,
            cache,
            batch,
            config.head_dim,
            config.scale,
            config.sliding_window,
            config.attention_softcap,
        )  # [tokens, heads * head_dim]
        x = ops.linear_add(attended, layer.output, x)
        activated = ops.norm_swiglu(x, layer.mlp_norm, epsilon, layer.gate, layer.up)  # [tokens, intermediate]
        x = ops.linear_add(activated, layer.down, x)
    wanted = ops.take(x, batch.logit_rows)  # [rows, hidden]
    (logits,) = ops.norm_linears(wanted, params.norm, epsilon, (params.head,))
    return logits
