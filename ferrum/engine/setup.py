"""From a configuration and a model to an engine's parts: how long a context, how many blocks.

Owns: the arithmetic of memory, and refusing what this version cannot do. Refuses to know: prompts.
Specs: ENGINE-17, ENGINE-18. Next: `ferrum.engine.prompts`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from ferrum.config import EngineConfig, ModelConfig
from ferrum.engine.runner import Runner
from ferrum.errors import InvalidParameter, Unsupported
from ferrum.kv.block_table import blocks_for
from ferrum.kv.pool import BlockPool
from ferrum.kv.storage import KvStorage, block_bytes, blocks_within
from ferrum.model.params import DecoderParams
from ferrum.model.rope import rope_tables
from ferrum.sched.scheduler import FifoScheduler
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import DTYPES
from ferrum.tensor.weights import Dense
from ferrum.text.chat import ChatTemplate
from ferrum.text.tokenizer import Tokenizer

KV_DTYPES = ("auto", "float32", "float16")
COMPUTE = ("float32",)

LATER = {
    "scheduler": "sequences run first in, first out",
    "eviction": "there is no cache to evict from",
    "prefix_caching": "every prompt is computed in full",
    "host_kv_memory": "keys and values stay on the device",
    "deterministic": "results may differ in the last bits with the batch",
}
"""Parameters that later versions have, and what this one does instead."""

TODAY: dict[str, tuple[object, ...]] = {
    "scheduler": ("fifo",),
    "eviction": (),
    "prefix_caching": (False,),
    "host_kv_memory": ("0", 0),
    "deterministic": (False,),
}
"""Values of those parameters that ask for just that."""


class Model(Protocol):
    """What an engine needs of a model; `ferrum.load.model.LoadedModel` is one."""

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> ModelConfig: ...
    @property
    def params(self) -> DecoderParams: ...  # arrays on the host
    @property
    def tokenizer(self) -> Tokenizer: ...  # raises TokenizerError where the model has none
    @property
    def chat_template(self) -> ChatTemplate | None: ...


@dataclass(frozen=True)
class Capacity:
    """How much context an engine serves, and with how many blocks."""

    max_model_len: int  # tokens of one sequence
    blocks: int


def refuse_later(parameters: dict[str, object]) -> None:
    """Raises Unsupported for a parameter of a later version, unless its value asks for what this one does; TypeError
    for one that does not exist."""
    for name, value in parameters.items():
        if name in LATER and value in TODAY[name]:
            continue
        if name in LATER:
            raise Unsupported(f"{name} is not part of this version: {LATER[name]}")
        raise TypeError(f"LLM() got an unexpected keyword argument {name!r}")


def check_supported(config: EngineConfig) -> None:
    """Raises InvalidParameter for a value of `compute` or `kv_dtype` that means nothing, Unsupported for one that this
    version does not have."""
    for name, value, known in (("compute", config.compute, COMPUTE), ("kv_dtype", config.kv_dtype, KV_DTYPES)):
        if value in known:
            continue
        if value not in DTYPES:
            raise InvalidParameter(name, f"must be one of {', '.join(known)}, not {value!r}")
        raise Unsupported(f"{name}={value!r} is not part of this version; known: {', '.join(known)}")


def storage_dtype(ops: TensorOps, config: EngineConfig) -> str:
    """The type keys and values are stored in; "auto" is the type the backend computes in."""
    return ops.float_dtype if config.kv_dtype == "auto" else config.kv_dtype


def capacity(model: ModelConfig, config: EngineConfig, dtype: str) -> Capacity:
    """The longest context: what was asked for, or as much of the model's own as kv_memory holds. Raises
    InvalidParameter where what was asked for exceeds either."""
    held = blocks_within(config.kv_memory, model, config.block_size, dtype)
    positions = held * config.block_size
    if positions < 2:  # one token of a prompt, one generated
        needed = block_bytes(model, config.block_size, dtype) * blocks_for(2, config.block_size)
        raise InvalidParameter("kv_memory", f"must be at least {needed} bytes for one block, not {config.kv_memory}")
    longest = config.max_model_len
    if longest is None:
        longest = min(model.max_positions, positions)
    elif longest > model.max_positions:
        raise InvalidParameter("max_model_len", f"must be at most the model's {model.max_positions}, not {longest}")
    elif longest > positions:
        raise InvalidParameter("max_model_len", f"is {longest}, but kv_memory holds only {positions} tokens")
    # More blocks than all sequences at full length could use would never be touched.
    return Capacity(longest, min(held, config.max_num_seqs * blocks_for(longest, config.block_size)))


def build_runner(
    ops: TensorOps, model: ModelConfig, params: DecoderParams, config: EngineConfig, size: Capacity
) -> Runner:
    """Moves the parameters to the backend and gives the model its memory."""
    storage = KvStorage(ops, model, size.blocks, config.block_size, storage_dtype(ops, config))
    return Runner(ops, model, params.to(ops), rope_tables(ops, model.rope, size.max_model_len), storage)


def build_scheduler(config: EngineConfig, size: Capacity) -> FifoScheduler:
    return FifoScheduler(
        BlockPool(size.blocks), config.block_size, config.max_num_seqs, config.max_num_batched_tokens,
        size.max_model_len,
    )  # fmt: skip


def weights_dtype(params: DecoderParams) -> str:
    """The type that most of a model's numbers are stored in: "q4_1", "float32", …"""
    numbers: Counter[str] = Counter()
    for weight in params.weights():
        kind = str(weight.data.dtype) if isinstance(weight, Dense) else weight.kind
        numbers[kind] += weight.rows * weight.columns
    return numbers.most_common(1)[0][0]
