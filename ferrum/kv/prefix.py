"""The digest of a full block: it stands for all tokens up to the end of the block.

Owns: the chain of digests. The keys and values of a position depend on every token before it, so the digest of a block
is blake2b-128 of its parent's digest, followed by its own tokens as int64. The parent of the first block is the root.
In memory, where all blocks are of one model, the root is empty; in a file it is a digest of everything else that the
content depends on: the model and its weights, the types, the backend and its arithmetic, the block size, the rotation
of keys (`content_root` in `ferrum.engine.setup`). Equal digests then mean equal content.
Refuses to know: which blocks exist.
Specs: KV-30, KV-31. Source: the hash chains of vLLM's automatic prefix caching. Next: `ferrum.kv.block_table`.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import InternalError
from ferrum.kv.eviction import Digest

DIGEST_BYTES = 16


def root_digest(*facts: object) -> Digest:
    """The digest of no tokens, for a model and everything else that the content of blocks depends on."""
    return blake2b(repr(facts).encode(), digest_size=DIGEST_BYTES).digest()


def child_digest(parent: Digest, token_ids: Sequence[int]) -> Digest:
    """The digest of a full block with these tokens, after the blocks that `parent` stands for."""
    return blake2b(parent + array("q", token_ids).tobytes(), digest_size=DIGEST_BYTES).digest()


def array_digest(array: NDArray[Any]) -> str:
    """A digest of an array's type, shape and every byte of its content. Other threads can run meanwhile."""
    digest = blake2b(repr((str(array.dtype), array.shape)).encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class PrefixChain:
    """The digests of one sequence's full blocks. Each is computed once, because a sequence grows only at its end."""

    __slots__ = ("_block_size", "_digests", "_root")

    def __init__(self, root: Digest, block_size: int) -> None:
        self._root = root
        self._block_size = block_size
        self._digests: list[Digest] = []  # of the first full blocks, as many as were asked for

    def fork(self, blocks: int) -> PrefixChain:
        """The chain of another text that begins with the same `blocks` full blocks."""
        chain = PrefixChain(self._root, self._block_size)
        chain._digests = self._digests[:blocks]
        return chain

    def digest(self, index: int, token_ids: Sequence[int]) -> Digest:
        """The digest of full block `index` of the text. Every call must be given the same text, or a longer one that
        begins with it. Raises InternalError if the block is not full: the digest of a part would be kept as that of
        the whole."""
        digests, size = self._digests, self._block_size
        if (index + 1) * size > len(token_ids):
            raise InternalError(f"block {index} of a text of {len(token_ids)} tokens is not full")
        for block in range(len(digests), index + 1):
            parent = digests[-1] if digests else self._root
            digests.append(child_digest(parent, token_ids[block * size : (block + 1) * size]))
        return digests[index]
