"""API-05, API-07, API-20 to API-22, API-40 to API-44, API-50, API-51: requests, prompts, vectors, tokens, items."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.api.errors import ApiError
from ferrum.api.protocol.base import read
from ferrum.api.protocol.chat import ChatRequest
from ferrum.api.protocol.embedding import EmbeddingRequest
from ferrum.api.protocol.responses import ResponsesRequest
from ferrum.api.protocol.tokens import DetokenizeRequest, TokenizeRequest
from ferrum.api.responses import as_chat
from ferrum.api.service import Call, Service
from ferrum.api.stub import ScriptRunner
from ferrum.errors import InvalidParameter
from ferrum.text.byte_tokenizer import EOS, ByteTokenizer
from tests.api.asking import WEATHER, Json, asked, chat, hidden, parrot, refusal, whole
from tests.api.test_api_streams import replies

LONG = "word " * 2000


async def settled(service: Service) -> None:
    """Waits until the engine has nothing to do."""
    async with asyncio.timeout(30):
        while service.stats().running or service.stats().waiting:
            await asyncio.sleep(0.001)


def free(service: Service) -> int:
    stats = service.stats()
    return stats.device.free + stats.device.cached


@pytest.mark.clause("API-07")
def test_a_stream_that_is_left_frees_its_blocks() -> None:
    async def leave(service: Service) -> None:
        before = free(service)
        stream: Any = await service.chat_stream(read(ChatRequest, chat(LONG, n=3, stream=True)), Call())
        await anext(stream)
        assert free(service) < before
        await stream.aclose()
        await settled(service)
        assert service.metrics.generation_tokens < len(LONG), "it was not let finish"
        assert free(service) == before
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    asked(leave)


@pytest.mark.clause("API-07")
def test_a_request_without_a_client_frees_its_blocks() -> None:
    async def leave(service: Service) -> None:
        before = free(service)
        task = asyncio.ensure_future(service.chat(read(ChatRequest, chat(LONG)), Call()))
        async with asyncio.timeout(30):
            while not service.stats().running:
                await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settled(service)
        assert service.metrics.generation_tokens < len(LONG), "it was not let finish"
        assert free(service) == before

    asked(leave)


@pytest.mark.clause("API-50")
def test_a_request_is_cancelled_by_its_name_and_keeps_what_it_said() -> None:
    async def cancel(service: Service) -> None:
        task = asyncio.ensure_future(service.chat(read(ChatRequest, chat(LONG)), Call("mine")))
        async with asyncio.timeout(30):
            while not service.metrics.generation_tokens:
                await asyncio.sleep(0.001)
        with pytest.raises(ApiError) as caught:
            await service.chat(read(ChatRequest, chat("x")), Call("mine"))
        assert caught.value.status == 409
        assert service.cancel("mine")
        answer = await task
        assert answer.choices[0].finish_reason == "cancelled"
        said = answer.choices[0].message.content
        assert said
        assert LONG.startswith(said)
        assert not service.cancel("mine")

    asked(cancel)


@pytest.mark.clause("API-50")
def test_a_stream_is_cancelled_by_the_id_of_its_answer() -> None:
    async def cancel(service: Service) -> None:
        stream = await service.chat_stream(read(ChatRequest, chat(LONG, stream=True)), Call())
        first = await anext(stream)
        assert service.cancel(first.id)
        parts = [part async for part in stream]
        assert parts[-1].choices[0].finish_reason == "cancelled"

    asked(cancel)


@pytest.mark.clause("API-50")
def test_vectors_that_are_cancelled_are_not_asked_for_again() -> None:
    async def cancel(service: Service) -> None:
        body = read(EmbeddingRequest, {"input": [LONG] * 20})
        task = asyncio.ensure_future(service.embed(body, Call("mine")))
        await asyncio.sleep(0)
        assert service.cancel("mine")
        with pytest.raises(ApiError) as caught:
            await task
        assert (caught.value.status, caught.value.code) == (499, "cancelled")

    asked(cancel)


@pytest.mark.clause("API-51")
def test_draining_refuses_new_requests_and_lets_open_ones_end() -> None:
    async def drain(service: Service) -> None:
        assert service.health().ready
        stream = await service.chat_stream(read(ChatRequest, chat("to the end", stream=True)), Call())
        other = asyncio.ensure_future(service.chat(read(ChatRequest, chat("sooner")), Call()))
        await asyncio.sleep(0)
        service.drain()
        assert not service.health().ready
        idle = asyncio.ensure_future(service.idle())
        await other
        with pytest.raises(ApiError) as caught:
            await service.chat(read(ChatRequest, chat("x")), Call())
        assert caught.value.status == 503
        assert not idle.done()
        parts = [part async for part in stream]
        assert "".join(part.choices[0].delta.content or "" for part in parts) == "to the end"
        await idle

    asked(drain)


@pytest.mark.clause("API-03")
def test_a_request_whose_time_is_over_is_told_so() -> None:
    async def wait(service: Service) -> None:
        with pytest.raises(Exception, match="within"):
            await service.chat(read(ChatRequest, chat(LONG)), Call(None, 0.01))

    asked(wait)


@pytest.mark.clause("API-05")
def test_answers_have_the_name_that_was_asked_for() -> None:
    def make() -> Service:
        return parrot(names=["a", "b"])

    async def ask(service: Service) -> list[Any]:
        bodies = [chat("x"), chat("x", model="b")]
        answers = [await whole(service, "chat", body) for body in bodies]
        return [*answers, [card.id for card in service.models().data], service.model("b").id]

    first, second, cards, card = asked(ask, make)
    assert (first["model"], second["model"], cards, card) == ("a", "b", ["a", "b"], "b")
    assert first["id"] != second["id"]
    usage = first["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    error = refusal("chat", chat("x", model="c"), make)
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")


@pytest.mark.clause("API-20", "API-21", "API-22", "API-24")
def test_prompts_of_every_kind_and_what_is_known_of_their_tokens() -> None:
    texts = [hidden("ab"), hidden("xyz")]
    ids = [list(text.encode()) for text in texts]

    async def ask(service: Service) -> list[Json]:
        bodies: list[Any] = [texts, ids, [texts[0], ids[1]]]
        return [await whole(service, "completion", {"prompt": body, "echo": True, "logprobs": 2}) for body in bodies]

    answers = asked(ask)
    for answer in answers:
        assert [choice["text"] for choice in answer["choices"]] == [texts[0] + "ab", texts[1] + "xyz"]
        for choice, prompt in zip(answer["choices"], ids, strict=True):
            scores = choice["logprobs"]
            assert scores["token_logprobs"][0] is None
            assert scores["top_logprobs"][0] is None
            assert len(scores["tokens"]) == len(scores["token_logprobs"]) == len(scores["top_logprobs"])
            assert "".join(scores["tokens"]) == choice["text"] + "<eos>"
            assert all(
                (choice["text"] + "<eos>").startswith(token, offset)
                for token, offset in zip(scores["tokens"], scores["text_offset"], strict=True)
            )
            assert scores["text_offset"] == sorted(set(scores["text_offset"]))
            assert len(scores["tokens"]) >= len(prompt)
            for token, score, top in list(
                zip(scores["tokens"], scores["token_logprobs"], scores["top_logprobs"], strict=True)
            )[1:]:
                assert top[token] == score
                assert 2 <= len(top) <= 3
    for bad, param in (
        ({"prompt": [[999]]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": ["x"] * 501, "n": 2}, "prompt"),
    ):
        assert refusal("completion", bad).param == param
    only = asked(
        lambda service: whole(service, "completion", {"prompt": texts[0], "echo": True, "max_tokens": 0, "logprobs": 0})
    )
    assert only["choices"][0]["text"] == texts[0] == "".join(only["choices"][0]["logprobs"]["tokens"])
    assert only["usage"]["completion_tokens"] == 0


@pytest.mark.clause("API-20")
def test_every_choice_of_every_prompt_has_a_number_of_its_own() -> None:
    body = {"prompt": [hidden("ab"), hidden("xyz")], "n": 3}
    choices = asked(lambda service: whole(service, "completion", body))["choices"]
    assert [(choice["index"], choice["text"]) for choice in choices] == [*enumerate(["ab"] * 3 + ["xyz"] * 3)]


@pytest.mark.clause("API-24")
def test_offsets_are_places_in_the_text_whatever_a_token_is_long() -> None:
    body = {"prompt": [[EOS, *hidden("x").encode()]], "echo": True, "logprobs": 0}
    (choice,) = asked(lambda service: whole(service, "completion", body))["choices"]
    assert choice["logprobs"]["text_offset"][:3] == [0, len("<eos>"), len("<eos>*")]


@pytest.mark.clause("API-03")
@pytest.mark.parametrize(("kind", "body"), [("chat", chat("x")), ("completion", {"prompt": hidden("x")})])
def test_an_encoder_that_is_asked_for_text_says_what_it_is(
    kind: str, body: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptRunner, "encodes", True)
    error = refusal(kind, body)
    assert error.status == 400
    assert "encoder" in error.message


@pytest.mark.clause("API-40")
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), min_size=1, max_size=4)
)
def test_vectors_come_in_order_and_base64_is_the_same_numbers(texts: list[str]) -> None:
    async def ask(service: Service) -> list[Json]:
        bodies: list[Json] = [{"input": texts}, {"input": texts, "encoding_format": "base64"}]
        bodies += [{"input": text, "dimensions": 4, "normalize": False, "pooling": "mean"} for text in texts]
        return [json.loads((await service.embed(read(EmbeddingRequest, body), Call())).json_text()) for body in bodies]

    numbers, packed, *single = asked(ask)
    vectors = [np.asarray(item["embedding"], np.float32) for item in numbers["data"]]
    assert [item["index"] for item in numbers["data"]] == list(range(len(texts)))
    for item, vector in zip(packed["data"], vectors, strict=True):
        assert (np.frombuffer(base64.b64decode(item["embedding"]), "<f4") == vector).all()
        assert abs(float(np.linalg.norm(vector)) - 1) < 1e-5
    assert all(len(answer["data"][0]["embedding"]) == 4 for answer in single)
    assert numbers["usage"]["prompt_tokens"] == sum(len(text.encode()) for text in texts)


@pytest.mark.clause("API-03")
@pytest.mark.parametrize("given_input", ["", [], [""], [[]], [[999]], ["x"] * 2049, "x" * 20_000])
def test_texts_that_cannot_become_vectors_are_refused_by_name(given_input: Any) -> None:
    async def ask(service: Service) -> None:
        with pytest.raises(InvalidParameter) as caught:
            await service.embed(read(EmbeddingRequest, {"input": given_input}), Call())
        assert caught.value.field == "input"

    asked(ask)


@pytest.mark.clause("API-40")
def test_a_text_of_many_tokens_is_one_text() -> None:
    async def ask(service: Service) -> int:
        return len((await service.embed(read(EmbeddingRequest, {"input": [65] * 2049}), Call())).data)

    assert asked(ask) == 1


class Beginning(ByteTokenizer):
    """Puts a token in front of a text."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [EOS] * add_special_tokens + super().encode(text, add_special_tokens=add_special_tokens)


