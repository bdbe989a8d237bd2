"""Test doubles for the slow parts of an engine: a model that computes nothing, and its memory.

Owns: `StubRunner`, `StubStore`. The stub reads the past of a sequence only from the slots that were written. So a wrong
slot, a write to a shared block, a forgotten move or a token computed twice changes its answer. Refuses to know: tensors
and files.
Specs: ENGINE-01. Next: `ferrum.testing.audit`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.engine.runner import pack
from ferrum.errors import InternalError
from ferrum.sched.plan import StepPlan
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.text.byte_tokenizer import BYTES
from ferrum.types import DecodeSteps

UNWRITTEN = -1

NextToken = Callable[[Sequence[int]], int]
"""All tokens of a sequence so far -> the one that follows."""


def count_up(tokens: Sequence[int]) -> int:
    """The default continuation. It depends on every token of the past."""
    return sum((place + 1) * token for place, token in enumerate(tokens)) % BYTES


class StubStore:
    """Blocks that hold the tokens themselves, [blocks, block_size] on the device and on the host."""

    def __init__(self, blocks: int, block_size: int, host_blocks: int = 0) -> None:
        self.block_size = block_size
        self.device = np.full((blocks, block_size), UNWRITTEN, np.int64)
        self.host = np.full((host_blocks, block_size), UNWRITTEN, np.int64)

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        self.device[list(targets)] = self.device[list(sources)]

    def swap_out(self, blocks: Sequence[int], host_blocks: Sequence[int]) -> None:
        self.host[list(host_blocks)] = self.device[list(blocks)]

    def swap_in(self, host_blocks: Sequence[int], blocks: Sequence[int]) -> None:
        self.device[list(blocks)] = self.host[list(host_blocks)]

    def read(self, blocks: Sequence[int]) -> dict[str, NDArray[Any]]:
        return {"tokens": self.device[list(blocks)]}

    def write(self, blocks: Sequence[int], contents: dict[str, NDArray[Any]]) -> None:
        self.device[list(blocks)] = contents["tokens"]


class StubRunner:
    """An executor whose model is a Python function. The logit of its token is 1, and all others are 0."""

    decode_steps = DecodeSteps()
    encodes = False

    def __init__(self, store: StubStore, next_token: NextToken = count_up, vocab_size: int = BYTES + 1) -> None:
        """`store` is its memory. `plans` records every plan, as (start, count) of its chunks."""
        self.ops: TensorOps = NumpyOps()
        self.vocab_size = vocab_size
        self.store = store
        self.plans: list[list[tuple[int, int]]] = []
        self._next_token = next_token

    def run(self, plan: StepPlan) -> Tensor:
        """-> float32 [rows, vocab]. Raises InternalError if a context contains a slot that was never written."""
        self.plans.append([(chunk.start, chunk.count) for chunk in plan.chunks])
        batch = pack(self.ops, plan.chunks)
        if len(set(batch.slots.tolist())) != len(batch.slots):
            raise InternalError("two tokens of a step share a slot")
        self.store.device.reshape(-1)[batch.slots] = batch.token_ids
        logits = np.zeros((len(batch.logit_rows), self.vocab_size), np.float32)
        for logit, row in zip(logits, batch.logit_rows, strict=True):
            sequence = int(np.searchsorted(batch.seq_starts, row, side="right")) - 1
            context = self._read(batch.block_tables[sequence], int(batch.positions[row]) + 1)
            logit[self._next_token(context)] = 1
        return logits

    def vectors(self, plan: StepPlan) -> Tensor:
        """The logits: they depend on memory as the vector of a text does."""
        return self.run(plan)

    def _read(self, table: NDArray[np.int32], count: int) -> list[int]:
        """The first `count` tokens of a sequence, from memory."""
        blocks = table[: -(-count // self.store.block_size)]
        tokens: list[int] = self.store.device[blocks].reshape(-1)[:count].tolist()
        if UNWRITTEN in tokens:
            raise InternalError(f"position {tokens.index(UNWRITTEN)} is read before it is written")
        return tokens
