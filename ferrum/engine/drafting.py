"""From a configuration to the proposers of tokens: the text itself, or a second model with a part of the memory.

Owns: whether a second model can speak for the first, and how both share `kv_memory`. Refuses to know: prompts.
Specs: DRAFT-10, DRAFT-15, DRAFT-16. Next: `ferrum.engine.assembly`.
"""

from __future__ import annotations

from dataclasses import replace

from ferrum.config import EngineConfig
from ferrum.engine.draft_length import pace_of
from ferrum.engine.draft_model import DraftProposer
from ferrum.engine.ngram import NgramProposer
from ferrum.engine.proposer import Proposer
from ferrum.engine.setup import Capacity, Model, build_runner, build_scheduler, capacity, storage_dtype
from ferrum.engine.speculation import Speculation
from ferrum.errors import InvalidParameter, Unsupported
from ferrum.kv.block_table import blocks_for
from ferrum.kv.storage import block_bytes
from ferrum.model.params import DecoderParams
from ferrum.speculation import DRAFT, NGRAM, OFF, Speculate, parse_speculate
from ferrum.tensor.compositions import TensorOps
from ferrum.text.tokenizer import Tokenizer


def check_speculation(config: EngineConfig, model: Model, draft: Model | None) -> None:
    """Raises Unsupported for an encoder, InvalidParameter for a second model with another vocabulary, and
    if drafts of a second model are configured without one."""
    default = parse_speculate("speculate", config.speculate)
    if model.config.encoder and (draft is not None or (default is not None and default.source != OFF)):
        raise Unsupported(f"speculate is for models that generate text, and {model.name} is an encoder")
    if default is not None and default.source == DRAFT and draft is None:
        raise InvalidParameter("speculate", f"is {config.speculate!r}, which needs a draft_model")
    if draft is not None:
        if draft.config.encoder:
            raise InvalidParameter("draft_model", f"must generate text, and {draft.name} is an encoder")
        _check_alike(model.tokenizer, draft.tokenizer, draft.name)


def _check_alike(tokenizer: Tokenizer, draft_tokenizer: Tokenizer, name: str) -> None:
    if tokenizer.vocab_size != draft_tokenizer.vocab_size:
        sizes = f"{draft_tokenizer.vocab_size} tokens, and the model's {tokenizer.vocab_size}"
        raise InvalidParameter("draft_model", f"must have the model's vocabulary: {name} has one of {sizes}")
    for token in range(tokenizer.vocab_size):
        if tokenizer.token_bytes(token) != draft_tokenizer.token_bytes(token):
            texts = (
                f"{draft_tokenizer.token_bytes(token)!r} in {name}, and {tokenizer.token_bytes(token)!r} in the model"
            )
            raise InvalidParameter("draft_model", f"must have the model's vocabulary: token {token} is {texts}")


def shared(config: EngineConfig, model: Model, draft: Model | None, ops: TensorOps) -> tuple[EngineConfig, int]:
    """-> the configuration with the first model's part of `kv_memory`, and the second model's bytes; both hold the same
    number of positions. Raises InvalidParameter if the memory cannot hold two positions of both."""
    if draft is None:
        return config, 0
    dtype, size = storage_dtype(ops, config), config.block_size
    block, draft_block = block_bytes(model.config, size, dtype), block_bytes(draft.config, size, dtype)
    weights = sum(weight.data.nbytes for weight in draft.params.weights())
    memory = config.kv_memory - (weights if config.gpu_memory_utilization is not None else 0)
    needed = (block + draft_block) * blocks_for(2, size)
    if memory < needed:
        raise InvalidParameter("kv_memory", f"must be at least {needed} bytes for a block of each model, not {memory}")
    part = memory * block // (block + draft_block)
    return replace(config, kv_memory=part), memory - part


def build_speculation(
    ops: TensorOps, config: EngineConfig, model: Model, size: Capacity, draft: Model | None = None, memory: int = 0
) -> Speculation:
    """The drafts of an engine. `size`: the capacity of the model; `memory`: bytes for the second model."""
    proposers: dict[str, Proposer] = {NGRAM: NgramProposer()}
    default = parse_speculate("speculate", config.speculate)
    if draft is not None:
        proposers[DRAFT] = _draft_proposer(ops, config, model, size, draft, memory)
        default = default or Speculate(DRAFT)
    return Speculation(proposers, default, pace_of(ops))


def _draft_proposer(
    ops: TensorOps, config: EngineConfig, model: Model, size: Capacity, draft: Model, memory: int
) -> DraftProposer:
    longest = min(size.max_model_len, draft.config.max_positions)
    draft_config = replace(config, kv_memory=memory, host_kv_memory=0, max_model_len=None)
    room = replace(capacity(draft.config, draft_config, storage_dtype(ops, config)), max_model_len=longest)
    runner = build_runner(ops, draft.config, draft.params, draft_config, room)
    manager = build_scheduler(draft_config, room, runner.storage, swap_cost=1.0).manager
    cost = _bytes(draft.params) / _bytes(model.params)
    return DraftProposer(runner, manager, cost, longest, config.max_num_batched_tokens, model.config.vocab_size)


def _bytes(params: DecoderParams) -> int:
    """Bytes of weights that a token reads, to which its time is proportional where memory is the limit."""
    return sum(weight.data.nbytes for weight in params.weights())