@pytest.mark.clause("API-25")
@pytest.mark.parametrize(("kind", "added"), [("chat", False), ("completion", True)])
def test_a_raw_prompt_gets_a_beginning_and_a_conversation_has_its_own(
    kind: str, added: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ferrum.api.stub.ByteTokenizer", Beginning)
    body = {**(chat("x") if kind == "chat" else {"prompt": hidden("x")}), "return_token_ids": True}
    answer = asked(lambda service: whole(service, kind, body))
    ids = answer["prompt_token_ids"] if kind == "chat" else answer["choices"][0]["prompt_token_ids"]
    assert (ids[0] == EOS) == added


@pytest.mark.clause("API-42")
@pytest.mark.parametrize(
    ("body", "added"),
    [
        ({"prompt": "x"}, True),  # as vLLM
        ({"prompt": "x", "add_special_tokens": False}, False),
        ({"content": "x"}, False),  # as llama.cpp
        ({"content": "x", "add_special": True}, True),
        ({"messages": [{"role": "user", "content": "x"}]}, False),  # the template writes them
    ],
)
def test_special_tokens_are_added_as_each_server_adds_them(
    body: Json, added: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ferrum.api.stub.ByteTokenizer", Beginning)

    async def ask(service: Service) -> bool:
        tokens: Any = (await service.tokenize(read(TokenizeRequest, body))).tokens
        return tokens[0] == EOS

    assert asked(ask) == added


@pytest.mark.clause("API-13")
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "x", "content": "x"}, "content"),
        ({"prompt": "x", "add_special": True}, "add_special"),
        ({"content": "x", "add_special_tokens": True}, "add_special_tokens"),
        ({"content": "x", "tools": [WEATHER]}, "tools"),
        ({"prompt": "x", "chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
    ],
)
def test_what_is_said_of_something_else_is_not_passed_over(body: Json, param: str) -> None:
    async def ask(service: Service) -> None:
        with pytest.raises(ApiError) as caught:
            await service.tokenize(read(TokenizeRequest, body))
        assert (caught.value.status, caught.value.param) == (400, param)

    asked(ask)


