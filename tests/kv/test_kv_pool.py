"""KV-01 to KV-04, KV-10 to KV-14, KV-23, KV-33: the pool against lists of states."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ferrum.errors import InternalError, InvalidParameter, ResourceExhausted
from ferrum.kv.eviction import FifoPolicy, make_policy
from ferrum.kv.pool import BlockPool, Evicted
from tests.kv.oracles import NAIVE_ORDERS, POLICY_NAMES

DIGESTS = [b"a", b"b", b"c", b"d", b"e"]  # few, so that two blocks often have the same content


class PoolMachine(RuleBasedStateMachine):
    """Compares a pool with lists: for each block its number of references and its digest, and the plain order of the
    policy, in which held blocks may stand. Rules: allocate, share, release (also of blocks that may not be released),
    register, evict, clear."""

    policy = "lru"

    @initialize(total=st.integers(1, 7), known=st.booleans())
    def start(self, total: int, known: bool) -> None:
        """A new pool, often with cached blocks, since most rules do little in an empty pool."""
        self.pool = BlockPool(total, make_policy(self.policy))
        self.references = [0] * total
        self.digests: list[bytes | None] = [None] * total
        self.order = NAIVE_ORDERS[self.policy]()
        for block, digest in zip(range(total), DIGESTS if known else [], strict=False):
            assert self.pool.register(*self.pool.allocate(1)[0], digest)
            self.digests[block] = digest
            self.order.add(block, digest)
        self.pool.release([block for block, digest in enumerate(self.digests) if digest])
        self.seen = self.pool.releases, self.pool.available

    # ---- the model
    def held(self) -> list[int]:
        return [block for block, count in enumerate(self.references) if count]

    def cached(self) -> list[int]:
        known = enumerate(self.digests)
        return [block for block, digest in known if digest is not None and not self.references[block]]

    def free(self) -> set[int]:
        return set(range(len(self.references))) - set(self.held()) - set(self.cached())

    def next_victim(self) -> Evicted:
        """The victim that the pool must choose. A held block that is first in the order loses its place in it."""
        while self.references[block := self.order.victim()]:
            pass
        digest, self.digests[block] = self.digests[block], None
        assert digest is not None
        return Evicted(block, digest)

    # ---- the calls
    @rule(count=st.integers(-1, 8))
    def allocate(self, count: int) -> None:
        free, cached = self.free(), self.cached()
        if count < 0 or count > len(free) + len(cached):
            with pytest.raises(InvalidParameter if count < 0 else ResourceExhausted):
                self.pool.allocate(count)
            return
        blocks, evicted = self.pool.allocate(count)
        assert len(blocks) == len(set(blocks)) == count
        assert set(blocks) <= free | set(cached)  # and so they were not held
        assert len(evicted) == max(0, count - len(free))  # free ones go first
        assert evicted == [self.next_victim() for _ in evicted]
        assert set(blocks) - free == {victim.block for victim in evicted}
        for block in blocks:
            self.references[block] = 1

    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        block = data.draw(st.integers(0, len(self.references) - 1), "block")
        if block in self.free():
            with pytest.raises(InternalError):
                self.pool.share(block)
            return
        self.pool.share(block)
        self.references[block] += 1

    @precondition(lambda self: self.held())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        blocks = data.draw(st.lists(st.sampled_from(self.held()), unique=True), "blocks")
        self.pool.release(blocks)
        for block in blocks:
            self.references[block] -= 1
            digest = self.digests[block]
            if self.references[block] or digest is None:
                continue
            if block in self.order:
                self.order.touch(block)
            else:
                self.order.add(block, digest)

    @rule(data=st.data(), wrong=st.integers(-3, 10), first=st.booleans())
    def release_wrongly(self, data: st.DataObject, wrong: int, first: bool) -> None:
        """Releases all held blocks, together with a block that does not exist, one that is not held, or one of the held
        blocks a second time."""
        blocks = data.draw(st.permutations(self.held()), "blocks")
        with pytest.raises(InternalError):
            self.pool.release([wrong, *blocks] if first else [*blocks, wrong])

    @rule(data=st.data(), digest=st.sampled_from(DIGESTS))
    def register(self, data: st.DataObject, digest: bytes) -> None:
        block = data.draw(st.integers(0, len(self.references) - 1), "block")
        if not self.references[block] or self.digests[block] is not None:
            with pytest.raises(InternalError):
                self.pool.register(block, digest)
            return
        is_first = digest not in self.digests
        assert self.pool.register(block, digest) is is_first
        if is_first:
            self.digests[block] = digest

    @rule(count=st.integers(0, 8))
    def evict(self, count: int) -> None:
        expected = min(count, len(self.cached()))
        evicted = self.pool.evict(count)
        assert evicted == [self.next_victim() for _ in range(expected)]

    @precondition(lambda self: self.cached() and self.held())
    @rule()
    def clear(self) -> None:
        """Every block becomes free, also a held one, and the policy forgets the cached blocks."""
        self.pool.clear()
        self.references = [0] * len(self.references)
        self.digests = [None] * len(self.digests)
        self.order = NAIVE_ORDERS[self.policy]()
        self.seen = 0, len(self.references)

    # ---- what is true after each rule
    @invariant()
    def more_becomes_available_by_a_release_only(self) -> None:
        releases, available = self.seen
        assert self.pool.releases > releases or self.pool.available <= available
        self.seen = self.pool.releases, self.pool.available

    @invariant()
    def every_block_is_in_one_state(self) -> None:
        pool = self.pool
        assert [pool.references(block) for block in range(pool.total)] == self.references
        assert [pool.digest(block) for block in range(pool.total)] == self.digests
        assert (pool.held, pool.cached, pool.free) == (len(self.held()), len(self.cached()), len(self.free()))
        assert pool.free + pool.cached + pool.held == pool.total
        assert pool.available == pool.free + pool.cached
        assert pool.occupied() == sorted(self.held() + self.cached())

    @invariant()
    def a_digest_leads_to_the_block_that_has_it(self) -> None:
        for digest in DIGESTS:
            found = self.pool.lookup(digest)
            assert [block for block, known in enumerate(self.digests) if known == digest] == (
                [] if found is None else [found]
            )

    @invariant()
    def only_a_sole_holder_of_a_block_without_a_digest_may_write(self) -> None:
        for block, count in enumerate(self.references):
            assert self.pool.writable(block) == (count == 1 and self.digests[block] is None)

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        while self.held():
            self.pool.release(self.held())
            self.references = [max(0, count - 1) for count in self.references]
        assert self.pool.available == self.pool.total
        assert set(self.pool.allocate(self.pool.total)[0]) == set(range(self.pool.total))
        assert all(self.pool.lookup(digest) is None for digest in DIGESTS)


class LruPool(PoolMachine):
    policy = "lru"


class FifoPool(PoolMachine):
    policy = "fifo"


class ClockPool(PoolMachine):
    policy = "clock"


class S3FifoPool(PoolMachine):
    policy = "s3fifo"


@pytest.mark.clause("KV-26")
def test_a_pool_of_every_policy_is_tried() -> None:
    assert sorted(machine.policy for machine in PoolMachine.__subclasses__()) == sorted(POLICY_NAMES)


@pytest.mark.clause("KV-01", "KV-02", "KV-03", "KV-04", "KV-10", "KV-12", "KV-13", "KV-14", "KV-20", "KV-23", "KV-33")
class TestLruPool(LruPool.TestCase):  # type: ignore[misc]
    """The machine, under pytest."""


@pytest.mark.clause("KV-01", "KV-02", "KV-03", "KV-04", "KV-10", "KV-12", "KV-13", "KV-14", "KV-21", "KV-23", "KV-33")
class TestFifoPool(FifoPool.TestCase):  # type: ignore[misc]
    """The machine, under pytest."""


@pytest.mark.clause("KV-01", "KV-02", "KV-03", "KV-04", "KV-10", "KV-12", "KV-13", "KV-14", "KV-22", "KV-23", "KV-33")
class TestClockPool(ClockPool.TestCase):  # type: ignore[misc]
    """The machine, under pytest."""


@pytest.mark.clause("KV-01", "KV-02", "KV-03", "KV-04", "KV-10", "KV-12", "KV-13", "KV-14", "KV-23", "KV-27", "KV-33")
class TestS3FifoPool(S3FifoPool.TestCase):  # type: ignore[misc]
    """The machine, under pytest."""


def cached_pool(total: int, policy: str = "lru") -> BlockPool:
    """A pool in which every block is cached: block 0, released first, has the first of DIGESTS, and so on."""
    pool = BlockPool(total, make_policy(policy))
    blocks, _ = pool.allocate(total)
    for block in blocks:
        pool.register(block, DIGESTS[block])
    pool.release(blocks)
    return pool


@pytest.mark.clause("KV-02")
def test_exhaustion_is_retryable_and_says_how_much_there_is() -> None:
    pool = BlockPool(3, make_policy("lru"))
    pool.allocate(1)
    with pytest.raises(ResourceExhausted, match="4 blocks wanted, 2 of 3 available") as caught:
        pool.allocate(4)
    assert caught.value.is_retryable
    assert pool.free == 2


@pytest.mark.clause("KV-02")
def test_an_allocation_that_cannot_be_met_evicts_nothing() -> None:
    pool = cached_pool(3)
    pool.share(1)
    with pytest.raises(ResourceExhausted):
        pool.allocate(3)
    assert [pool.lookup(digest) for digest in DIGESTS[:3]] == [0, 1, 2]
    assert (pool.free, pool.cached, pool.held) == (0, 2, 1)


@pytest.mark.clause("KV-04")
def test_block_zero_is_an_ordinary_block() -> None:
    pool = BlockPool(1, make_policy("lru"))
    assert pool.allocate(1) == ([0], [])
    pool.register(0, b"a")
    assert pool.lookup(b"a") == 0
    pool.release([0])
    assert pool.allocate(1) == ([0], [Evicted(0, b"a")])
    pool.release([0])
    assert pool.allocate(1) == ([0], [])


@pytest.mark.clause("KV-02")
def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(InvalidParameter):
        BlockPool(0, make_policy("lru"))
    with pytest.raises(InvalidParameter):
        BlockPool(1, make_policy("lru")).allocate(-1)


@pytest.mark.clause("KV-14")
@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_what_is_cached_is_kept_while_there_are_free_blocks(policy: str) -> None:
    pool = cached_pool(3, policy)
    free = pool.evict(1)[0].block
    assert pool.allocate(1) == ([free], [])
    assert (pool.cached, pool.held) == (2, 1)


@pytest.mark.clause("KV-23")
@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_a_block_that_is_held_again_is_passed_over(policy: str) -> None:
    pool = cached_pool(3, policy)
    pool.share(0)
    blocks, evicted = pool.allocate(2)
    assert evicted == [Evicted(1, b"b"), Evicted(2, b"c")]
    assert pool.lookup(b"a") == 0 and 0 not in blocks
    pool.release([0])  # and its turn comes again
    assert pool.allocate(1) == ([0], [Evicted(0, b"a")])


@pytest.mark.clause("KV-22", "KV-23")
def test_to_be_held_is_a_use_that_the_clock_sees() -> None:
    pool = cached_pool(4, "clock")
    pool.share(1)
    pool.release([1])  # used: marked
    pool.share(2)
    assert [victim.block for victim in pool.evict(2)] == [0, 3]  # 1 is spared for its mark, 2 is held
    pool.release([2])  # comes in as new, behind 1, whose mark is gone
    assert [victim.block for victim in pool.evict(2)] == [1, 2]


class CountingPolicy(FifoPolicy):
    """A FIFO policy that counts the calls of `add` and `touch`."""

    def __init__(self) -> None:
        super().__init__()
        self.added: list[tuple[int, bytes]] = []
        self.touched: list[int] = []

    def add(self, block: int, digest: bytes) -> None:
        super().add(block, digest)
        self.added.append((block, digest))

    def touch(self, block: int) -> None:
        super().touch(block)
        self.touched.append(block)


@pytest.mark.clause("KV-26")
def test_a_policy_sees_one_use_for_each_time_that_a_block_is_held() -> None:
    policy = CountingPolicy()
    pool = BlockPool(2, policy)
    pool.allocate(2)
    pool.register(0, b"a")
    pool.share(0)
    pool.release([0])
    assert (policy.added, policy.touched) == ([], [])  # still held
    pool.release([0, 1])
    assert (policy.added, policy.touched) == ([(0, b"a")], [])  # 1 has no digest: it is free
    for _ in range(3):
        pool.share(0)
    for _ in range(3):
        pool.release([0])
    assert (policy.added, policy.touched) == ([(0, b"a")], [0])


@pytest.mark.clause("KV-13")
def test_a_free_block_cannot_be_shared() -> None:
    pool = cached_pool(1)
    pool.share(0)
    pool.release([0])
    pool.evict(1)
    with pytest.raises(InternalError, match="block 0"):
        pool.share(0)


@pytest.mark.clause("KV-04", "KV-12")
@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_a_pool_that_was_cleared_remembers_nothing(policy: str) -> None:
    pool = cached_pool(3, policy)
    pool.share(1)
    pool.clear()
    assert (pool.free, pool.cached, pool.held) == (3, 0, 0)
    assert [pool.lookup(digest) for digest in DIGESTS] == [None] * 5
    assert pool.allocate(3)[1] == []
    pool.register(2, b"e")
    pool.release([0, 1, 2])
    assert pool.evict(3) == [Evicted(2, b"e")]  # 0 and 1 have nothing that could be evicted


@pytest.mark.clause("KV-33")
def test_of_two_blocks_with_one_content_the_first_is_found() -> None:
    pool = BlockPool(2, make_policy("lru"))
    pool.allocate(2)
    assert pool.register(1, b"a") and not pool.register(0, b"a")
    assert (pool.lookup(b"a"), pool.digest(0)) == (1, None)
    pool.release([0, 1])
    assert (pool.free, pool.cached) == (1, 1)
