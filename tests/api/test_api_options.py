"""API-04, API-05, API-06, API-12, API-14, API-45: fields that change the contents of an answer."""

from __future__ import annotations

from typing import Any

import pytest

from ferrum.api.protocol.base import read
from ferrum.api.protocol.chat import ChatRequest
from ferrum.api.sampling import priority
from ferrum.api.service import Service
from ferrum.api.stub import stub
from ferrum.config import EngineConfig
from ferrum.errors import InvalidParameter
from ferrum.text.byte_tokenizer import ByteTokenizer
from ferrum.types import Priority
from tests.api.asking import Json, Parrot, asked, chat, chunks, hidden, parrot, whole


@pytest.mark.clause("API-05", "API-06")
def test_counts_grow_with_a_stream_where_every_chunk_is_to_tell_them() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *parts, last = asked(lambda service: chunks(service, "chat", chat("four", n=2, stream_options=options)))
    counts = [part["usage"]["completion_tokens"] for part in parts]
    assert counts == sorted(counts)
    assert counts[-1] == last["usage"]["completion_tokens"] == 10
    assert {part["usage"]["prompt_tokens"] for part in parts} == {last["usage"]["prompt_tokens"]}


@pytest.mark.clause("API-05")
@pytest.mark.parametrize("kind", ["chat", "completion", "response"])
def test_tokens_that_are_in_memory_already_are_told(kind: str) -> None:
    said = hidden("word " * 40)
    body: Json = {"chat": chat("word " * 40), "completion": {"prompt": said}, "response": {"input": said}}[kind]

    async def ask(service: Service) -> Json:
        await whole(service, kind, body)
        usage: Json = (await whole(service, kind, body))["usage"]
        return usage

    usage = asked(ask)
    details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
    assert 16 <= details["cached_tokens"] <= usage.get("prompt_tokens", usage.get("input_tokens", 0))


@pytest.mark.clause("DRAFT-05", "DRAFT-10", "API-05")
@pytest.mark.parametrize("kind", ["chat", "completion", "response"])
@pytest.mark.parametrize("of_engine", [None, "ngram", "ngram:3"])
def test_a_request_speculates_where_it_or_the_server_says_so(kind: str, of_engine: str | None) -> None:
    said = "one two three four five " * 3
    body: Json = {
        "chat": chat(said),
        "completion": {"prompt": hidden(said), "max_tokens": 200},
        "response": {"input": hidden(said)},
    }[kind]

    async def ask(service: Service) -> dict[str | None, Json]:
        words = (None, "off", "ngram:6")
        return {
            word: await whole(service, kind, body if word is None else body | {"speculate": word}) for word in words
        }

    told = asked(ask, lambda: parrot(EngineConfig(speculate=of_engine, prefix_caching=False)))
    texts = {str(answer.get("choices") or answer["output"][0]["content"]) for answer in told.values()}
    assert len(texts) == 1, "what proposes tokens changes the answer"
    if kind != "response":  # which has no words for it
        found = {word: answer["usage"].get("completion_tokens_details") for word, answer in told.items()}
        assert found["off"] is None and (found[None] is None) == (of_engine is None)
        assert found["ngram:6"]["accepted_prediction_tokens"] > 10


@pytest.mark.clause("DRAFT-10")
def test_what_cannot_propose_is_refused_by_the_name_of_the_field() -> None:
    for word in ("lookup", "ngram:0", "draft"):
        with pytest.raises(InvalidParameter) as caught:
            asked(lambda service, word=word: whole(service, "chat", chat("x", speculate=word)))
        assert caught.value.field == "speculate"
    with pytest.raises(InvalidParameter, match="draft_model"):
        parrot(EngineConfig(speculate="draft"))


@pytest.mark.clause("API-04")
@pytest.mark.parametrize("urgency", ["low", "normal", "high", "critical"])
def test_a_priority_is_passed_on_to_a_scheduler_that_looks_at_it(urgency: str) -> None:
    assert priority(read(ChatRequest, chat("x", priority=urgency)), "priority") is Priority[urgency.upper()]
    assert priority(read(ChatRequest, chat("x")), "priority") is Priority.NORMAL


@pytest.mark.clause("API-14", "API-24")
@pytest.mark.parametrize("kept", [False, True])
def test_a_token_that_ends_the_text_is_told_of_a_chat_only_where_it_is_text(kept: bool) -> None:
    more = {"stop_token_ids": [ord("c")], "include_stop_str_in_output": kept}
    said = "abc" if kept else "ab"

    async def ask(service: Service) -> tuple[Json, Json]:
        talk = await whole(service, "chat", chat("abcd", logprobs=True, **more))
        return talk, await whole(service, "completion", {"prompt": hidden("abcd"), "logprobs": 0, **more})

    talk, completion = asked(ask)
    assert talk["choices"][0]["message"]["content"] == completion["choices"][0]["text"] == said
    assert [entry["token"] for entry in talk["choices"][0]["logprobs"]["content"]] == list(said)
    assert completion["choices"][0]["logprobs"]["tokens"] == list("abc")


