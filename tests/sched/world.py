"""A scheduler with a memory that holds what was written, faults on demand, and records for the checks.

`World` drives a scheduler as an engine does, and checks every plan. Like keys and values, the contents of a position
depend on the whole text up to it, so that a check sees a wrong block, a missing copy or a lost move at once. Records
(`Entry`) repeat what the scheduler should know, so that a check does not depend on the scheduler's own state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from ferrum.errors import DeviceError, ResourceExhausted
from ferrum.kv.eviction import EvictionPolicy, make_policy
from ferrum.kv.manager import KvManager
from ferrum.kv.pool import BlockPool, Evicted
from ferrum.sampling_params import SamplingParams
from ferrum.sched import order
from ferrum.sched.plan import StepPlan
from ferrum.sched.scheduler import Limits, Scheduler
from ferrum.sched.sequence import SequenceState, TokenSequence
from ferrum.testing.stub import StubStore
from ferrum.types import Priority
from tests.sched.checks import Before, check_books, check_plan

GARBAGE = -9
Key = tuple[Fraction, int]
NextToken = Callable[[TokenSequence], int]


class Faults:
    """Decides which of the next operations fail: the lowest bit of `pattern` is that of the next one."""

    def __init__(self) -> None:
        self.pattern = 0
        self.struck = False

    def strikes(self) -> bool:
        fails = bool(self.pattern & 1)
        self.pattern >>= 1
        self.struck |= fails
        return fails


class FaultyPool(BlockPool):
    """A pool whose allocations fail where `faults` says."""

    def __init__(self, faults: Faults, total: int, policy: EvictionPolicy) -> None:
        super().__init__(total, policy)
        self.faults = faults

    def allocate(self, count: int) -> tuple[list[int], list[Evicted]]:
        if count and self.faults.strikes():
            raise ResourceExhausted("a test says so")
        return super().allocate(count)


class FaultyStore(StubStore):
    """A store whose moves fail where `faults` says. A failed move leaves garbage in all targets."""

    def __init__(self, faults: Faults, blocks: int, block_size: int, host_blocks: int) -> None:
        super().__init__(blocks, block_size, host_blocks)
        self.faults = faults

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        if self.faults.strikes():
            self.device[list(targets)] = GARBAGE
            raise DeviceError("a test says so")
        super().copy(sources, targets)

    def swap_out(self, blocks: Sequence[int], host_blocks: Sequence[int]) -> None:
        if self.faults.strikes():
            self.host[list(host_blocks)] = GARBAGE
            raise DeviceError("a test says so")
        super().swap_out(blocks, host_blocks)

    def swap_in(self, host_blocks: Sequence[int], blocks: Sequence[int]) -> None:
        if self.faults.strikes():
            self.device[list(blocks)] = GARBAGE
            raise DeviceError("a test says so")
        super().swap_in(host_blocks, blocks)


@dataclass
class Entry:
    """What a world records of a sequence that waits or runs."""

    arrival: int
    step: int
    priority: Priority
    text: list[int] = field(default_factory=list)
    trace: list[int] = field(default_factory=list)  # the right contents of each position
    fills: bool = False  # True from its admission until its whole text is computed

    def append(self, token: int) -> None:
        self.text.append(token)
        self.trace.append(hash((self.trace[-1] if self.trace else 0, token)))


def count_letters(sequence: TokenSequence) -> int:
    """The default next token: 0 or 1, dependent on the whole text."""
    return (sum(sequence.token_ids) + sequence.length) % 2


class World:
    """One scheduler, its memory, its sequences and the records of them."""

    def __init__(
        self,
        *,
        blocks: int = 100,
        block_size: int = 4,
        host: int = 0,
        seqs: int = 8,
        budget: int = 100,
        context: int = 1000,
        max_waiting: int = 100,
        policy: str = "fifo",
        eviction: str = "lru",
        swap_cost: float = 1.0,
        caching: bool = True,
    ) -> None:
        self.faults = Faults()
        self.store = FaultyStore(self.faults, blocks, block_size, host)
        self.device = FaultyPool(self.faults, blocks, make_policy(eviction))
        self.host = FaultyPool(self.faults, host, make_policy(eviction)) if host else None
        self.manager = KvManager(self.store, self.device, self.host, block_size, prefix_caching=caching)
        self.limits = Limits(seqs, budget, context, max_waiting)
        self.scheduler = Scheduler(self.manager, self.limits, order.find_order(policy), swap_cost)
        self.policy = policy
        self.live: dict[TokenSequence, Entry] = {}
        self.computed: dict[TokenSequence, int] = {}  # prompt tokens, counted each time that they are computed
        self.arrived = self.steps = 0

    @property
    def block_size(self) -> int:
        return self.manager.block_size

    # ---- sequences
    def add(
        self,
        text: Sequence[int],
        max_tokens: int | None = 4,
        priority: Priority = Priority.NORMAL,
        source: TokenSequence | None = None,
    ) -> TokenSequence:
        sequence = TokenSequence(text, SamplingParams(max_tokens=max_tokens), 0, priority, source)
        self.scheduler.add(sequence)
        self.arrived += 1
        entry = self.live[sequence] = Entry(self.arrived, self.steps, priority)
        for token in text:
            entry.append(token)
        self.computed[sequence] = 0
        return sequence

    def choices(self, text: Sequence[int], count: int, max_tokens: int = 4) -> list[TokenSequence]:
        first = self.add(text, max_tokens)
        return [first, *(self.add(text, max_tokens, source=first) for _ in range(count - 1))]

    def finish(self, sequence: TokenSequence) -> None:
        self.scheduler.finish(sequence)
        del self.live[sequence]

    def update(self, sequence: TokenSequence, priority: Priority) -> None:
        self.scheduler.update_priority(sequence, priority)
        self.live[sequence].priority = priority

    def key(self, sequence: TokenSequence) -> Key:
        """The sequence with the smallest key is first: SCHED-20 and SCHED-21, computed from the present age."""
        entry = self.live[sequence]
        if self.policy == "fifo":
            return Fraction(0), entry.arrival
        return -(entry.priority + Fraction(self.steps - entry.step, order.AGEING)), entry.arrival

    def those(self, *states: SequenceState) -> list[TokenSequence]:
        return sorted((sequence for sequence in self.live if sequence.state in states), key=self.key)

    @property
    def running(self) -> list[TokenSequence]:
        return self.those(SequenceState.RUNNING)

    @property
    def waiting(self) -> list[TokenSequence]:
        return self.those(SequenceState.WAITING, SequenceState.PREEMPTED)

    # ---- steps
    def plan(self) -> StepPlan:
        """The next plan, after `check_plan`."""
        before = Before.of(self)
        self.faults.struck = False
        plan = self.scheduler.plan()
        self.steps += 1
        for sequence, entry in self.live.items():
            runs = sequence.state is SequenceState.RUNNING
            entry.fills = runs and (entry.fills or sequence not in before.running)
        check_books(self)
        check_plan(self, before, plan)
        return plan

    def step(self, next_token: NextToken = count_letters, *, fails: bool = False) -> StepPlan:
        """Plans, runs and commits a step. A step that `fails` is not committed and leaves garbage in memory. Sequences
        that have all their tokens are finished."""
        plan = self.plan()
        slots = self.store.device.reshape(-1)
        for chunk in plan.chunks:
            end = chunk.start + chunk.count
            trace = self.live[chunk.sequence].trace
            slots[chunk.sequence.table.slots(chunk.start, chunk.count)] = GARBAGE if fails else trace[chunk.start : end]
        if not fails:
            self.commit(plan, next_token)
        return plan

    def commit(self, plan: StepPlan, next_token: NextToken) -> None:
        tokens = [next_token(sequence) for sequence in plan.sampled]
        self.scheduler.commit(plan, tokens)
        for chunk in plan.chunks:
            assert chunk.sequence.computed == chunk.start + chunk.count
            counted = min(chunk.start + chunk.count, chunk.sequence.prompt_length) - chunk.start
            self.computed[chunk.sequence] += max(0, counted)
        for sequence, token in zip(plan.sampled, tokens, strict=True):
            self.live[sequence].append(token)
            self.live[sequence].fills = False
        check_books(self)
        for sequence in plan.sampled:
            assert sequence.length <= sequence.max_length
            if sequence.length == sequence.max_length:
                self.finish(sequence)
        check_books(self)

    def run_until(self, reached: Callable[[], bool], steps: int = 60) -> None:
        """Steps until `reached` is true; fails after `steps` steps."""
        for _ in range(steps):
            if reached():
                return
            self.step()
        assert reached(), f"not reached within {steps} steps"

    def drain(self, steps: int) -> None:
        """Checks that every request ends within `steps` steps, and that no block is held then."""
        for _ in range(steps):
            if self.live:
                self.step()
        assert not self.live, f"{len(self.live)} sequences are not done after {steps} steps"
        assert self.device.held == 0
        assert self.host is None or self.host.held == 0
        assert self.scheduler.plan().chunks == ()
