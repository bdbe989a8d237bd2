"""ENGINE-09 to ENGINE-22: the public calls, on a random model small enough to check by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import EngineConfig
from ferrum.engine import llm as llm_module
from ferrum.errors import FerrumError, InvalidParameter, ModelError, RequestValidation, Unsupported
from ferrum.kv.storage import block_bytes
from ferrum.text.byte_tokenizer import EOS, ByteTokenizer
from ferrum.text.template_names import ChatTemplates
from ferrum.types import FinishReason
from tests.tiny import TinyModel, dense_logits, distance, tiny_config, tiny_params

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


class MarkingTokenizer(ByteTokenizer):
    """A tokenizer that puts EOS in front of a raw prompt, as models with a beginning-of-sequence token do."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [EOS] * add_special_tokens + super().encode(text, add_special_tokens=add_special_tokens)


def tiny_llm(dtype: str = "float32", *, template: str | None = TEMPLATE, **engine: Any) -> LLM:
    config = tiny_config()
    templates = ChatTemplates({} if template is None else {"default": template})
    model = TinyModel(config, tiny_params(config), MarkingTokenizer(), templates)
    return LLM.from_loaded(model, NumpyOps(dtype), EngineConfig(**engine))


def all_free(llm: LLM) -> bool:
    return not llm.stats().device.held and not llm.stats().host.held and not llm.engine.has_work


def dense_greedy(prompt: list[int], count: int) -> list[int]:
    """The oracle: greedy tokens, each from the logits of the whole text."""
    config, tokens = tiny_config(), list(prompt)
    for _ in range(count):
        tokens.append(int(dense_logits(config, tiny_params(config), tokens)[-1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.clause("ENGINE-02", "ENGINE-04")
@pytest.mark.parametrize("block_size", [1, 3, 16])
@pytest.mark.parametrize("budget", [1, 5, 2048])
def test_greedy_is_the_textbook_model(block_size: int, budget: int) -> None:
    llm = tiny_llm("float64", block_size=block_size, max_num_batched_tokens=budget)
    prompts = [[1, 2, 3], [200] * 16, [7]]
    completions = llm.generate(prompts, GREEDY)
    assert [list(c.token_ids) for c in completions] == [dense_greedy(prompt, 8) for prompt in prompts]
    assert all(c.finish_reason is FinishReason.LENGTH for c in completions)
    assert all_free(llm)


@pytest.mark.clause("ENGINE-09")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_stream_says_what_generate_says(temperature: float) -> None:
    llm = tiny_llm()
    params = SamplingParams(temperature=temperature, seed=5, max_tokens=20, stop=["e", "zz"], ignore_eos=True)
    (whole,) = llm.generate("a prompt", params)
    stream = llm.stream("a prompt", params)
    chunks = list(stream)
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert tuple(chunk.token_id for chunk in chunks) == whole.token_ids
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == whole.finish_reason
    assert stream.completion().choices == whole.choices
    assert stream.seed == 5
    assert all_free(llm)


@pytest.mark.clause("ENGINE-10")
def test_choices_are_reproduced_by_their_own_seeds() -> None:
    llm = tiny_llm()
    params = SamplingParams(n=3, seed=0, max_tokens=8)
    (completion,) = llm.generate([[1, 2, 3]], params)
    assert completion.choices[0].seed == 0
    assert completion.token_ids == completion.choices[0].token_ids
    assert completion.usage.completion_tokens == sum(len(choice.token_ids) for choice in completion.choices)
    assert len({choice.token_ids for choice in completion.choices}) == 3
    for choice in completion.choices:
        (alone,) = llm.generate([[1, 2, 3]], SamplingParams(seed=choice.seed, max_tokens=8))
        assert (alone.text, alone.token_ids) == (choice.text, choice.token_ids)


@pytest.mark.clause("ENGINE-12")
def test_one_bad_prompt_refuses_the_call() -> None:
    llm = tiny_llm()
    for bad in ([], [257], [-1], [1] * 64):
        with pytest.raises(RequestValidation):
            llm.generate([[1, 2], bad], GREEDY)
        assert all_free(llm)
    assert len(llm.generate([[1, 2]], GREEDY)) == 1


def listen(llm: LLM) -> None:
    stream = llm.stream([1, 2, 3], GREEDY)
    for _ in stream:
        pass


@pytest.mark.clause("ENGINE-13")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ModelError])
@pytest.mark.parametrize("call", [lambda llm: llm.generate([[1, 2, 3], [4]], GREEDY), listen])
def test_a_failed_step_frees_everything(
    error: type[BaseException], call: Callable[[LLM], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = tiny_llm()
    expected = llm.generate([[1, 2, 3]], GREEDY)[0].token_ids
    run, steps = llm.runner.run, iter(range(3))

    def fail_in_step_four(plan: Any) -> Any:
        if next(steps, None) is None:
            raise error
        return run(plan)

    with monkeypatch.context() as patch, pytest.raises(error) as caught:
        patch.setattr(llm.runner, "run", fail_in_step_four)
        call(llm)
    assert all_free(llm)
    assert caught.tb is not None  # the frames are still alive: nothing was freed by being dropped
    assert llm.generate([[1, 2, 3]], GREEDY)[0].token_ids == expected


@pytest.mark.clause("ENGINE-17")
@pytest.mark.parametrize("parameters", [{"compute": "float16"}, {"kv_dtype": "int8"}])
def test_what_is_not_there_is_refused_before_the_model_is_looked_for(parameters: dict[str, Any]) -> None:
    (name,) = parameters
    with pytest.raises(Unsupported, match=f"^{name}"):
        LLM("/no/such/model", **parameters)


@pytest.mark.clause("ENGINE-17")
@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"kv_memory": "much"}, InvalidParameter),
        ({"block_size": 0}, InvalidParameter),
        ({"compute": "foo"}, InvalidParameter),
        ({"max_num_seqs": True}, InvalidParameter),
        ({"scheduler": "random"}, InvalidParameter),
        ({"eviction": "mru"}, InvalidParameter),
        ({"prefix_caching": None}, InvalidParameter),
        ({"deterministic": 1}, InvalidParameter),
        ({"host_kv_memory": "-1"}, InvalidParameter),
        ({"max_waiting": 0}, InvalidParameter),
        ({"colour": "red"}, TypeError),
        ({"backend": "abacus"}, FerrumError),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, Any], error: type[Exception]) -> None:
    (name,) = parameters
    with pytest.raises(error, match=name):
        LLM("/no/such/model", **parameters)


