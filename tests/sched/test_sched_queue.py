"""SCHED-05: the waiting queue against a list that is sorted anew each time."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ferrum.sampling_params import SamplingParams
from ferrum.sched.sequence import TokenSequence
from ferrum.sched.waiting import WaitingQueue

ranks = st.tuples(st.integers(-3, 3), st.integers(0, 3))


def sequence_of(rank: tuple[int, int]) -> TokenSequence:
    sequence = TokenSequence([1], SamplingParams(), 0)
    sequence.rank = rank
    return sequence


class WaitingMachine(RuleBasedStateMachine):
    """Compares the queue with a list, whose first is the smallest rank; of equal ranks any may be first. Rules: push,
    remove any, take the first, push again what was removed, change a rank, remove what is not in the queue."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = WaitingQueue()
        self.inside: list[TokenSequence] = []
        self.outside: list[TokenSequence] = []

    @rule(new=st.lists(ranks, min_size=1, max_size=12))
    def push(self, new: list[tuple[int, int]]) -> None:
        for rank in new:
            self.inside.append(sequence_of(rank))
            self.queue.push(self.inside[-1])

    @precondition(lambda self: self.inside)
    @rule(count=st.integers(1, 9), place=st.integers(0, 99))
    def remove(self, count: int, place: int) -> None:
        for sequence in self.inside[place % len(self.inside) :][:count]:
            self.queue.remove(sequence)
            self.inside.remove(sequence)
            self.outside.append(sequence)

    @precondition(lambda self: self.inside)
    @rule()
    def take_the_first(self) -> None:
        sequence = self.queue.first()
        assert sequence is not None
        self.queue.remove(sequence)
        self.inside.remove(sequence)

    @precondition(lambda self: self.outside)
    @rule(rank=ranks)
    def come_back(self, rank: tuple[int, int]) -> None:
        sequence = self.outside.pop()
        sequence.rank = rank
        self.queue.push(sequence)
        self.inside.append(sequence)

    @precondition(lambda self: self.inside)
    @rule(rank=ranks, place=st.integers(0, 99))
    def change(self, rank: tuple[int, int], place: int) -> None:
        sequence = self.inside[place % len(self.inside)]
        self.queue.remove(sequence)
        sequence.rank = rank
        self.queue.push(sequence)

    @precondition(lambda self: self.outside)
    @rule()
    def remove_what_is_not_inside(self) -> None:
        with pytest.raises(KeyError):
            self.queue.remove(self.outside[-1])

    @invariant()
    def agrees_with_a_sorted_list(self) -> None:
        assert len(self.queue) == len(self.inside)
        assert all(sequence in self.queue for sequence in self.inside)
        assert not any(sequence in self.queue for sequence in self.outside)
        first = self.queue.first()
        assert (first is None) == (not self.inside)
        if first is not None:
            assert first in self.inside
            assert first.rank == min(sequence.rank for sequence in self.inside)

    def teardown(self) -> None:
        order = []
        for _ in self.inside:
            sequence = self.queue.first()
            assert sequence is not None
            self.queue.remove(sequence)
            order.append(sequence.rank)
        assert self.queue.first() is None
        assert order == sorted(sequence.rank for sequence in self.inside)


@pytest.mark.clause("SCHED-05")
class TestWaiting(WaitingMachine.TestCase):  # type: ignore[misc]
    """The machine, under pytest."""


@pytest.mark.clause("SCHED-11")
def test_a_cancelled_sequence_does_not_stay_in_memory() -> None:
    queue, stays = WaitingQueue(), sequence_of((-1, 0))
    queue.push(stays)
    for arrival in range(1000):  # none of them ever comes up: they are cancelled behind the first
        sequence = sequence_of((0, arrival))
        queue.push(sequence)
        queue.remove(sequence)
    assert queue.first() is stays
    assert len(queue._heap) < 30
