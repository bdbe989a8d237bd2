"""The memory behind the blocks: keys and values of every layer, on the backend.

Owns: the arrays, one block-id space for all layers, and what a block costs in bytes. The arrays are made by
`ops.empty`: an operating system gives a page when it is first written, so an unused pool costs nothing on a CPU.
Refuses to know: which block is whose.
Specs: KV-07, KV-08. Next: `ferrum.sched.sequence`.
"""

from __future__ import annotations

from ferrum.config import ModelConfig
from ferrum.errors import Unsupported
from ferrum.tensor.batch import KvLayer
from ferrum.tensor.compositions import TensorOps

ELEMENT_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


class KvStorage:
    """`layers`: one KvLayer per decoder layer, each with room for `blocks` blocks; contents undefined at first."""

    def __init__(self, ops: TensorOps, config: ModelConfig, blocks: int, block_size: int, dtype: str) -> None:
        self.blocks = blocks
        self.block_size = block_size
        self.dtype = dtype
        self.bytes = blocks * block_bytes(config, block_size, dtype)
        keys = (blocks, config.kv_heads, config.head_dim, block_size)
        values = (blocks, config.kv_heads, block_size, config.head_dim)
        self.layers = tuple(KvLayer(ops.empty(keys, dtype), ops.empty(values, dtype)) for _ in range(config.layers))


def block_bytes(config: ModelConfig, block_size: int, dtype: str) -> int:
    """Bytes of one block: keys and values of `block_size` positions in every layer."""
    if dtype not in ELEMENT_BYTES:
        raise Unsupported(f"keys and values cannot be stored as {dtype!r}; known: {', '.join(ELEMENT_BYTES)}")
    return 2 * config.layers * config.kv_heads * config.head_dim * block_size * ELEMENT_BYTES[dtype]


def blocks_within(memory: int, config: ModelConfig, block_size: int, dtype: str) -> int:
    """How many whole blocks `memory` bytes hold; may be none."""
    return memory // block_bytes(config, block_size, dtype)
