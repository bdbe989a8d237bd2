"""KV-01 to KV-04: the pool against a set."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from ferrum.errors import InternalError, InvalidParameter, ResourceExhausted
from ferrum.kv.pool import BlockPool


class PoolMachine(RuleBasedStateMachine):
    """The oracle is the set of blocks that somebody holds."""

    loans = Bundle("loans")

    @initialize(total=st.integers(1, 20))
    def start(self, total: int) -> None:
        self.pool = BlockPool(total)
        self.held: set[int] = set()

    @rule(target=loans, count=st.integers(0, 21))
    def allocate(self, count: int):
        if count > self.pool.total - len(self.held):
            with pytest.raises(ResourceExhausted):
                self.pool.allocate(count)
            return multiple()
        ids = self.pool.allocate(count)
        assert len(ids) == len(set(ids)) == count
        assert not self.held & set(ids)
        assert set(ids) <= set(range(self.pool.total))
        self.held |= set(ids)
        return tuple(ids)

    @rule(loan=loans)
    def release(self, loan: tuple[int, ...]) -> None:
        """A loan is drawn again now and then: then it is a double release, unless others hold all its blocks."""
        if set(loan) <= self.held:
            self.pool.release(loan)
            self.held -= set(loan)
        else:
            with pytest.raises(InternalError):
                self.pool.release(loan)

    @rule(block=st.integers(-3, 25))
    def release_one(self, block: int) -> None:
        if block in self.held:
            with pytest.raises(InternalError):
                self.pool.release([block, block])
            self.pool.release([block])
            self.held.remove(block)
        else:
            with pytest.raises(InternalError):
                self.pool.release([*self.held, block])

    @invariant()
    def counts_agree(self) -> None:
        assert self.pool.free == self.pool.total - len(self.held)

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.pool.release(sorted(self.held))
        assert set(self.pool.allocate(self.pool.total)) == set(range(self.pool.total))


@pytest.mark.clause("KV-01", "KV-02", "KV-03", "KV-04")
class TestPool(PoolMachine.TestCase):  # type: ignore[misc]
    """The machine, under pytest."""


@pytest.mark.clause("KV-02")
def test_exhaustion_is_retryable_and_says_how_much_there_is() -> None:
    pool = BlockPool(3)
    pool.allocate(1)
    with pytest.raises(ResourceExhausted, match="4 blocks wanted, 2 of 3 free") as caught:
        pool.allocate(4)
    assert caught.value.is_retryable
    assert pool.free == 2


@pytest.mark.clause("KV-04")
def test_block_zero_is_an_ordinary_block() -> None:
    pool = BlockPool(1)
    assert pool.allocate(1) == [0]
    pool.release([0])
    assert pool.allocate(1) == [0]


@pytest.mark.clause("KV-02")
def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(InvalidParameter):
        BlockPool(0)
    with pytest.raises(InvalidParameter):
        BlockPool(1).allocate(-1)