@pytest.mark.clause("API-42")
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_tokens_joined_are_the_text(text: str) -> None:
    async def ask(service: Service) -> None:
        for body in ({"prompt": text}, {"content": text, "with_pieces": False}):
            tokens: Any = (await service.tokenize(read(TokenizeRequest, body))).tokens
            assert (await service.detokenize(read(DetokenizeRequest, {"tokens": tokens}))).prompt == text
        pieces: Any = (await service.tokenize(read(TokenizeRequest, {"content": text, "with_pieces": True}))).tokens
        spelled = (piece.piece for piece in pieces)
        assert b"".join(p.encode() if isinstance(p, str) else bytes(p) for p in spelled) == text.encode()

    asked(ask)


@pytest.mark.clause("API-44")
def test_items_of_a_response_become_the_messages_of_a_chat() -> None:
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in "cd"]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"role": "assistant", "content": "Wait.", "reasoning_content": "Hm.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c", "content": "7"},
        {"role": "user", "content": hidden("done")},
    ]
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "id": "m", "status": "completed", "content": "Wait."},
        *({"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"} for name in "cd"),
        {"type": "function_call_output", "call_id": "c", "output": "7"},
        {"role": "user", "content": hidden("done")},
    ]

    async def ask(service: Service) -> tuple[Json, Json]:
        response = await whole(service, "response", {"input": items, "instructions": "Be brief."})
        return response, await whole(service, "chat", {"messages": messages})

    response, answer = asked(ask)
    assert response["output"][0]["content"][0]["text"] == answer["choices"][0]["message"]["content"] == "done"
    assert response["usage"]["input_tokens"] == answer["usage"]["prompt_tokens"]