@pytest.mark.clause("ENGINE-18")
def test_the_context_is_what_model_and_memory_allow() -> None:
    block = block_bytes(tiny_config(), 16, "float32")
    assert tiny_llm().max_model_len == 64
    assert tiny_llm(kv_memory=3 * block).max_model_len == 48
    assert tiny_llm(kv_memory=3 * block, max_model_len=48).stats().device.total == 3
    assert tiny_llm(host_kv_memory=5 * block + 1).stats().host.total == 5
    for field, settings in [
        ("max_model_len", {"max_model_len": 65}),
        ("max_model_len", {"max_model_len": 49, "kv_memory": 3 * block}),
        ("kv_memory", {"kv_memory": block - 1}),
        ("host_kv_memory", {"host_kv_memory": block - 1}),
    ]:
        with pytest.raises(InvalidParameter, match=field):
            tiny_llm(**settings)


@pytest.mark.clause("ENGINE-18")
def test_a_full_context_and_a_full_pool_work() -> None:
    block = block_bytes(tiny_config(), 4, "float32")
    llm = tiny_llm(block_size=4, kv_memory=4 * block)
    params = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True)
    completions = llm.generate([[1] * 15, [2], [3] * 8], params)
    assert [len(c.token_ids) for c in completions] == [1, 15, 8]
    assert llm.logits([5] * 16).shape == (16, 257)
    assert all_free(llm)


@pytest.mark.clause("ENGINE-19")
def test_prompts_in_all_their_forms() -> None:
    llm = tiny_llm()
    text = llm.generate("hi", GREEDY)
    assert [c.prompt_token_ids for c in text] == [(EOS, 104, 105)]
    for same in (["hi"], [EOS, 104, 105], [[EOS, 104, 105]], np.array([EOS, 104, 105]), (EOS, 104, 105)):
        assert [c.token_ids for c in llm.generate(same, GREEDY)] == [text[0].token_ids]
    mixed = llm.generate(["hi", [1, 2], (3,)], [GREEDY, SamplingParams(temperature=0, max_tokens=2), GREEDY])
    assert [c.prompt_token_ids for c in mixed] == [(EOS, 104, 105), (1, 2), (3,)]
    assert len(mixed[1].token_ids) <= 2
    assert llm.generate([]) == []
    assert len(llm.generate("hi")[0].token_ids) <= 16


@pytest.mark.clause("ENGINE-19")
@pytest.mark.parametrize("prompts", [5, None, b"hi", {"role": "user"}, [1.5], [["a"]], [[1], 2], [None]])
def test_what_is_no_prompt_is_refused(prompts: Any) -> None:
    with pytest.raises(InvalidParameter, match="prompts"):
        tiny_llm().generate(prompts, GREEDY)


