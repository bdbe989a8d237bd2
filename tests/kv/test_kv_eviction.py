"""KV-20 to KV-22, KV-26, KV-27: each eviction policy against a plain model of its order."""

from __future__ import annotations

from collections import OrderedDict
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ferrum import LLM
from ferrum.errors import InvalidParameter
from ferrum.kv.eviction import POLICIES, ClockPolicy, S3FifoPolicy, make_policy
from tests.house.source import ROOT
from tests.kv.oracles import NAIVE_ORDERS, NaiveClock

blocks = st.integers(0, 7)
DIGESTS = [bytes([letter]) for letter in b"abcdefghijkl"]  # more than blocks, but few: digests of victims come again


class OrderMachine(RuleBasedStateMachine):
    """Compares a policy with its plain model in `tests.kv.oracles`. Rules: add, touch, victim and clear, each called on
    both. Adding a block twice, touching a block that is absent, and a victim of an empty policy raise KeyError."""

    policy = "lru"

    def __init__(self) -> None:
        super().__init__()
        self.real = make_policy(self.policy)
        self.naive = NAIVE_ORDERS[self.policy]()
        self.digests: dict[int, bytes] = {}

    @rule(block=blocks, choice=st.integers(0, len(DIGESTS) - 1))
    def add(self, block: int, choice: int) -> None:
        """At any time each block has another digest."""
        if block in self.naive:
            with pytest.raises(KeyError):
                self.real.add(block, b"new")
        else:
            unused = [digest for digest in DIGESTS if digest not in self.digests.values()]
            self.digests[block] = digest = unused[choice % len(unused)]
            self.real.add(block, digest)
            self.naive.add(block, digest)

    @rule(block=blocks)
    def touch(self, block: int) -> None:
        if block in self.naive:
            self.real.touch(block)
            self.naive.touch(block)
        else:
            with pytest.raises(KeyError):
                self.real.touch(block)

    @rule()
    def victim(self) -> None:
        if self.digests:
            victim = self.naive.victim()
            assert self.real.victim() == victim
            del self.digests[victim]
        else:
            with pytest.raises(KeyError):
                self.real.victim()

    @rule()
    def clear(self) -> None:
        self.real.clear()
        self.naive = NAIVE_ORDERS[self.policy]()
        self.digests.clear()

    @invariant()
    def both_have_the_same_blocks(self) -> None:
        assert [block for block in range(8) if block in self.real] == sorted(self.digests)

    def teardown(self) -> None:
        """Takes victims until none is left: an order may be wrong only at its end."""
        while self.digests:
            self.victim()
        self.victim()


class LruMachine(OrderMachine):
    policy = "lru"


class FifoMachine(OrderMachine):
    policy = "fifo"


class ClockMachine(OrderMachine):
    policy = "clock"


class S3FifoMachine(OrderMachine):
    policy = "s3fifo"


@pytest.mark.clause("KV-20")
class TestLru(LruMachine.TestCase):  # type: ignore[misc]
    """The machine, under pytest."""


@pytest.mark.clause("KV-21")
class TestFifo(FifoMachine.TestCase):  # type: ignore[misc]
    """The machine, under pytest."""


@pytest.mark.clause("KV-22")
class TestClock(ClockMachine.TestCase):  # type: ignore[misc]
    """The machine, under pytest."""


@pytest.mark.clause("KV-27")
class TestS3Fifo(S3FifoMachine.TestCase):  # type: ignore[misc]
    """The machine, under pytest."""


def digest_of(block: int) -> bytes:
    """A digest that only this block has."""
    return bytes([block])


@pytest.mark.clause("KV-20")
def test_lru_counts_adding_as_a_use() -> None:
    order = make_policy("lru")
    for block in (1, 2, 3):
        order.add(block, digest_of(block))
    order.touch(1)
    order.add(4, digest_of(4))
    assert [order.victim() for _ in range(4)] == [2, 3, 1, 4]


@pytest.mark.clause("KV-21")
def test_fifo_does_not_care_for_use() -> None:
    order = make_policy("fifo")
    for block in (1, 2, 3):
        order.add(block, digest_of(block))
    order.touch(1)
    assert [order.victim() for _ in range(3)] == [1, 2, 3]


@pytest.mark.clause("KV-22")
def test_the_hand_of_the_clock_stays_where_it_was() -> None:
    order = make_policy("clock")
    for block in (1, 2, 3, 4):
        order.add(block, digest_of(block))
    order.touch(1)
    assert order.victim() == 2  # 1 was spared and the hand points to 3
    order.add(5, digest_of(5))  # behind the hand: after 3, 4 and 1
    assert [order.victim() for _ in range(4)] == [3, 4, 1, 5]


@pytest.mark.clause("KV-22")
def test_the_clock_clears_only_what_it_passes() -> None:
    order = make_policy("clock")
    for block in (1, 2, 3):
        order.add(block, digest_of(block))
    order.touch(1)
    order.touch(3)
    assert order.victim() == 2  # the mark of 1 is gone, that of 3 is not
    assert order.victim() == 1  # 3 was spared for its own mark
    order.add(4, digest_of(4))  # behind 3, to which the hand points again
    assert [order.victim(), order.victim()] == [3, 4]


