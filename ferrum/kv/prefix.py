"""What a full block is known by: a digest of all tokens up to its end.

Owns: the chain of digests. The keys and values of a position depend on every token before it, so a block is named by
digest(parent's digest, its own tokens), and the first parent, the root, by everything else that has a say: the model,
its types, the block size. Equal digests then mean equal content, in this process or in a file.
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

from ferrum.kv.eviction import Digest

DIGEST_BYTES = 16


def root_digest(*facts: object) -> Digest:
    """The digest of no tokens at all, for a model and whatever else changes the content of a block."""
    return blake2b(repr(facts).encode(), digest_size=DIGEST_BYTES).digest()


def child_digest(parent: Digest, token_ids: Sequence[int]) -> Digest:
    """The digest of a full block whose tokens are these, after the blocks that `parent` stands for."""
    return blake2b(parent + array("q", token_ids).tobytes(), digest_size=DIGEST_BYTES).digest()


def array_digest(array: NDArray[Any]) -> str:
    """Of an array's type, shape and every byte of its content. Other threads run meanwhile."""
    digest = blake2b(repr((str(array.dtype), array.shape)).encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class PrefixChain:
    """The digests of one sequence's full blocks, each made once: a sequence only ever grows at its end."""

    __slots__ = ("_block_size", "_digests", "_root")

    def __init__(self, root: Digest, block_size: int) -> None:
        self._root = root
        self._block_size = block_size
        self._digests: list[Digest] = []

    def fork(self, blocks: int) -> PrefixChain:
        """The chain of another text that begins with the same full blocks; takes over at most `blocks` digests."""
        chain = PrefixChain(self._root, self._block_size)
        chain._digests = self._digests[:blocks]
        return chain

    def digest(self, index: int, token_ids: Sequence[int]) -> Digest:
        """The digest of full block `index` of a text that begins with whatever earlier calls were given."""
        digests, size = self._digests, self._block_size
        for block in range(len(digests), index + 1):
            parent = digests[-1] if digests else self._root
            digests.append(child_digest(parent, token_ids[block * size : (block + 1) * size]))
        return digests[index]
