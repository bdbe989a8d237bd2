"""ENGINE-42 in the scheduler: for which tokens of a scored prompt a plan asks for logits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.sampling_params import SamplingParams
from ferrum.sched.plan import StepPlan
from ferrum.sched.scheduler import SCORED_TOKENS, Scheduler
from ferrum.sched.sequence import SequenceState, TokenSequence
from tests.sched.world import World


def submit(scheduler: Scheduler, text: list[int], scored: bool, source: TokenSequence | None = None) -> TokenSequence:
    params = SamplingParams(max_tokens=6, prompt_logprobs=1 if scored else None)
    sequence = TokenSequence(text, params, 0, source=source)
    scheduler.add(sequence)
    return sequence


def wanted(plan: StepPlan) -> dict[TokenSequence, range]:
    """For each sequence the positions whose logits the plan asks for: the last `rows` of its chunk."""
    assert plan.rows == sum(chunk.rows for chunk in plan.chunks)
    ends = [(chunk.sequence, chunk.start + chunk.count, chunk.rows) for chunk in plan.chunks]
    return {sequence: range(end - rows, end) for sequence, end, rows in ends}


def carry_out(scheduler: Scheduler) -> StepPlan:
    """Runs a step, and finishes the sequences that have all their tokens."""
    plan = scheduler.plan()
    ends = {chunk.sequence: chunk.start + chunk.count for chunk in plan.chunks}
    assert plan.sampled == [sequence for sequence, end in ends.items() if end == sequence.length]
    scheduler.commit(plan, [1] * len(plan.sampled))
    for sequence in plan.sampled:
        if sequence.length == sequence.max_length:
            scheduler.finish(sequence)
    return plan


@pytest.mark.clause("ENGINE-42", "SCHED-02")
@given(
    texts=st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=5),
    budget=st.integers(1, 30),
    blocks=st.integers(7, 20),
    caching=st.booleans(),
)
def test_every_token_of_a_scored_prompt_is_asked_for_and_of_others_the_last(
    texts: list[tuple[int, bool]], budget: int, blocks: int, caching: bool
) -> None:
    """All texts share a prefix, so that much is cached; memory is small, so that some sequences are preempted."""
    scheduler = World(blocks=blocks, block_size=4, budget=budget, caching=caching).scheduler
    sequences = [submit(scheduler, list(range(length)), scored) for length, scored in texts]
    asked: dict[TokenSequence, set[int]] = {sequence: set() for sequence in sequences}
    for _ in range(2000):
        lengths = {sequence: sequence.length for sequence in sequences}
        plan = carry_out(scheduler)
        if not plan.chunks:
            break
        for sequence, positions in wanted(plan).items():
            asked[sequence].update(positions)
            if not sequence.scores_prompt:
                assert list(positions) in ([], [lengths[sequence] - 1])
    for sequence in sequences:
        assert sequence.state is SequenceState.FINISHED
        first = 0 if sequence.scores_prompt else sequence.prompt_length - 1
        assert asked[sequence] == set(range(first, sequence.max_length - 1))


@pytest.mark.clause("ENGINE-42")
@given(length=st.integers(1, 3 * SCORED_TOKENS), budget=st.integers(1, 2 * SCORED_TOKENS))
def test_a_step_scores_no_more_tokens_than_fit(length: int, budget: int) -> None:
    scheduler = World(blocks=400, budget=budget).scheduler
    sequence, computed = submit(scheduler, list(range(length)), True), 0
    while computed < length:
        (chunk,) = carry_out(scheduler).chunks
        assert (chunk.start, chunk.count) == (computed, min(budget, SCORED_TOKENS, length - computed))
        assert chunk.rows == chunk.count
        computed += chunk.count
    assert sequence.computed == length


@pytest.mark.clause("ENGINE-42")
def test_only_the_first_of_several_choices_scores_their_prompt() -> None:
    scheduler = World().scheduler
    first = submit(scheduler, list(range(9)), True)
    assert first.scores_prompt and not submit(scheduler, list(range(9)), True, first).scores_prompt


@pytest.mark.clause("ENGINE-42")
def test_a_scored_prompt_is_computed_although_it_is_cached_and_its_answer_is_not_computed_twice() -> None:
    scheduler = World(blocks=40, block_size=4).scheduler
    submit(scheduler, list(range(12)), False)
    while carry_out(scheduler).chunks:
        pass
    scored = submit(scheduler, list(range(12)), True)
    (chunk,) = carry_out(scheduler).chunks
    assert (chunk.start, chunk.count, scored.cached) == (0, 12, 0)
    scheduler._preempt(scored)
    (chunk,) = carry_out(scheduler).chunks
    assert (chunk.start, chunk.count, chunk.rows) == (12, 1, 1)


@pytest.mark.clause("ENGINE-42", "SCHED-15")
def test_a_scored_prompt_that_cannot_be_moved_back_is_computed_from_its_beginning() -> None:
    world = World(host=20, budget=6, swap_cost=0.0, caching=False)
    scored = submit(world.scheduler, list(range(12)), True)
    carry_out(world.scheduler)
    world.scheduler._preempt(scored)
    assert scored.table.host_blocks and scored.computed == 6
    world.faults.pattern = 0b10  # the device gives blocks, the move fails
    (chunk,) = carry_out(world.scheduler).chunks
    assert world.faults.struck
    assert (chunk.start, chunk.count, chunk.rows) == (0, 6, 6)


@pytest.mark.clause("SCHED-02")
@given(st.lists(st.booleans(), max_size=6))
def test_a_plan_without_some_sequences_keeps_the_chunks_of_the_others(ended: list[bool]) -> None:
    scheduler = World(seqs=6).scheduler
    sequences = [submit(scheduler, [place], False) for place in range(len(ended))]
    plan = scheduler.plan()
    left = plan.without({sequence for sequence, gone in zip(sequences, ended, strict=True) if gone})
    kept = [sequence for sequence, gone in zip(sequences, ended, strict=True) if not gone]
    assert [chunk.sequence for chunk in left.chunks] == left.sampled == kept
    assert left.rows == left.tokens == len(kept)
