"""ENGINE-42 and ENGINE-43 on a model that computes: log probabilities are those of the logits of the whole text."""

from __future__ import annotations

import numpy as np
import pytest

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import EngineConfig
from ferrum.errors import InvalidParameter
from ferrum.sched import scheduler
from ferrum.text.byte_tokenizer import ByteTokenizer
from ferrum.types import Logprobs
from tests.tiny import TinyModel, dense_logits, tiny_config, tiny_params

PROMPT = list(b"some words of a prompt")


def tiny_llm(**engine: object) -> LLM:
    config = tiny_config()
    model = TinyModel(config, tiny_params(config), ByteTokenizer())
    return LLM.from_loaded(model, NumpyOps("float64"), EngineConfig(**engine))  # type: ignore[arg-type]


def expected(tokens: list[int]) -> np.ndarray:
    """The oracle, [tokens, vocab]: row i has the log probabilities of the token after token i."""
    logits = dense_logits(tiny_config(), tiny_params(tiny_config()), tokens)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def check(entry: Logprobs | None, row: np.ndarray, token: int, count: int) -> None:
    assert entry is not None
    best = np.argsort(-row, kind="stable")
    assert list(entry) == [token, *(other for other in best[:count].tolist() if other != token)]
    for other, said in entry.items():
        assert said.logprob == pytest.approx(row[other], abs=1e-6)
        assert said.rank == best.tolist().index(other) + 1
        assert said.decoded_token == ByteTokenizer().token_text(other)


@pytest.mark.clause("ENGINE-42", "ENGINE-43")
@pytest.mark.parametrize("chunk", [1, 4, 256])
@pytest.mark.parametrize("budget", [3, 2048])
def test_of_prompt_and_answer(chunk: int, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "SCORED_TOKENS", chunk)
    llm = tiny_llm(block_size=4, max_num_batched_tokens=budget)
    params = SamplingParams(max_tokens=6, seed=3, logprobs=2, prompt_logprobs=1, ignore_eos=True, n=2)
    plain = SamplingParams(max_tokens=6, seed=3, ignore_eos=True, n=2)
    llm.generate(PROMPT, plain)  # now it is cached
    with_scores, without = llm.generate([PROMPT, PROMPT], [params, plain])
    assert [c.token_ids for c in with_scores.choices] == [c.token_ids for c in without.choices]
    assert without.logprobs is None and without.prompt_logprobs is None
    rows = expected(PROMPT)
    found = with_scores.prompt_logprobs
    assert found is not None and len(found) == len(PROMPT) and found[0] is None
    for place, entry in enumerate(found[1:], start=1):
        check(entry, rows[place - 1], PROMPT[place], 1)
    for choice in with_scores.choices:
        rows = expected([*PROMPT, *choice.token_ids])
        assert choice.logprobs is not None and len(choice.logprobs) == 6
        for place, entry in enumerate(choice.logprobs):
            check(entry, rows[len(PROMPT) - 1 + place], choice.token_ids[place], 2)


@pytest.mark.clause("ENGINE-42")
def test_a_preempted_prompt_is_scored_all_the_same() -> None:
    """Memory is so small that one of the prompts is preempted and computed again."""
    llm = tiny_llm(block_size=2, max_num_batched_tokens=4, kv_memory=16 * 2 * 2 * 2 * 8 * 8 * 2)
    params = SamplingParams(max_tokens=4, temperature=0, prompt_logprobs=0, ignore_eos=True)
    prompts = [PROMPT[i : i + 10] for i in range(6)]
    for prompt, completion in zip(prompts, llm.generate(prompts, params), strict=True):
        rows = expected(prompt)
        assert completion.prompt_logprobs is not None
        for place, entry in enumerate(completion.prompt_logprobs[1:], start=1):
            check(entry, rows[place - 1], prompt[place], 0)


@pytest.mark.clause("ENGINE-43")
def test_a_stream_tells_of_each_token() -> None:
    llm = tiny_llm()
    params = SamplingParams(max_tokens=5, seed=1, logprobs=0, ignore_eos=True)
    with llm.stream(PROMPT, params) as stream:
        chunks = [chunk for chunk in stream if chunk.token_id is not None]
        assert [list(chunk.logprobs or ()) for chunk in chunks] == [[chunk.token_id] for chunk in chunks]
    assert stream.completion().logprobs == tuple(chunk.logprobs for chunk in chunks)


@pytest.mark.clause("ENGINE-12")
def test_a_bias_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(InvalidParameter, match=r"logit_bias.*token 257"):
        tiny_llm().generate(PROMPT, SamplingParams(logit_bias={257: 1.0}))
