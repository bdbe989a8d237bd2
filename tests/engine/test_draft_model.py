"""DRAFT-01, DRAFT-10, DRAFT-14 to DRAFT-16: speculation with real arithmetic, and with a second model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.backends.registry import load_backend
from ferrum.config import EngineConfig
from ferrum.engine.draft_model import DraftProposer
from ferrum.errors import InvalidParameter, Unsupported
from ferrum.kv.storage import block_bytes
from ferrum.sampling_params import StructuredOutputs
from ferrum.sched.sequence import TokenSequence
from ferrum.speculation import DRAFT
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.weights import Dense
from ferrum.testing.build import StubSettings, stub_manager
from ferrum.testing.stub import StubRunner, count_up
from ferrum.text.byte_tokenizer import ByteTokenizer
from ferrum.types import Completion, Timings
from tests.engine.proposers import following
from tests.tiny import TinyModel, tiny_config, tiny_params

LARGE = tiny_config(hidden_size=64, intermediate_size=96, head_dim=16)  # a size for which the kernels run
SMALL = replace(LARGE, layers=1, kv_heads=1)
MODEL = TinyModel(LARGE, tiny_params(LARGE), ByteTokenizer())
HALF = TinyModel(
    replace(LARGE, layers=1), replace(MODEL.params, layers=MODEL.params.layers[:1]), ByteTokenizer(), name="half"
)
SECONDS: dict[str, TinyModel | None] = {
    "itself": MODEL, "its first half": HALF, "another": TinyModel(SMALL, tiny_params(SMALL, seed=5), ByteTokenizer()),
    "none": None,
}  # fmt: skip


@cache
def ops_of(backend: str) -> TensorOps:
    return NumpyOps(deterministic=True) if backend == "numpy" else load_backend("numba", threads=2, deterministic=True)


def tiny_llm(backend: str, second: TinyModel | None, blocks: int, **settings: Any) -> LLM:
    size = block_bytes(LARGE, settings.get("block_size", 16), "float32")
    size += 0 if second is None else block_bytes(second.config, settings.get("block_size", 16), "float32")
    config = EngineConfig(kv_memory=blocks * size, deterministic=True)
    return LLM.from_loaded(MODEL, ops_of(backend), replace(config, **settings), second)


def answers(llm: LLM, prompts: list[list[int]], params: list[SamplingParams]) -> list[Completion]:
    completions = llm.generate(prompts, params)
    usages = [replace(each.usage, draft_tokens=0, accepted_tokens=0, cached_tokens=0) for each in completions]
    return [replace(each, timings=Timings(), usage=usage) for each, usage in zip(completions, usages, strict=True)]


@cache
def alone(backend: str, prompt: tuple[int, ...], params: SamplingParams) -> Completion:
    (found,) = answers(tiny_llm(backend, None, 4, prefix_caching=False), [list(prompt)], [params])
    return found


asked = st.tuples(
    st.lists(st.sampled_from([65, 66]), min_size=1, max_size=30).map(tuple),
    st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.0, 0.0, 1.0]),
        seed=st.integers(0, 3),
        max_tokens=st.integers(1, 20),
        repetition_penalty=st.sampled_from([1.0, 1.0, 1.3]),
        frequency_penalty=st.sampled_from([0.0, 0.0, -1.0]),  # a negative penalty makes a text repeat itself
        logprobs=st.sampled_from([None, 2]),
        prompt_logprobs=st.sampled_from([None, None, 1]),
        ignore_eos=st.just(True),
        n=st.sampled_from([1, 1, 2]),
        stop=st.sampled_from([(), ("AB",)]),
        structured_outputs=st.sampled_from([None, None, StructuredOutputs(regex="(A|BA|x[yz])*")]),
    ),
)


@pytest.mark.clause("DRAFT-01", "DRAFT-14", "ENGINE-40")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@settings(max_examples=30)
@given(
    requests=st.lists(asked, min_size=1, max_size=4),
    second=st.sampled_from(list(SECONDS)),
    most=st.integers(1, 9),
    spare=st.integers(0, 6),
    block_size=st.sampled_from([1, 3, 8, 16]),
    budget=st.integers(1, 40),
)
def test_every_bit_is_that_of_a_request_by_itself(
    backend: str,
    requests: list[tuple[tuple[int, ...], SamplingParams]],
    second: str,
    most: int,
    spare: int,
    block_size: int,
    budget: int,
) -> None:
    llm = tiny_llm(
        backend, SECONDS[second], -(-50 // block_size) + spare, block_size=block_size, max_model_len=50,
        max_num_batched_tokens=budget, speculate=f"{'ngram' if SECONDS[second] is None else DRAFT}:{most}",
    )  # fmt: skip
    prompts, params = (list(column) for column in zip(*requests, strict=True))
    found = answers(llm, [list(prompt) for prompt in prompts], params)
    assert found == [alone(backend, prompt, own) for prompt, own in requests]


@pytest.mark.clause("DRAFT-14", "DRAFT-05")
def test_a_model_that_proposes_to_itself_is_always_right() -> None:
    llm = tiny_llm("numpy", MODEL, 40)
    (found,) = llm.generate([[65, 66, 65]], SamplingParams(temperature=0, max_tokens=30, ignore_eos=True))
    assert found.usage.accepted_tokens == found.usage.draft_tokens == 0, "at its own price nothing pays"
    llm.engine.speculation._proposers[DRAFT].cost = 0.0  # as if it were far smaller
    (found,) = llm.generate([[65, 66, 65]], SamplingParams(temperature=0, max_tokens=30, ignore_eos=True))
    assert found.usage.accepted_tokens == found.usage.draft_tokens > 20


def proposer(blocks: int = 40, longest: int = 60, vocab_size: int = 257) -> DraftProposer:
    manager, store = stub_manager(StubSettings(blocks=blocks, block_size=3))
    return DraftProposer(StubRunner(store, count_up, vocab_size), manager, 0.1, longest, 7, words=257)


@pytest.mark.clause("DRAFT-14")
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 6), st.lists(st.integers(0, 255), max_size=9), st.integers(0, 6)),
        max_size=12,
    ),
    blocks=st.sampled_from([8, 12, 60]),
)
def test_proposals_are_what_the_model_says_next(steps: list[tuple[int, int, list[int], int]], blocks: int) -> None:
    """Texts continue with some of the proposed tokens and with other tokens, in any order."""
    made = proposer(blocks)
    texts = [TokenSequence([1] * 8 + [number], SamplingParams(), 0) for number in range(3)]
    for number, most, more, kept in steps:
        asked_now = list({number: most, (number + 1) % 3: 2}.items())
        for (which, wanted), found in zip(asked_now, made.propose([(texts[w], m) for w, m in asked_now]), strict=True):
            expected = following(count_up, texts[which].token_ids, wanted)
            assert found == expected or (found == [] and blocks < 60)
            if which == number:
                texts[which].token_ids += [*found[:kept], *more]
                if texts[which].length > 40:
                    made.forget(texts[which])
                    texts[which] = TokenSequence([2] * 7, SamplingParams(), 0)
    for text in texts:
        made.forget(text)
    assert not made._manager.device.held


@pytest.mark.clause("DRAFT-15")
def test_a_full_memory_proposes_nothing_and_the_next_text_has_it() -> None:
    made = proposer(blocks=4)  # of three tokens
    one, other, long = (
        TokenSequence([number] * length, SamplingParams(), 0) for number, length in ((1, 8), (2, 8), (3, 14))
    )
    assert made.propose([(long, 1)]) == [[]]
    assert len(made.propose([(one, 3)])[0]) == 3
    assert len(made.propose([(other, 3)])[0]) == 3, "who is not asked about keeps its blocks"
    assert sorted(map(len, made.propose([(one, 3), (other, 3)]))) in ([0, 3], [0, 0])
    assert proposer(longest=9).propose([(one, 2), (one, 1)][:1]) == [[]], "beyond the longest context"


@pytest.mark.clause("DRAFT-14")
def test_what_the_second_model_has_no_word_for_is_proposed_nothing() -> None:
    assert proposer(vocab_size=10).propose([(TokenSequence([3, 12], SamplingParams(), 0), 2)]) == [[]]


@pytest.mark.clause("DRAFT-14")
def test_words_that_the_first_model_does_not_have_are_never_proposed() -> None:
    """The head has more rows than the vocabulary has tokens, as in some published models, and these rows are the most
    likely ones."""
    head, table = HALF.params.head, HALF.params.embedding.table
    assert head is not None and isinstance(head.linear.weight, Dense) and isinstance(table, Dense)
    rows = head.linear.weight.data
    longer = Dense(np.concatenate([rows, 100 * rows[:1], -100 * rows[:1]]))
    params = replace(
        HALF.params,
        embedding=replace(HALF.params.embedding, table=Dense(np.concatenate([table.data, table.data[:2]]))),
        head=replace(head, linear=replace(head.linear, weight=longer)),
    )
    llm = tiny_llm("numpy", TinyModel(replace(HALF.config, vocab_size=259), params, ByteTokenizer()), 12)
    llm.engine.speculation._proposers[DRAFT].cost = 0.0
    params_ = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True, seed=0)
    (found,) = llm.generate([[65, 66]], params_)
    assert found.choices == alone("numpy", (65, 66), params_).choices
    assert found.usage.draft_tokens


@pytest.mark.clause("DRAFT-15")
def test_both_share_the_memory() -> None:
    llm, alone_ = tiny_llm("numpy", HALF, 12), tiny_llm("numpy", None, 12)
    made = llm.engine.speculation._proposers[DRAFT]
    assert isinstance(made, DraftProposer)
    assert llm.stats().device.total == made._manager.device.total == alone_.stats().device.total == 12
    both = block_bytes(LARGE, 16, "float32") + block_bytes(HALF.config, 16, "float32")
    LLM.from_loaded(MODEL, NumpyOps(), EngineConfig(kv_memory=both), HALF)
    with pytest.raises(InvalidParameter, match=f"kv_memory must be at least {both} bytes.*, not {both - 1}"):
        LLM.from_loaded(MODEL, NumpyOps(), EngineConfig(kv_memory=both - 1), HALF)


@dataclass
class Spelled:
    """A tokenizer in which one token has another text."""

    changed: int
    vocab_size: int = ByteTokenizer().vocab_size

    def __getattr__(self, name: str) -> Any:
        return getattr(ByteTokenizer(), name)

    def token_bytes(self, token: int) -> bytes:
        return b"something else" if token == self.changed else ByteTokenizer().token_bytes(token)


@pytest.mark.clause("DRAFT-16")
@pytest.mark.parametrize(
    ("tokenizer", "told"), [(Spelled(77), "token 77 is b'something else' in half"), (Spelled(0, 300), "300 tokens")]
)
def test_another_vocabulary_is_refused(tokenizer: Any, told: str) -> None:
    with pytest.raises(InvalidParameter, match=told) as caught:
        tiny_llm("numpy", replace(HALF, tokenizer=tokenizer), 12)
    assert caught.value.field == "draft_model"


@pytest.mark.clause("DRAFT-10")
def test_what_cannot_speculate_says_so() -> None:
    encoder = replace(MODEL, config=replace(LARGE, encoder=True), params=replace(MODEL.params, head=None))
    for config, second in ((EngineConfig(speculate="ngram"), None), (EngineConfig(), HALF)):
        with pytest.raises(Unsupported, match=r"speculate.*tiny is an encoder"):
            LLM.from_loaded(encoder, NumpyOps(), config, second)
    with pytest.raises(InvalidParameter, match="half is an encoder"):
        tiny_llm("numpy", replace(HALF, config=replace(HALF.config, encoder=True)), 12)
    with pytest.raises(InvalidParameter, match="needs a draft_model"):
        tiny_llm("numpy", None, 12, speculate="draft")
    assert tiny_llm("numpy", HALF, 12, speculate="ngram:3").engine.speculation._default.source == "ngram"  # type: ignore[union-attr]


@pytest.mark.clause("DRAFT-14")
def test_a_second_model_that_breaks_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = tiny_llm("numpy", HALF, 12)
    made = llm.engine.speculation._proposers[DRAFT]
    assert isinstance(made, DraftProposer)
    made.cost = 0.0
    prompt, params = [65, 66], SamplingParams(temperature=0, max_tokens=20, ignore_eos=True, seed=0)
    request = llm.engine.submit(prompt, params)
    llm.engine.step()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(made._executor), "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        llm.engine.step()
    assert not made._manager.device.held
    while llm.engine.has_work:
        llm.engine.step()
    assert request.completion().choices == alone("numpy", tuple(prompt), params).choices
    assert np.isfinite(request.completion().usage.draft_tokens)