@pytest.mark.clause("API-14")
def test_the_token_that_ends_a_stop_string_is_one_that_the_model_wrote() -> None:
    answer = asked(lambda service: whole(service, "chat", chat("abcd", logprobs=True, stop=["bc"])))
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == "a"
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["a", "b", "c"]


@pytest.mark.clause("API-12")
def test_tags_that_are_special_tokens_are_seen_where_they_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the tag before thoughts is a special token: the byte 1."""

    class Tagged(ByteTokenizer):
        def __init__(self) -> None:
            super().__init__()
            self.special_ids = frozenset({*self.special_ids, 1})

        def token_bytes(self, token_id: int) -> bytes:
            return b"<think>" if token_id == 1 else super().token_bytes(token_id)

    monkeypatch.setattr("ferrum.api.stub.ByteTokenizer", Tagged)
    answer = asked(lambda service: whole(service, "chat", chat("\x01Hm</think>Yes.")))
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm", "Yes.")
    hides = {"skip_special_tokens": True}
    answer = asked(lambda service: whole(service, "chat", chat("\x01Hm</think>Yes.", **hides)))
    assert "<think>" not in answer["choices"][0]["message"]["content"]


@pytest.mark.clause("API-12")
def test_a_refusal_that_comes_back_is_what_the_assistant_said() -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    refused = {"role": "assistant", "content": None, "refusal": hidden("No.")}
    body = {"messages": [{"role": "user", "content": "Hi"}, refused]}
    answer = asked(
        lambda service: whole(service, "chat", body), lambda: Service(stub(Parrot((), "", template=template)))
    )
    assert answer["choices"][0]["message"]["content"] == "No."


@pytest.mark.clause("API-45")
def test_a_response_tells_how_much_it_thought_and_what_is_not_complete() -> None:
    async def ask(service: Service) -> tuple[Json, Json]:
        complete = await whole(service, "response", {"input": hidden("<think>Hm</think>Yes.")})
        body = {"input": hidden("Yes. And so on."), "max_output_tokens": 4}
        return complete, await whole(service, "response", body)

    complete, cut = asked(ask)
    assert complete["usage"]["output_tokens_details"]["reasoning_tokens"] >= 2
    assert [item["status"] for item in complete["output"]] == ["completed"] * 2
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["status"] for item in cut["output"]] == ["incomplete"]
    assert cut["usage"]["output_tokens_details"]["reasoning_tokens"] == 0


@pytest.mark.clause("API-21")
@pytest.mark.parametrize("ask", [whole, chunks])
def test_an_echo_alone_ends_by_its_length(ask: Any) -> None:
    body = {"prompt": hidden(""), "echo": True, "max_tokens": 0}  # of which the model would say nothing more
    found = asked(lambda service: ask(service, "completion", body))
    assert (found[-1] if ask is chunks else found)["choices"][0]["finish_reason"] == "length"


@pytest.mark.clause("API-14")
def test_the_logarithm_of_nothing_can_be_written() -> None:
    more = {"logprobs_mode": "processed_logprobs", "structured_outputs": {"regex": "ab"}}

    async def ask(service: Service) -> tuple[Json, Json]:
        talk = await whole(service, "chat", chat("x", logprobs=True, top_logprobs=2, **more))
        return talk, await whole(service, "completion", {"prompt": hidden("x"), "logprobs": 2, **more})

    talk, completion = asked(ask)
    *_, entry = talk["choices"][0]["logprobs"]["content"]
    assert [top["logprob"] for top in entry["top_logprobs"]] == [0, -9999]
    *_, top = completion["choices"][0]["logprobs"]["top_logprobs"]
    assert sorted(top.values()) == [-9999, 0]


@pytest.mark.clause("API-22")
def test_a_token_that_is_unlikely_is_told_beside_the_likely_ones() -> None:
    body = {"prompt": hidden("xy"), "logprobs": 1, "structured_outputs": {"regex": "ab"}}
    answer = asked(lambda service: whole(service, "completion", body))
    scores = answer["choices"][0]["logprobs"]
    assert sorted(scores["top_logprobs"][0]) == ["a", "x"]
    assert scores["top_logprobs"][0]["a"] == scores["token_logprobs"][0] < scores["top_logprobs"][0]["x"]
