"""What the tests of `ferrum.kv` compare with: plain models, and memory that fails on demand.

Clear code comes before fast code here. From the code under test these models take only the interfaces that they wrap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import DeviceError, ResourceExhausted
from ferrum.kv.block_table import BlockTable
from ferrum.kv.eviction import POLICIES, EvictionPolicy, make_policy
from ferrum.kv.manager import KvManager
from ferrum.kv.pool import BlockPool, Evicted
from ferrum.testing.stub import StubStore

POLICY_NAMES = tuple(POLICIES)


# ---- the eviction orders, each as plain lists
class NaiveOrder:
    """FIFO: a list of blocks, the next victim first. `touch` does not change it."""

    def __init__(self) -> None:
        self.blocks: list[int] = []

    def __contains__(self, block: int) -> bool:
        return block in self.blocks

    def add(self, block: int, digest: bytes) -> None:
        self.blocks.append(block)

    def touch(self, block: int) -> None:
        assert block in self.blocks

    def victim(self) -> int:
        return self.blocks.pop(0)


class NaiveLru(NaiveOrder):
    """LRU: for each block the time of its last use. The victim is the block with the earliest time."""

    def __init__(self) -> None:
        self.now = 0
        self.used: dict[int, int] = {}

    @property
    def blocks(self) -> list[int]:  # type: ignore[override]
        return sorted(self.used, key=lambda block: self.used[block])

    def add(self, block: int, digest: bytes) -> None:
        self.now += 1
        self.used[block] = self.now

    def touch(self, block: int) -> None:
        assert block in self.used
        self.now += 1
        self.used[block] = self.now

    def victim(self) -> int:
        block = min(self.used, key=lambda block: self.used[block])
        del self.used[block]
        return block


class NaiveClock(NaiveOrder):
    """The clock: a ring of blocks that does not move, a bit for each block, and a hand that points to one block."""

    def __init__(self) -> None:
        super().__init__()
        self.bits: list[bool] = []
        self.hand = 0

    def add(self, block: int, digest: bytes) -> None:
        """Inserts the block just behind the hand. The hand points to the same block as before."""
        self.blocks.insert(self.hand, block)
        self.bits.insert(self.hand, False)
        self.hand = (self.hand + 1) % len(self.blocks)

    def touch(self, block: int) -> None:
        self.bits[self.blocks.index(block)] = True

    def victim(self) -> int:
        passed = 0
        while self.bits[self.hand]:
            self.bits[self.hand] = False
            self.hand = (self.hand + 1) % len(self.blocks)
            passed += 1
        assert passed <= len(self.blocks), "after one sweep no bit is set"
        del self.bits[self.hand]
        block = self.blocks.pop(self.hand)
        if self.hand == len(self.blocks):
            self.hand = 0
        return block


class NaiveS3Fifo(NaiveOrder):
    """S3-FIFO: Algorithm 1 of its paper, with the paper's names: lists S, M and G, whose tails are at index 0, and the
    counts `freq`."""

    def __init__(self) -> None:
        self.S: list[tuple[int, bytes]] = []
        self.M: list[tuple[int, bytes]] = []
        self.G: list[bytes] = []
        self.freq: dict[int, int] = {}
        self.largest = 0

    @property
    def blocks(self) -> list[int]:  # type: ignore[override]
        return [block for block, _ in self.S + self.M]

    def add(self, block: int, digest: bytes) -> None:
        """INSERT of the paper, into a cache that has room."""
        if digest in self.G:
            self.G.remove(digest)
            self.M.append((block, digest))
        else:
            self.S.append((block, digest))
        self.freq[block] = 0
        self.largest = max(self.largest, len(self.S) + len(self.M))

    def touch(self, block: int) -> None:
        """READ of the paper, for a block that is in the cache."""
        self.freq[block] = min(self.freq[block] + 1, 3)

    def victim(self) -> int:
        """EVICT of the paper."""
        gone = self.evict_s() if len(self.S) >= 0.1 * (len(self.S) + len(self.M)) else None
        return self.evict_m() if gone is None else gone

    def evict_s(self) -> int | None:
        while self.S:
            block, digest = self.S.pop(0)
            if self.freq[block] > 1:
                self.M.append((block, digest))
                self.freq[block] = 0  # "its access bits are cleared during the move"
            else:
                self.G = [*self.G, digest][-self.largest :]
                return block
        return None

    def evict_m(self) -> int:
        while True:
            block, digest = self.M.pop(0)
            if self.freq[block] == 0:
                return block
            self.M.append((block, digest))
            self.freq[block] -= 1


NAIVE_ORDERS: dict[str, type[NaiveOrder]] = {
    "lru": NaiveLru,
    "fifo": NaiveOrder,
    "clock": NaiveClock,
    "s3fifo": NaiveS3Fifo,
}


# ---- contents
def code(text: Sequence[int]) -> int:
    """A number that only this text has (at most 39 tokens, each 0 or 1). It stands for keys and values."""
    return int("1" + "".join(map(str, text)), 3)


def codes(text: Sequence[int], start: int = 0, end: int | None = None) -> list[int]:
    """The right contents of positions start … end - 1: position p depends on all tokens up to p, as in a model."""
    return [code(text[: position + 1]) for position in range(start, len(text) if end is None else end)]


# ---- memory that fails
class Faults:
    """Decides which of the next calls fail: those whose numbers, counted from 0, are in `pending`."""

    def __init__(self) -> None:
        self.pending: set[int] = set()
        self.calls = 0

    def arm(self, places: set[int]) -> None:
        self.pending, self.calls = set(places), 0

    def strike(self) -> bool:
        self.calls += 1
        return self.calls - 1 in self.pending


GARBAGE = -7


class FragileStore(StubStore):
    """Counts the blocks that are moved, and the moves between the tiers that fail. A failed move leaves garbage in some
    targets."""

    def __init__(self, faults: Faults, blocks: int, block_size: int, host_blocks: int) -> None:
        super().__init__(blocks, block_size, host_blocks)
        self.faults = faults
        self.copied = self.moved_out = self.moved_in = self.failed = 0

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        self._may_fail(self.device, sources, targets)
        super().copy(sources, targets)
        self.copied += len(targets)

    def swap_out(self, blocks: Sequence[int], host_blocks: Sequence[int]) -> None:
        self._may_fail(self.host, blocks, host_blocks, 1)
        super().swap_out(blocks, host_blocks)
        self.moved_out += len(blocks)

    def swap_in(self, host_blocks: Sequence[int], blocks: Sequence[int]) -> None:
        self._may_fail(self.device, host_blocks, blocks, 1)
        super().swap_in(host_blocks, blocks)
        self.moved_in += len(blocks)

    def _may_fail(
        self, tier: NDArray[np.int64], sources: Sequence[int], targets: Sequence[int], counts: int = 0
    ) -> None:
        assert len(sources) == len(targets) == len(set(targets)) > 0, "a move of nothing, or twice to one place"
        if self.faults.strike():
            self.failed += counts
            tier[list(targets)[: len(targets) // 2 + 1]] = GARBAGE
            raise DeviceError("the device failed, as the test wanted")


class FragilePool(BlockPool):
    """A pool whose allocations fail where `faults` says. It counts the blocks that allocations evict."""

    def __init__(self, faults: Faults, total: int, policy: EvictionPolicy) -> None:
        super().__init__(total, policy)
        self.faults = faults
        self.evictions = 0

    def allocate(self, count: int) -> tuple[list[int], list[Evicted]]:
        if self.faults.strike():
            raise ResourceExhausted("no blocks, as the test wanted")
        blocks, evicted = super().allocate(count)
        self.evictions += len(evicted)
        return blocks, evicted


def make_manager(
    blocks: int,
    block_size: int,
    host_blocks: int = 0,
    policy: str = "lru",
    *,
    prefix_caching: bool = True,
    root: bytes = b"root",
) -> tuple[KvManager, FragileStore]:
    """A manager and its store. Moves and allocations fail where `store.faults` says."""
    faults = Faults()
    store = FragileStore(faults, blocks, block_size, host_blocks)
    device = FragilePool(faults, blocks, make_policy(policy))
    host = FragilePool(faults, host_blocks, make_policy(policy)) if host_blocks else None
    manager = KvManager(store, device, host, block_size, prefix_caching=prefix_caching, root=root)
    return manager, store


def digests_of(pool: BlockPool | None) -> dict[bytes, int]:
    """The block of each digest in a pool. The pool is asked block by block."""
    blocks = range(0 if pool is None else pool.total)
    return {digest: block for block in blocks if pool is not None and (digest := pool.digest(block)) is not None}


# ---- the calls of a runner and a scheduler, for tests with one fixed sequence of steps
def compute(manager: KvManager, store: StubStore, table: BlockTable, text: Sequence[int], start: int) -> None:
    """Reserves, writes and records the positions of a text from `start` on."""
    manager.reserve(table, start, len(text))
    store.device.reshape(-1)[table.slots(start, len(text) - start)] = codes(text, start)
    manager.record(table, text, len(text))


def serve(manager: KvManager, store: StubStore, text: Sequence[int]) -> BlockTable:
    """A table that holds all of a text: the cached prefix, and the rest computed."""
    table = manager.new_table()
    compute(manager, store, table, text, min(manager.open(table, text), len(text) - 1))
    return table


def remember(manager: KvManager, store: StubStore, text: Sequence[int]) -> None:
    """Computes a text and closes its table, so that its full blocks are cached."""
    manager.close(serve(manager, store, text))


def held_by(store: StubStore, table: BlockTable, count: int) -> list[int]:
    """The contents of the first `count` positions of a table, on the tier that it is on."""
    tier, blocks = (store.host, table.host_blocks) if table.host_blocks else (store.device, table.blocks)
    return tier[blocks].reshape(-1)[:count].tolist()


def known(manager: KvManager, text: Sequence[int]) -> list[str]:
    """The tier of each full block of a text, up to the first block that the prefix cache does not have."""
    hits = manager.find(manager.new_table(), text)
    return ["host" if hit.block is None else "device" for hit in hits]
