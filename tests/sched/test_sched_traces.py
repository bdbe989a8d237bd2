"""SCHED-01 to SCHED-31 once more: long random traces, deeper than the state machine goes, and without its shrinking."""

from __future__ import annotations

from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from ferrum.errors import FerrumError
from ferrum.kv.eviction import POLICIES
from ferrum.sched import order
from ferrum.sched.sequence import TokenSequence
from ferrum.types import Priority
from tests.sched.world import World

TRACES = 20
"""The number of traces in an example."""


class Trace:
    """A random world, and the rules of `SchedulerMachine` in random order."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.prompts = [[0]]
        self.world = World(
            blocks=random.randint(1, 12),
            block_size=random.randint(1, 4),
            host=random.choice([0, 2, 30]),
            seqs=random.randint(1, 4),
            budget=random.randint(1, 9),
            context=random.randint(2, 40),
            max_waiting=random.randint(1, 6),
            policy=random.choice(sorted(order.ORDERS)),
            eviction=random.choice(sorted(POLICIES)),
            swap_cost=random.choice([0.0, 0.5, 1e9]),
            caching=random.random() < 0.7,
        )

    def run(self) -> None:
        events = [self.add, self.cancel, self.update, self.fail, self.strike, self.step]
        for event in self.random.choices(events, [30, 10, 10, 5, 7, 38], k=self.random.randint(5, 80)):
            event()
        self.world.drain(10 + 3 * sum(sequence.max_length for sequence in self.world.live))

    def add(self) -> None:
        """Adds a sequence, often with the text of an earlier one. A text that is too long, or one sequence too many, is
        refused."""
        random = self.random
        known = random.choice(self.prompts)
        prompt = known[: random.randint(0, len(known))] + random.choices([0, 1], k=random.randint(0, 9))
        if prompt and random.random() < 0.6:
            self.prompts.append(prompt)
        elif not prompt or random.random() < 0.5:
            prompt = known
        max_tokens, priority = random.choice([None, 1, 2, 3, 5, 8]), random.choice(list(Priority))
        source: TokenSequence | None = None
        try:
            for _ in range(random.choice([1, 1, 1, 3])):
                sequence = self.world.add(prompt, max_tokens, priority, source)
                source = source or sequence
        except FerrumError:
            return

    def cancel(self) -> None:
        if self.world.live:
            self.world.finish(self.random.choice(list(self.world.live)))

    def update(self) -> None:
        if self.world.live:
            self.world.update(self.random.choice(list(self.world.live)), self.random.choice(list(Priority)))

    def fail(self) -> None:
        self.world.step(fails=True)

    def strike(self) -> None:
        self.world.faults.pattern = self.random.getrandbits(8)
        self.world.step()
        self.world.faults.pattern = 0

    def step(self) -> None:
        self.world.step()


@pytest.mark.clause("SCHED-01", "SCHED-02", "SCHED-03", "SCHED-04", "SCHED-05", "SCHED-06", "SCHED-09", "SCHED-10")
@pytest.mark.clause("SCHED-12", "SCHED-13", "SCHED-15", "SCHED-21", "SCHED-22", "SCHED-30", "SCHED-31")
@given(st.integers(0, 2**64 - 1))
def test_long_traces(seed: int) -> None:
    random = Random(seed)
    with patch.object(order, "AGEING", 6):
        for number in range(TRACES):
            note(f"trace {number}")
            Trace(random).run()
