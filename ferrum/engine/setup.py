"""From a configuration and a model to the parts of an engine: the length of contexts, the number of blocks.

Owns: the arithmetic of memory, and refusing what this version cannot do. Refuses to know: prompts.
Specs: ENGINE-17, ENGINE-18. Next: `ferrum.engine.drafting`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

from ferrum.backends.registry import load_backend
from ferrum.config import EngineConfig, ModelConfig
from ferrum.engine.runner import Runner
from ferrum.errors import InvalidParameter, Unsupported
from ferrum.kv.block_table import blocks_for
from ferrum.kv.eviction import Digest, make_policy
from ferrum.kv.manager import KvManager
from ferrum.kv.pool import BlockPool
from ferrum.kv.prefix import array_digest, root_digest
from ferrum.kv.storage import BlockStore, KvStorage, block_bytes, blocks_within
from ferrum.model.params import DecoderParams
from ferrum.model.rope import rotations, served
from ferrum.sample.grammars.grammar import GrammarMaker, Vocabulary
from ferrum.sample.state import Grammar
from ferrum.sampling_params import StructuredOutputs
from ferrum.sched.order import find_order
from ferrum.sched.scheduler import Limits, Scheduler
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import DTYPES
from ferrum.tensor.weights import Dense
from ferrum.text.template_names import ChatTemplates
from ferrum.text.tokenizer import Tokenizer

KV_DTYPES = ("auto", "float32", "float16", "bfloat16", "q8_0")
COMPUTE = ("float32", "bfloat16", "int8")

LEFT_ON_DEVICE = 1 << 30
"""Bytes of a GPU's memory for activations, graphs and libraries, besides one decoded matrix: an estimate."""


class Model(Protocol):
    """The parts of a model that an engine needs; `ferrum.load.model.LoadedModel` has them."""

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> ModelConfig: ...
    @property
    def params(self) -> DecoderParams: ...  # arrays on the host
    @property
    def tokenizer(self) -> Tokenizer: ...  # raises TokenizerError where the model has none
    @property
    def chat_templates(self) -> ChatTemplates: ...


@dataclass(frozen=True)
class Capacity:
    """The longest context of an engine, and its numbers of blocks."""

    max_model_len: int  # tokens of one sequence
    blocks: int
    host_blocks: int


def check_supported(config: EngineConfig) -> None:
    """Raises InvalidParameter for a value that makes no sense, Unsupported for one that this version does not have."""
    find_order(config.scheduler)
    make_policy(config.eviction)
    for name, value, choices in (("compute", config.compute, COMPUTE), ("kv_dtype", config.kv_dtype, KV_DTYPES)):
        if value in choices:
            continue
        if value not in DTYPES:
            raise InvalidParameter(name, f"must be one of {', '.join(choices)}, not {value!r}")
        raise Unsupported(f"{name}={value!r} is not part of this version; known: {', '.join(choices)}")


def make_backend(config: EngineConfig) -> TensorOps:
    """The backend of a configuration. Raises the errors of `load_backend`."""
    compute = None if config.compute == "float32" else config.compute
    return load_backend(
        config.backend, threads=config.threads, deterministic=config.deterministic or None, compute=compute
    )


def check_backend(ops: TensorOps, config: EngineConfig) -> None:
    """Raises InvalidParameter if a backend was made with other options than the configuration has."""
    if config.deterministic and not ops.deterministic:
        raise InvalidParameter(
            "deterministic", f"needs a backend made with deterministic=True, and this {ops.name} was not"
        )
    if config.compute != ops.compute:
        raise InvalidParameter(
            "compute", f"is {config.compute!r}, but this {ops.name} was made with compute={ops.compute!r}"
        )


def with_device_memory(ops: TensorOps, params: DecoderParams, config: EngineConfig) -> EngineConfig:
    """The configuration with the kv_memory that gpu_memory_utilization leaves, if that is given. Raises
    InvalidParameter for a backend without its own memory, and if the weights leave nothing."""
    share, memory = config.gpu_memory_utilization, ops.own_memory()
    if share is None:
        return config
    if memory is None:
        raise InvalidParameter(
            "gpu_memory_utilization", f"is for a GPU, and {ops.name} runs on the CPU: say kv_memory instead"
        )
    weights = sum(weight.data.nbytes for weight in params.weights())
    reserve = LEFT_ON_DEVICE + max(4 * weight.rows * weight.columns for weight in params.weights())
    available = int(share * memory.total) - (memory.total - memory.free) - weights - reserve
    if available <= 0:
        raise InvalidParameter(
            "gpu_memory_utilization",
            f"of {share:g} leaves nothing for keys and values: of {memory.total} bytes {memory.total - memory.free} "
            f"are in use, the weights take {weights}, and {reserve} are kept for the rest",
        )
    return replace(config, kv_memory=available)


