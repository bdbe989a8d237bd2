"""Frozen descriptions of a model and of an engine, and memory sizes written as text.

Owns: `ModelConfig` (all facts that the forward pass needs, with one name each, whatever the file format), `RopeConfig`,
`EngineConfig`. Refuses to know: config.json and GGUF keys (`ferrum.load` translates those).
Specs: MODEL, KV, SAMPLE-32. Next: `ferrum.sampling_params`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from ferrum.errors import InvalidParameter, quoted
from ferrum.given import flag, real, text, whole
from ferrum.speculation import parse_speculate
from ferrum.types import Pooling


class RopeScaling(Enum):
    """How rotary frequencies are stretched for contexts longer than the model was trained on."""

    NONE = "default"
    LINEAR = "linear"
    LLAMA3 = "llama3"
    YARN = "yarn"
    DYNAMIC = "dynamic"
    LONGROPE = "longrope"
    FACTORS = "factors"  # explicit per-frequency divisors, as GGUF stores llama3 scaling


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding (RoFormer, arXiv 2104.09864), half-split pairing.

    `theta` is the base of the frequencies, `rotary_dim` how many leading dimensions of a head rotate.
    The remaining fields matter only to the scaling that uses them.
    """

    theta: float
    rotary_dim: int
    scaling: RopeScaling = RopeScaling.NONE
    factor: float = 1.0
    original_max_positions: int = 0  # llama3, yarn, dynamic, longrope
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    attention_factor: float | None = None  # yarn, longrope: scales cos and sin; None means the paper's
    truncate: bool = True  # yarn: round the correction range to whole dimensions
    factors: tuple[float, ...] = ()  # factors, and longrope up to the original context: one divisor per frequency
    long_factors: tuple[float, ...] = ()  # longrope beyond the original context
    query_growth: float = 0.0  # queries are times 1 + growth ln(1 + ⌊position / original context⌋)


@dataclass(frozen=True)
class LayerKind:
    """The facts that may differ between layers."""

    rope: RopeConfig | None  # None: queries and keys are not rotated
    window: int | None = None  # a query sees at most this many positions, itself included
    sparse: bool = False  # True: experts instead of the MLP


@dataclass(frozen=True)
class ExpertsConfig:
    """A mixture of experts instead of an MLP."""

    count: int  # experts in a layer
    chosen: int  # experts that compute each token
    intermediate_size: int  # of each expert
    normalised: bool = True  # the weights of a token's experts are divided by their sum
    shared_size: int = 0  # intermediate size of an expert that computes every token; 0: there is none
    shared_weight: bool = False  # True: a gate weighs the result of the shared expert


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer, or an encoder. Differences between families are fields here, not code; defaults are
    Llama's."""

    architecture: str  # the family's name: "llama", "mistral"
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int  # longest context that the model was trained for, in tokens
    norm_epsilon: float
    rope: RopeConfig | None  # of every layer, unless layer_kinds says otherwise
    sliding_window: int | None = None  # likewise
    layer_kinds: tuple[LayerKind, ...] = ()  # one for each layer; () if all layers are alike
    tie_embeddings: bool = False  # the output head is the embedding table
    layer_norm: bool = False  # LayerNorm (subtracts the mean) instead of RMSNorm
    parallel: bool = False  # attention and MLP of a layer read the same input
    gated: bool = True  # the MLP has a gate
    hidden_activation: str = "silu"
    swiglu_limit: float | None = None  # gate and up are clipped to this size
    up_offset: float = 0.0  # added to up before it is multiplied with the gate
    attention_softcap: float | None = None  # scores become cap * tanh(scores / cap)
    attention_scale: float | None = None  # None means 1 / sqrt(head_dim)
    embedding_scale: float = 1.0  # factor of the embedded tokens
    residual_scale: float = 1.0  # factor of each branch before it is added to the residual stream
    logit_scale: float = 1.0  # factor of the logits
    logit_softcap: float | None = None  # logits become cap * tanh(logits / cap)
    experts: ExpertsConfig | None = None
    encoder: bool = False  # attention is not causal, and there is no head
    pooling: Pooling | None = None  # how a text becomes one vector; None if the model's files do not say it
    eos_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None

    @property
    def scale(self) -> float:
        """Factor applied to query·key scores before the softmax."""
        return self.head_dim**-0.5 if self.attention_scale is None else self.attention_scale

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """The kind of each layer, from the first to the last."""
        alike = LayerKind(self.rope, self.sliding_window, self.experts is not None)
        return self.layer_kinds or (alike,) * self.layers


