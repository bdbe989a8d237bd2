"""DRAFT-01 to -13: whatever is proposed, answers are those of an engine without proposals, and drafts that do not pay
stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.engine.draft_length import DEVICE
from ferrum.engine.engine import Engine
from ferrum.engine.speculation import Speculation
from ferrum.errors import InvalidParameter
from ferrum.kv.manager import KvManager
from ferrum.sampling_params import SamplingParams
from ferrum.sched.drafts import with_drafts
from ferrum.sched.plan import Chunk, StepPlan
from ferrum.sched.scheduler import Limits, Scheduler
from ferrum.sched.sequence import TokenSequence
from ferrum.speculation import DEFAULT_DRAFTS, NGRAM, Speculate, parse_speculate
from ferrum.tensor.ops import Tensor
from ferrum.testing.build import StubSettings, stub_engine, stub_manager
from ferrum.testing.stub import StubRunner
from ferrum.text.byte_tokenizer import BYTES
from ferrum.types import Completion, Timings
from tests.engine.proposers import Guesser, guesses, speculation
from tests.engine.test_engine_loop import letters, prompts, request_params

GUESSES = guesses(letters, BYTES)
GREEDY = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, seed=0)


def answers(engine: Engine, asked: Sequence[tuple[list[int], SamplingParams]]) -> list[Completion]:
    requests = [engine.submit(prompt, params) for prompt, params in asked]
    while engine.has_work:
        engine.step()
    completions = [request.completion() for request in requests]
    assert all(each.usage.accepted_tokens <= each.usage.draft_tokens for each in completions)
    usages = [replace(each.usage, draft_tokens=0, accepted_tokens=0) for each in completions]
    return [replace(each, timings=Timings(), usage=usage) for each, usage in zip(completions, usages, strict=True)]


@pytest.mark.clause("DRAFT-01")
@pytest.mark.parametrize("guess", GUESSES)
@given(
    asked=st.lists(st.tuples(prompts, request_params()), min_size=1, max_size=4),
    most=st.integers(1, 9),
    budget=st.integers(1, 20),
    block_size=st.integers(1, 5),
)
def test_answers_are_those_of_an_engine_without_proposals(
    guess: str, asked: list[tuple[list[int], SamplingParams]], most: int, budget: int, block_size: int
) -> None:
    settings = StubSettings(max_num_batched_tokens=budget, block_size=block_size, prefix_caching=False)
    plain = answers(stub_engine(settings, letters), asked)
    assert answers(stub_engine(settings, letters, speculation=speculation(GUESSES[guess], most)), asked) == plain


@pytest.mark.clause("DRAFT-01", "DRAFT-05")
def test_right_proposals_save_steps_and_are_counted() -> None:
    prompt = [*b"abc"]
    taken = {}
    for guess in (None, "right", "wrong"):
        engine = stub_engine(
            StubSettings(), letters, speculation=None if guess is None else speculation(GUESSES[guess], 6)
        )
        request = engine.submit(prompt, GREEDY)
        while engine.has_work:
            engine.step()
        usage, stats = request.completion().usage, engine.stats()
        assert (stats.draft_tokens, stats.accepted_tokens) == (usage.draft_tokens, usage.accepted_tokens)
        assert stats.computed_tokens == len(prompt) + 39 + usage.draft_tokens - usage.accepted_tokens
        assert stats.steps == 40 - usage.accepted_tokens
        taken[guess] = (stats.steps, usage.accepted_tokens, usage.draft_tokens)
    assert taken[None] == (40, 0, 0)
    assert taken["right"][0] <= 9 and taken["right"][1] == taken["right"][2]
    assert taken["wrong"][0] == 40 and 0 < taken["wrong"][2] <= 20  # cheap ones: the stub is a device


@pytest.mark.clause("DRAFT-13")
def test_what_does_not_pay_is_not_computed_until_it_would_have_been_right() -> None:
    """The proposals are wrong for thirty tokens, and right from then on."""

    def guess(tokens: Sequence[int], most: int) -> list[int]:
        return GUESSES["wrong" if len(tokens) < 35 else "right"](tokens, most)

    engine = stub_engine(StubSettings(max_model_len=200), letters, speculation=speculation(guess))
    request = engine.submit([*b"abc"], replace(GREEDY, max_tokens=100))
    lengths = []
    while engine.has_work:
        before = request.generations[0].sequence.drafted
        engine.step()
        lengths.append(request.generations[0].sequence.drafted - before)
    assert not any(lengths[10:32]), "proposals that do not pay are computed"
    assert lengths[-3:-1] == [6, 6], "they are not made again when they would pay"


@pytest.mark.clause("DRAFT-02")
@pytest.mark.parametrize("guess", ["wrong", "for a while", "chance"])
def test_blocks_hold_what_came_and_nothing_that_was_only_proposed(guess: str) -> None:
    engine = stub_engine(StubSettings(blocks=100, block_size=2), letters, speculation=speculation(GUESSES[guess]))
    texts = []
    for number in range(4):
        request = engine.submit([97 + number] * (number + 1), GREEDY)
        while engine.has_work:
            engine.step()
        sequence = request.generations[0].sequence
        assert sequence.drafted > sequence.accepted
        texts.append(sequence.token_ids)
    manager = engine.scheduler.manager
    store = manager.store.read(range(100))["tokens"]
    known = {}
    for text in texts:
        hits = manager.find(manager.new_table(), text)
        assert len(hits) == (len(text) - 1) // 2, "a full block is not found"
        known.update({hit.block: text[2 * index : 2 * index + 2] for index, hit in enumerate(hits)})
    assert manager.device.cached == len(known), "the prefix cache has a block that is no prefix of any text"
    assert all(store[block].tolist() == tokens for block, tokens in known.items())


def planned(blocks: int, block_size: int, lengths: list[int], max_length: int) -> tuple[StepPlan, KvManager, Scheduler]:
    """The plan of a step in which each of the sequences has one token to compute."""
    manager, _ = stub_manager(StubSettings(blocks=blocks, block_size=block_size, prefix_caching=False))
    scheduler = Scheduler(manager, Limits(8, 1000, max_length))
    for number, length in enumerate(lengths):
        scheduler.add(TokenSequence([number] * length, SamplingParams(max_tokens=None), 0))
    plan = scheduler.plan()
    scheduler.commit(plan, [7] * len(plan.sampled))
    return scheduler.plan(), manager, scheduler


@pytest.mark.clause("DRAFT-03")
@given(blocks=st.integers(4, 20), block_size=st.integers(1, 3))
def test_drafts_may_take_every_block_but_that_of_the_next_token(blocks: int, block_size: int) -> None:
    plan, manager, _ = planned(blocks, block_size, [1], 1000)
    (chunk,) = plan.chunks
    fitting = (blocks - 1) * block_size - chunk.start - chunk.count
    (chunk,) = with_drafts(plan, {chunk.sequence: [5] * fitting}, manager, 1000).chunks
    assert len(chunk.drafts) == fitting
    assert manager.device.available >= 1


@pytest.mark.clause("DRAFT-03", "DRAFT-04")
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    wanted=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    block_size=st.integers(1, 4),
    spare=st.integers(0, 12),
    left=st.integers(0, 20),
    max_length=st.integers(12, 20),
)
def test_drafts_take_what_is_left_over(
    lengths: list[int], wanted: list[int], block_size: int, spare: int, left: int, max_length: int
) -> None:
    needed = sum(-(-(length + 1) // block_size) for length in lengths)
    blocks = max(needed + spare, -(-max_length // block_size))
    plan, manager, scheduler = planned(blocks, block_size, lengths, max_length)
    asked = {chunk.sequence: [5] * count for chunk, count in zip(plan.chunks, wanted[: len(plan.chunks)], strict=True)}
    held = manager.device.held
    with_them = with_drafts(plan, asked, manager, plan.tokens + left)
    assert with_them.tokens <= plan.tokens + left
    assert scheduler.running == len(lengths)
    if manager.device.held > held:
        assert manager.device.available >= len(lengths), "nothing is left for the next tokens"
    for before, chunk in zip(plan.chunks, with_them.chunks, strict=True):
        sequence = chunk.sequence
        assert (sequence, before.start, before.count, before.rows) == (sequence, chunk.start, chunk.count, chunk.rows)
        end = sequence.length + len(chunk.drafts)
        assert end <= sequence.table.capacity and (not chunk.drafts or end < sequence.max_length)
        assert len(chunk.drafts) <= len(asked[sequence])
    if left >= sum(map(len, asked.values())) and blocks >= needed + 8 * 12:
        expected = [min(len(drafts), sequence.max_length - sequence.length - 1) for sequence, drafts in asked.items()]
        assert [len(chunk.drafts) for chunk in with_them.chunks] == expected


@pytest.mark.clause("DRAFT-04")
def test_a_full_pool_is_shared_as_without_proposals() -> None:
    """Two texts fill the pool exactly: another block for a draft would preempt one of them."""
    asked = [([*b"abc"], replace(GREEDY, max_tokens=13)) for _ in range(2)]
    settings = StubSettings(blocks=8, block_size=4, prefix_caching=False)
    engine = stub_engine(settings, letters, speculation=speculation(GUESSES["wrong"]))
    assert answers(engine, asked) == answers(stub_engine(settings, letters), asked)
    assert not engine.stats().preemptions


class Chooser(StubRunner):
    """A model with three possible tokens after any text: their logits are 0, ln 2 and ln 5."""

    def run(self, plan: StepPlan) -> Tensor:
        rows = len(super().run(plan))
        logits = np.full((rows, self.vocab_size), -np.inf, np.float32)
        logits[:, [65, 66, 67]] = np.log([1, 2, 5])
        return logits


@pytest.mark.clause("DRAFT-06")
def test_sampled_tokens_have_their_distribution_beside_proposals() -> None:
    """Chi-square test of the 27 outcomes of three tokens; some proposals are right."""
    engine = stub_engine(StubSettings(), speculation=speculation(lambda tokens, most: [67, 66, 67][:most], 3))
    assert isinstance(engine.executor, StubRunner)
    engine.executor = Chooser(engine.executor.store)
    params = SamplingParams(temperature=1, max_tokens=4, n=8, seed=0)
    counts: Counter[tuple[int, ...]] = Counter()
    total = 4000
    for seed in range(total // params.n):
        request = engine.submit([1, 2, 3], replace(params, seed=1000 + seed))
        while engine.has_work:
            engine.step()
        counts.update(choice.token_ids[1:] for choice in request.completion().choices)
    assert engine.stats().accepted_tokens > total / 2
    share = {65: 1 / 8, 66: 2 / 8, 67: 5 / 8}
    expected = {
        (one, two, three): total * share[one] * share[two] * share[three]
        for one in share
        for two in share
        for three in share
    }
    assert set(counts) <= set(expected)
    chi_square = sum((counts[outcome] - count) ** 2 / count for outcome, count in expected.items())
    assert chi_square < 60, "as far off as one in ten thousand"  # 26 degrees of freedom


@pytest.mark.clause("DRAFT-10")
def test_words_for_it() -> None:
    assert parse_speculate("x", None) is None
    assert parse_speculate("x", "ngram") == Speculate("ngram", DEFAULT_DRAFTS)
    assert parse_speculate("x", "draft:5") == Speculate("draft", 5)
    assert parse_speculate("x", "off") == Speculate("off", 0)
    for bad in (
        "",
        "ngram:",
        "ngram:0",
        "ngram:65",
        "ngram:-1",
        "ngram:1.5",
        "lookup",
        "off:3",
        " ngram",
        3,
        ["ngram"],
    ):
        with pytest.raises(InvalidParameter, match="speculate"):
            SamplingParams(speculate=bad)  # type: ignore[arg-type]


@pytest.mark.clause("DRAFT-10")
@given(st.text(alphabet="ngramdrftof:0123456789 \n", max_size=9))
def test_any_other_text_is_refused(text: str) -> None:
    try:
        found = parse_speculate("speculate", text)
    except InvalidParameter as error:
        assert error.field == "speculate"
    else:
        assert found is not None and text in ("off", found.source, f"{found.source}:{text.rpartition(':')[2]}")


@pytest.mark.clause("DRAFT-10", "DRAFT-05")
def test_a_request_says_what_holds_for_it() -> None:
    guesser = Guesser(GUESSES["right"])
    engine = stub_engine(StubSettings(), letters, speculation=Speculation({NGRAM: guesser}, pace=DEVICE))
    told = {}
    for word in (None, "off", "ngram", "ngram:2"):
        request = engine.submit([*b"ab"], replace(GREEDY, speculate=word))
        most = 0
        while engine.has_work:
            before = request.generations[0].sequence.drafted
            engine.step()
            most = max(most, request.generations[0].sequence.drafted - before)
        told[word] = most
    assert told == {None: 0, "off": 0, "ngram": DEFAULT_DRAFTS, "ngram:2": 2}
    assert len(guesser.forgotten) == 2
    with pytest.raises(InvalidParameter, match=r"speculate.*draft"):
        engine.submit([1], SamplingParams(speculate="draft"))


@pytest.mark.clause("DRAFT-01")
def test_a_step_that_fails_is_done_again() -> None:
    engine = stub_engine(StubSettings(), letters, speculation=speculation(GUESSES["for a while"]))
    plain = answers(stub_engine(StubSettings(), letters), [([*b"ab"], GREEDY)])
    assert isinstance(engine.executor, StubRunner)
    run, failed = engine.executor.run, Counter[bool]()

    def failing(plan: StepPlan) -> Tensor:
        drafted = any(chunk.drafts for chunk in plan.chunks)
        failed[drafted] += 1
        if failed[drafted] % 2:
            raise RuntimeError("as planned")
        return run(plan)

    engine.executor.run = failing  # type: ignore[method-assign]
    request = engine.submit([*b"ab"], GREEDY)
    while engine.has_work:
        try:
            engine.step()
        except RuntimeError:
            assert failed
    assert request.completion().choices == plain[0].choices
    assert min(failed.values()) >= 2


@pytest.mark.clause("DRAFT-01")
def test_drafts_are_counted_in_a_chunk_beside_its_tokens() -> None:
    sequence = TokenSequence([1, 2, 3], SamplingParams(), 0)
    plan = StepPlan((Chunk(sequence, 2, 1, 1, (8, 9)),))
    assert (plan.tokens, plan.rows, plan.sampled) == (3, 3, [sequence])