@pytest.mark.clause("KV-22")
@given(marks=st.lists(st.booleans(), min_size=1, max_size=30))
def test_the_clock_needs_two_sweeps_at_most(marks: list[bool]) -> None:
    """Counts in the policy itself: for each block that the hand reaches, it takes one from the front of its queue."""

    class Counting(OrderedDict[int, bool]):
        taken = 0

        def popitem(self, last: bool = True) -> tuple[int, bool]:
            self.taken += 1
            return super().popitem(last)

    clock, naive = ClockPolicy(), NaiveClock()
    clock._marks = Counting()
    for block, marked in enumerate(marks):
        for order in (clock, naive):
            order.add(block, digest_of(block))
            if marked:
                order.touch(block)
    first = marks.index(False) if False in marks else 0
    assert clock.victim() == naive.victim() == first
    assert clock._marks.taken <= len(marks) + 1 <= 2 * len(marks)


@pytest.mark.clause("KV-27")
@pytest.mark.parametrize(("policy", "left"), [("lru", 0), ("s3fifo", 18)])
def test_prefixes_used_once_do_not_push_out_those_used_often(policy: str, left: int) -> None:
    """A memory of twenty blocks is full of blocks that were used twice. Then a hundred other blocks come, each in the
    place of a victim. S3-FIFO has a small queue for new blocks: two places, a tenth."""
    order = make_policy(policy)
    content = list(range(20))
    for block in content:
        order.add(block, digest_of(block))
        order.touch(block)
        order.touch(block)
    for other in range(100, 200):
        block = order.victim()
        content[block] = other
        order.add(block, digest_of(other))
    assert len([name for name in content if name < 100]) == left


@pytest.mark.clause("KV-27")
def test_a_block_that_comes_back_from_the_ghost_is_given_up_after_the_new_ones() -> None:
    order = make_policy("s3fifo")
    for block in range(3):
        order.add(block, digest_of(block))
    assert [order.victim(), order.victim(), order.victim()] == [0, 1, 2]
    order.add(7, digest_of(1))  # the content of block 1, in another block
    order.add(8, digest_of(8))
    order.add(9, digest_of(9))
    assert [order.victim(), order.victim(), order.victim()] == [8, 9, 7]


@pytest.mark.clause("KV-27")
@given(digests=st.lists(st.integers(0, 99), max_size=300), room=st.integers(1, 9))
def test_the_ghost_is_bounded_by_the_blocks(digests: list[int], room: int) -> None:
    order = S3FifoPolicy()
    blocks = list(range(room))
    present: dict[int, int] = {}
    for digest in digests:
        if digest in present.values():
            continue
        if not blocks:
            blocks.append(order.victim())
            del present[blocks[-1]]
        present[blocks[-1]] = digest
        order.add(blocks.pop(), bytes([digest]))
        assert len(order._ghost) <= room


@pytest.mark.clause("KV-27")
def test_after_a_clear_the_ghost_is_as_small_as_at_the_beginning() -> None:
    order = make_policy("s3fifo")
    for block in range(4):
        order.add(block, digest_of(block))
    order.clear()
    for content in (10, 11):  # one block at a time: the ghost has room for one digest
        order.add(0, digest_of(content))
        order.victim()
    order.add(1, digest_of(10))
    order.add(2, digest_of(12))
    assert order.victim() == 1  # its digest is forgotten: it is as new as the other


@pytest.mark.clause("KV-20", "KV-21", "KV-22", "KV-27")
@pytest.mark.parametrize("policy", POLICIES)
@given(seed=st.integers(0, 2**32), room=st.integers(1, 12), contents=st.integers(2, 40))
def test_a_long_life_in_a_small_memory(policy: str, seed: int, room: int, contents: int) -> None:
    """Hundreds of accesses, to small numbers more often than to large ones, and sometimes `clear`."""
    chance = Random(seed)
    real, naive = make_policy(policy), NAIVE_ORDERS[policy]()
    blocks: dict[int, int] = {}  # of each content that is there
    for _ in range(300):
        content = min(chance.randrange(contents), chance.randrange(contents))
        if content in blocks:
            real.touch(blocks[content])
            naive.touch(blocks[content])
            continue
        block = len(blocks)
        if block == room:
            block = naive.victim()
            assert real.victim() == block
            blocks = {each: other for each, other in blocks.items() if other != block}
        blocks[content] = block
        real.add(block, digest_of(content))
        naive.add(block, digest_of(content))
        if chance.random() < 0.01:
            real.clear()
            naive, blocks = NAIVE_ORDERS[policy](), {}


@pytest.mark.clause("KV-20", "KV-21", "KV-22", "KV-27")
def test_orders_are_known_by_name_and_begin_empty() -> None:
    for name in POLICIES:
        assert type(make_policy(name)) is POLICIES[name]
        assert make_policy(name) is not make_policy(name)
        with pytest.raises(KeyError):
            make_policy(name).victim()
    with pytest.raises(InvalidParameter, match=f"eviction must be one of {', '.join(POLICIES)}, not 'random'"):
        make_policy("random")


@pytest.mark.clause("KV-26")
def test_every_policy_has_an_oracle_and_is_told_to_the_reader() -> None:
    """Each policy is in the table of oracles and on the pages, which are not derived from POLICIES."""
    assert set(NAIVE_ORDERS) == set(POLICIES)
    assert sorted(machine.policy for machine in OrderMachine.__subclasses__()) == sorted(POLICIES)
    row = next(line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if "`--eviction`" in line)
    assert [name for name in POLICIES if f"`{name}`" not in row] == []
    told = LLM.__init__.__doc__ or ""
    assert [name for name in POLICIES if f'"{name}"' not in told] == []