def storage_dtype(ops: TensorOps, config: EngineConfig) -> str:
    """The type in which keys and values are stored; "auto" is the type in which the backend computes."""
    return ops.float_dtype if config.kv_dtype == "auto" else config.kv_dtype


def capacity(model: ModelConfig, config: EngineConfig, dtype: str) -> Capacity:
    """The longest context: max_model_len, or the model's own as far as kv_memory holds it. Raises InvalidParameter if
    max_model_len exceeds either."""
    blocks = blocks_within(config.kv_memory, model, config.block_size, dtype)
    positions = blocks * config.block_size
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
    on_host = blocks_within(config.host_kv_memory, model, config.block_size, dtype)
    if config.host_kv_memory and not on_host:
        needed = block_bytes(model, config.block_size, dtype)
        memory = config.host_kv_memory
        raise InvalidParameter("host_kv_memory", f"must be 0 or at least {needed} bytes for one block, not {memory}")
    return Capacity(longest, blocks, on_host)


def build_runner(
    ops: TensorOps, model: ModelConfig, params: DecoderParams, config: EngineConfig, size: Capacity
) -> Runner:
    """Moves the parameters to the backend and gives the model its memory."""
    dtype = storage_dtype(ops, config)
    storage = KvStorage(ops, model, size.blocks, config.block_size, dtype, size.host_blocks)
    tables = rotations(ops, (layer.rope for layer in params.layers), size.max_model_len)
    return Runner(ops, params.to(ops), tables, storage)


def build_scheduler(config: EngineConfig, size: Capacity, store: BlockStore, swap_cost: float) -> Scheduler:
    """The scheduler and the memory manager below it. `swap_cost`: moving one block to the host and back takes as long
    as computing so many tokens, as the function `swap_cost` estimates it. A preempted sequence is moved if that is
    cheaper than computing it again."""
    device = BlockPool(size.blocks, make_policy(config.eviction))
    host = BlockPool(size.host_blocks, make_policy(config.eviction)) if size.host_blocks else None
    manager = KvManager(store, device, host, config.block_size, prefix_caching=config.prefix_caching)
    limits = Limits(config.max_num_seqs, config.max_num_batched_tokens, size.max_model_len, config.max_waiting)
    return Scheduler(manager, limits, find_order(config.scheduler), swap_cost)


def build_grammars(read_tokenizer: Callable[[], Tokenizer], vocab_size: int) -> Callable[[StructuredOutputs], Grammar]:
    """A maker of grammars for a model's vocabulary, which is read when the first grammar is made."""

    @cache
    def maker() -> GrammarMaker:
        tokenizer = read_tokenizer()
        size = max((tokenizer.vocab_size, *(end + 1 for end in tokenizer.eos_token_ids)))  # ends may have no text
        vocabulary = Vocabulary(
            lambda: [tokenizer.token_bytes(token) for token in range(size)],
            tokenizer.special_ids,
            tokenizer.eos_token_ids,
            lambda text: tokenizer.encode(text, add_special_tokens=False),
        )
        return GrammarMaker(vocabulary, vocab_size)

    return lambda structure: maker()(structure)


def swap_cost(ops: TensorOps, model: ModelConfig, params: DecoderParams, config: EngineConfig, dtype: str) -> float:
    """An estimate of the number of tokens that are computed while one block moves to the host and back."""
    return 2 * block_bytes(model, config.block_size, dtype) * ops.flops_per_byte / (2 * params.active())


def content_root(ops: TensorOps, model: ModelConfig, params: DecoderParams, config: EngineConfig) -> Digest:
    """A digest of what besides tokens determines the keys and values in a block: the model, all of its weights, the
    types, the backend's arithmetic, the block size, and how keys are turned where the longest context decides on that.
    Reads every weight: a second or so for a billion of them."""
    from concurrent.futures import ThreadPoolExecutor  # few starts need it

    arrays = [*params.vectors(), *((weight.kind, weight.data) for weight in params.weights())]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents = list(pool.map(lambda pair: (pair[0], array_digest(pair[1])), arrays))
    dtype = storage_dtype(ops, config)
    types = (ops.name, ops.float_dtype, dtype, config.compute, config.block_size)
    longest = capacity(model, config, dtype).max_model_len
    turns = [served(rope, longest) for rope in dict.fromkeys(kind.rope for kind in model.kinds) if rope is not None]
    return root_digest("ferrum-blocks-4", types, ops.deterministic, model, turns, contents)


def weights_dtype(params: DecoderParams) -> str:
    """The type in which most of a model's numbers are stored: "q4_1", "float32", …"""
    numbers: Counter[str] = Counter()
    for weight in params.weights():
        kind = str(weight.data.dtype) if isinstance(weight, Dense) else weight.kind
        numbers[kind] += weight.rows * weight.columns
    return numbers.most_common(1)[0][0]