@pytest.mark.clause("API-44")
def test_words_after_a_call_are_a_message_of_their_own() -> None:
    items = [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "message", "role": "assistant", "content": "So."},
    ]
    called, said = as_chat(read(ResponsesRequest, {"input": items})).messages
    assert called.tool_calls and called.content is None
    assert said.content == "So." and not said.tool_calls


@pytest.mark.clause("API-44")
@given(say=replies())
def test_the_output_of_a_response_comes_back_as_input(say: str) -> None:
    function = {"type": "function", **WEATHER["function"]}
    include = ["message.output_text.logprobs"]

    async def ask(service: Service) -> tuple[Json, Json]:
        body = {"input": hidden(say), "include": include, "tools": [function]}
        output = (await whole(service, "response", body))["output"]
        results = [
            {"type": "function_call_output", "call_id": item["call_id"], "output": "7"}
            for item in output
            if item["type"] == "function_call"
        ]
        again = [{"role": "user", "content": "Hi"}, *output, *results, {"role": "user", "content": hidden("done")}]
        return await whole(service, "response", {"input": again}), output

    response, output = asked(ask)
    assert response["output"][0]["content"][0]["text"] == "done"
    texts = [part["text"] for item in output for part in item.get("content", [])]
    assert response["usage"]["input_tokens"] > sum(len(text.encode()) for text in texts if "<think>" not in say)


@pytest.mark.clause("API-44")
def test_items_that_are_none_are_refused() -> None:
    assert refusal("response", {"input": []}).param == "input"
    assert refusal("response", {"input": [{"type": "reasoning", "summary": []}]}).param == "input"
    assert refusal("response", {"input": "x" * 20_000}).param == "input"
    assert refusal("response", {"input": "x", "reasoning": {"effort": "low"}}).param == "reasoning.effort"
    assert refusal("response", {"input": "x", "max_output_tokens": 1 << 70}).param == "max_output_tokens"
    assert refusal("response", {"input": [{"type": "function_call"}]}).param == "input[0].call_id"
    assert refusal("response", {"input": "x", "previous_response_id": "y"}).param == "previous_response_id"


@pytest.mark.clause("API-23")
@given(top=st.integers(0, 3), n=st.integers(1, 2), echo=st.booleans(), scores=st.sampled_from([None, 0, 2]))
def test_what_is_known_of_a_prompt_is_told_by_token_ids(top: int, n: int, echo: bool, scores: int | None) -> None:
    text = hidden("ab")

    async def ask(service: Service) -> tuple[Json, Json]:
        completion = {"prompt": text, "prompt_logprobs": top, "n": n, "echo": echo, "logprobs": scores}
        answer = await whole(service, "chat", chat("ab", prompt_logprobs=top, n=n, return_token_ids=True))
        return answer, await whole(service, "completion", completion)

    answer, completion = asked(ask)
    told = [(answer["prompt_token_ids"], answer["prompt_logprobs"])]
    told += [(list(text.encode()), choice["prompt_logprobs"]) for choice in completion["choices"]]
    for ids, (first, *rest) in told:
        assert first is None
        assert len(rest) == len(ids) - 1
        for token, place in zip(ids[1:], rest, strict=True):
            assert str(token) in place
            assert top <= len(place) <= top + 1
            ranks = {score["rank"] for score in place.values()}
            assert ranks >= set(range(1, top + 1))
    for kind, body in (("chat", chat("x")), ("completion", {"prompt": text})):
        assert refusal(kind, {**body, "stream": True, "prompt_logprobs": 1}).param == "prompt_logprobs"
        assert refusal(kind, {**body, "prompt_logprobs": -1}).param == "prompt_logprobs"