@pytest.mark.clause("ENGINE-19")
@pytest.mark.parametrize("params", [[], [GREEDY, GREEDY], [None], "greedy"])
def test_parameters_must_match_the_prompts(params: Any) -> None:
    with pytest.raises(InvalidParameter, match="params"):
        tiny_llm().generate(["hi"], params)


@pytest.mark.clause("ENGINE-20")
@pytest.mark.parametrize("chunk", [1, 5, 256])
def test_logits_are_those_of_the_whole_text(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_module, "SCORE_TOKENS", chunk)
    llm, config = tiny_llm("float64"), tiny_config()
    tokens = list(range(40, 104))  # as long as the context
    logits = llm.logits(tokens)
    assert logits.dtype == np.float32
    assert distance(logits, dense_logits(config, tiny_params(config), tokens)) < 1e-6
    assert all_free(llm)
    for bad in ([], [257], [1] * 65):
        with pytest.raises(RequestValidation):
            llm.logits(bad)
    with pytest.raises(InvalidParameter):
        llm.logits("text")  # type: ignore[arg-type]


@pytest.mark.clause("ENGINE-20")
def test_keys_and_values_in_half_precision_are_close() -> None:
    config, tokens = tiny_config(), list(range(40))
    logits = tiny_llm(kv_dtype="float16").logits(tokens)
    assert 1e-6 < distance(logits, dense_logits(config, tiny_params(config), tokens)) < 1e-2


@pytest.mark.clause("ENGINE-21")
def test_a_stream_that_is_left_frees_its_blocks() -> None:
    llm = tiny_llm()
    never_started = llm.stream("hi", GREEDY)
    never_started.close()
    assert all_free(llm)
    with llm.stream("hi", GREEDY) as stream:
        next(stream)
        assert not all_free(llm)
    assert all_free(llm)
    assert stream.completion().finish_reason is FinishReason.CANCELLED
    assert list(stream) == []
    for _ in llm.stream("hi", GREEDY):
        break  # the stream is dropped
    assert all_free(llm)


@pytest.mark.clause("ENGINE-04", "ENGINE-21")
def test_streams_and_calls_share_an_engine() -> None:
    llm = tiny_llm()
    expected = {text: llm.generate(text, GREEDY)[0].token_ids for text in ("one", "two", "three")}
    one, two = llm.stream("one", GREEDY), llm.stream("two", GREEDY)
    heard: dict[str, list[int | None]] = {"one": [next(one).token_id], "two": [next(two).token_id]}
    assert llm.generate("three", GREEDY)[0].token_ids == expected["three"]
    heard["two"] += [chunk.token_id for chunk in two]
    heard["one"] += [chunk.token_id for chunk in one]
    assert {name: tuple(tokens) for name, tokens in heard.items()} == {name: expected[name] for name in heard}


@pytest.mark.clause("ENGINE-21")
def test_a_stream_has_one_choice() -> None:
    with pytest.raises(InvalidParameter, match=r"^n "):
        tiny_llm().stream("hi", SamplingParams(n=2))


@pytest.mark.clause("ENGINE-22")
def test_chat_renders_the_template_and_adds_no_token() -> None:
    llm = tiny_llm()
    messages = [{"role": "u", "content": "hi"}]
    rendered = tuple(b"<u>hi<a>")
    (completion,) = llm.chat(messages, GREEDY)
    assert completion.prompt_token_ids == rendered
    two = llm.chat([messages, messages], GREEDY)
    assert [c.token_ids for c in two] == [completion.token_ids] * 2
    assert tuple(chunk.token_id for chunk in llm.stream_chat(messages, GREEDY)) == completion.token_ids


@pytest.mark.clause("ENGINE-22")
def test_chat_refuses_what_it_cannot_render() -> None:
    with pytest.raises(Unsupported, match="no chat template"):
        tiny_llm(template=None).chat([{"role": "u", "content": "hi"}])
    for bad in ([], [[]], ["hi"], "hi", [{"role": "u"}, "hi"], [[{"role": "u"}], ["hi"]]):
        with pytest.raises(InvalidParameter, match="messages"):
            tiny_llm().chat(bad)  # type: ignore[arg-type]


@pytest.mark.clause("ENGINE-18")
def test_what_is_loaded_can_be_asked() -> None:
    llm = tiny_llm()
    assert (llm.model_name, llm.backend_name, llm.dtype_name) == ("tiny", "numpy", "float32")
    assert llm.config == tiny_config()
    assert isinstance(llm.tokenizer, ByteTokenizer)