@dataclass(frozen=True)
class EngineConfig:
    """How a model is run: on which backend, in which types, and with how much memory.

    `deterministic`: a request's tokens depend on that request alone, bit for bit; without it they may differ by the
    rounding of logits when other requests share a step. What it changes depends on the backend. `numba`: a row computed
    by a kernel always equals the row computed alone, with or without the option; only operations without a kernel are
    computed row by row. `numpy` and `cupy`: products of matrices are computed row by row too, which is slower.
    """

    backend: str = "auto"  # "numpy", "numba", "cupy", package.module:Class; "auto": a GPU if there is one, else numba
    dtype: str = "auto"  # type of the weights in memory; "auto": as stored in the file
    compute: str = "float32"  # operands of products: exact, or rounded to "int8" or "bfloat16"
    threads: int | None = None  # of a CPU backend; None: as many as the process may keep busy
    max_model_len: int | None = None  # longest sequence, in tokens; None: the model's, as far as kv_memory holds it
    max_num_seqs: int = 64  # sequences in a step, at most
    max_num_batched_tokens: int = 2048  # tokens in a step, at most
    block_size: int = 16  # positions in a block of keys and values
    kv_memory: int = field(default=1 << 30)  # bytes for keys and values on the device
    host_kv_memory: int = 0  # bytes on the host for preempted sequences and evicted blocks
    kv_dtype: str = "auto"  # type of keys and values; "auto": the type that the backend computes in
    scheduler: str = "fifo"  # order of requests: "fifo" or "priority"
    eviction: str = "lru"  # which cached block is given up first
    prefix_caching: bool = True  # prompts with the same beginning share its keys and values
    deterministic: bool = False
    max_waiting: int = 1000  # sequences in the queue, at most; further requests are refused
    gpu_memory_utilization: float | None = None  # share of a GPU's memory; weights and blocks together, not kv_memory
    speculate: str | None = None  # what proposes tokens: "ngram", "ngram:N", "draft", "draft:N", "off"

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None or name not in ("threads", "max_model_len"):
                object.__setattr__(self, name, whole(name, value, least, most))
        for name in ("backend", "dtype", "compute", "kv_dtype", "scheduler", "eviction"):
            found = text(getattr(self, name))
            if found is None:
                raise InvalidParameter(name, f"must be a name, not {quoted(getattr(self, name))}")
            object.__setattr__(self, name, found)
        if self.gpu_memory_utilization is not None:
            share = real("gpu_memory_utilization", self.gpu_memory_utilization, 0, 1)
            object.__setattr__(self, "gpu_memory_utilization", share)
        parse_speculate("speculate", self.speculate)
        for name in ("prefix_caching", "deterministic"):
            object.__setattr__(self, name, flag(name, getattr(self, name)))


MOST_TOKENS = 1 << 24
"""Upper limit of tokens in a context, a step, a block: sixteen times the longest context of a published model."""
MOST_BYTES = 1 << 60
"""Upper limit of memory sizes: more than any machine has, and small enough for an array index."""
_RANGES = {
    "threads": (1, 1 << 12),
    "max_model_len": (1, MOST_TOKENS),
    "max_num_seqs": (1, 1 << 20),
    "max_num_batched_tokens": (1, MOST_TOKENS),
    "block_size": (1, MOST_TOKENS),
    "kv_memory": (1, MOST_BYTES),
    "host_kv_memory": (0, MOST_BYTES),
    "max_waiting": (1, 1 << 31),
}

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
          "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}  # fmt: skip


def parse_memory(name: str, value: int | str) -> int:
    """Bytes from a whole number or from text such as "24MiB" or "1.5 GB"; `name` is the field that an error names."""
    written = text(value)
    if written is None:
        return whole(name, value, 0, MOST_BYTES)
    match = re.fullmatch(r"\s*([0-9]{1,400})(?:\.([0-9]{1,400}))?\s*([A-Za-z]*)\s*", written)
    if not match or match[3].upper() not in _UNITS:
        raise InvalidParameter(name, f'must be bytes or a size like "512MiB" or "2GiB", not {quoted(value)}')
    decimals = match[2] or ""
    size = int(match[1] + decimals) * _UNITS[match[3].upper()] // 10 ** len(decimals)  # exact: no float is that large
    return whole(name, size, 0, MOST_BYTES)
