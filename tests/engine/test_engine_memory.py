"""What callers of `LLM` see of the KV cache and the scheduler: prefixes, priorities, long queues, saved files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import EngineConfig
from ferrum.errors import FerrumError, InvalidFormat, InvalidParameter, NotFound, RequestValidation, Unsupported
from ferrum.kv.storage import block_bytes
from ferrum.text.byte_tokenizer import ByteTokenizer
from ferrum.types import Priority
from tests.tiny import TinyModel, tiny_config, tiny_params

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, seed=1)
TEXT = list(range(65, 65 + 40))


def tiny_llm(seed: int = 0, **engine: Any) -> LLM:
    config = tiny_config()
    model = TinyModel(config, tiny_params(config, seed), ByteTokenizer())
    return LLM.from_loaded(model, NumpyOps(deterministic=True), EngineConfig(**{"block_size": 4, **engine}))


@pytest.mark.clause("ENGINE-27", "KV-32")
def test_a_second_prompt_finds_what_the_first_computed() -> None:
    llm = tiny_llm()
    first, second = (llm.generate(TEXT, GREEDY)[0] for _ in range(2))
    assert (first.usage.cached_tokens, second.usage.cached_tokens) == (0, 39)
    assert first.token_ids == second.token_ids
    off = tiny_llm(prefix_caching=False)
    assert [off.generate(TEXT, GREEDY)[0].usage.cached_tokens for _ in range(2)] == [0, 0]
    assert off.generate(TEXT, GREEDY)[0].token_ids == first.token_ids


@pytest.mark.clause("SCHED-30", "ENGINE-32")
def test_a_prefix_that_many_share_is_computed_once() -> None:
    llm = tiny_llm()
    prompts = [[*TEXT, 10 + number, 11] for number in range(16)]
    completions = llm.generate(prompts, GREEDY)
    alone = tiny_llm(prefix_caching=False)
    assert [c.token_ids for c in completions] == [alone.generate(prompt, GREEDY)[0].token_ids for prompt in prompts]
    prefill = llm.stats().computed_tokens - 16 * (GREEDY.max_tokens or 0) + 16  # the last token is never computed
    assert prefill == len(TEXT) + 2 + 15 * 2


@pytest.mark.clause("ENGINE-12", "ENGINE-23")
def test_more_prompts_than_the_queue_takes_are_all_answered() -> None:
    llm = tiny_llm(max_waiting=3, max_num_seqs=2)
    prompts = [[number] * 3 for number in range(1, 20)]
    together = llm.generate(prompts, GREEDY)
    assert [c.token_ids for c in together] == [llm.generate(prompt, GREEDY)[0].token_ids for prompt in prompts]
    with pytest.raises(RequestValidation):
        llm.generate([*prompts, [1] * 64], GREEDY)
    with pytest.raises(InvalidParameter, match="n must be at most 3"):
        llm.generate(prompts, SamplingParams(n=4))
    assert not llm.engine.has_work


@pytest.mark.clause("ENGINE-12", "ENGINE-21")
def test_answers_one_by_one_can_be_left() -> None:
    llm = tiny_llm()
    prompts = [[1], [2, 3], [4]]
    expected = llm.generate(prompts, GREEDY)
    answers = llm.generate_each(prompts, GREEDY)
    assert next(answers).choices == expected[0].choices
    answers.close()
    assert not llm.engine.has_work and not llm.stats().device.held
    assert [answer.choices for answer in llm.generate_each(prompts, GREEDY)] == [one.choices for one in expected]
    with pytest.raises(RequestValidation):
        llm.generate_each([[1], []], GREEDY)  # at once, not at the first answer


@pytest.mark.clause("ENGINE-19", "SCHED-21")
def test_priorities_are_one_for_all_or_one_each() -> None:
    llm = tiny_llm(scheduler="priority", max_num_seqs=1)
    prompts = [[1], [2], [3]]
    expected = [one.token_ids for one in llm.generate(prompts, GREEDY)]
    for priority in (Priority.HIGH, [Priority.LOW, Priority.CRITICAL, Priority.NORMAL]):
        assert [one.token_ids for one in llm.generate(prompts, GREEDY, priority=priority)] == expected
    completions = llm.generate(prompts, GREEDY, priority=[Priority.LOW, Priority.CRITICAL, Priority.NORMAL])
    waited = [completion.timings.ttft_s for completion in completions]
    assert waited[1] < waited[2] < waited[0]
    for bad in ([Priority.LOW], "high", 2, [1, 2, 3]):
        with pytest.raises(InvalidParameter, match="priority"):
            llm.generate(prompts, GREEDY, priority=bad)  # type: ignore[arg-type]


@pytest.mark.clause("KV-35")
def test_a_saved_prefix_saves_the_next_process_the_work(tmp_path: Path) -> None:
    file = tmp_path / "prefix.safetensors"
    expected = tiny_llm().generate([*TEXT, 9], GREEDY)[0].token_ids
    assert tiny_llm().save_prefix([*TEXT, 1, 2], file) == 40  # whole blocks of 4
    fresh = tiny_llm()
    assert fresh.load_prefix(file) == 40
    completion = fresh.generate([*TEXT, 9], GREEDY)[0]
    assert (completion.token_ids, completion.usage.cached_tokens) == (expected, 40)
    assert fresh.load_prefix(file) == 40  # again: nothing new
    assert not fresh.stats().device.held


@pytest.mark.clause("KV-35", "KV-30")
@pytest.mark.parametrize("other", [{"seed": 1}, {"block_size": 8}, {"kv_dtype": "float16"}], ids=str)
def test_a_saved_prefix_of_something_else_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    file = tmp_path / "prefix.safetensors"
    tiny_llm().save_prefix(TEXT, file)
    with pytest.raises(InvalidFormat, match="another model"):
        tiny_llm(**other).load_prefix(file)


@pytest.mark.clause("KV-35")
def test_what_cannot_be_saved_or_loaded_is_refused(tmp_path: Path) -> None:
    cases: list[tuple[type[FerrumError], Any]] = [
        (RequestValidation, lambda: tiny_llm().save_prefix([1, 2], tmp_path / "x")),
        (Unsupported, lambda: tiny_llm(prefix_caching=False).save_prefix(TEXT, tmp_path / "x")),
        (NotFound, lambda: tiny_llm().load_prefix(tmp_path / "nothing")),
    ]
    for error, call in cases:
        with pytest.raises(error):
            call()
    (tmp_path / "text").write_text("not a prefix")
    with pytest.raises(InvalidFormat, match="not a saved prefix"):
        tiny_llm().load_prefix(tmp_path / "text")


@pytest.mark.clause("ENGINE-18")
@pytest.mark.parametrize("host_blocks", [0, 6])
def test_a_small_pool_answers_every_request_and_counts_preemptions(host_blocks: int) -> None:
    block = block_bytes(tiny_config(), 4, "float32")
    small = tiny_llm(kv_memory=12 * block, host_kv_memory=host_blocks * block, max_model_len=48)
    prompts = [[number] * (3 * number) for number in range(1, 10)]
    params = SamplingParams(temperature=1, seed=3, max_tokens=15, ignore_eos=True)
    expected = tiny_llm().generate(prompts, params)
    assert [c.choices for c in small.generate(prompts, params)] == [c.choices for c in expected]
    stats = small.stats()
    assert stats.preemptions > 0 and stats.kv.evicted > 0
    assert bool(stats.preempted_by_swap) <= bool(host_blocks)
    assert tiny_llm().stats().preemptions == 0
