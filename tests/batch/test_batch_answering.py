"""BATCH-06 to BATCH-09 and BATCH-20 to BATCH-23: the answers of a service to lines."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.api.protocol.chat import ChatRequest
from ferrum.api.protocol.completion import CompletionRequest
from ferrum.api.protocol.responses import ResponsesRequest
from ferrum.api.service import Call, Service
from ferrum.api.stub import read_script, stub, stub_service
from ferrum.batch.answering import Answerer, answer_all
from ferrum.batch.request_line import URLS, RequestLine, derived_seed
from ferrum.batch.result_line import Result, read_result
from ferrum.config import EngineConfig
from ferrum.errors import InternalError
from tests.batch.files import chat_line, essence, line_of

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=5)
SCRIPT = {"answers": [{"when": "count", "say": "one two three"}], "default": "Hello – „you“"}


def results(service: Service, values: Sequence[Any], *, at_a_time: int = 8, seed: int = 0) -> list[dict[str, Any]]:
    """The lines of answers to lines of requests, in the order in which they came."""
    kept: list[Result] = []
    lines = [line_of(value, number) for number, value in enumerate(values, start=1)]
    asyncio.run(answer_all(Answerer(service, seed, at_a_time), lines, kept.append))
    for result in kept:
        written = read_result(result.text.encode())
        assert written is not None and (written.id, written.failed) == (result.id, result.failed)
    return [json.loads(result.text) for result in kept]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    made = stub_service(SCRIPT)
    yield made
    made.close()


@pytest.fixture
def small() -> Iterator[Service]:
    """A service that runs two sequences at a time, and lets two wait."""
    made = Service(stub(read_script({**SCRIPT, "delay_ms": 1}), config=EngineConfig(max_num_seqs=2, max_waiting=2)))
    yield made
    made.close()


def line(url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": f"{url} {sorted(body)}", "method": "POST", "url": url, "body": body}


@pytest.mark.clause("BATCH-07", "BATCH-23")
def test_every_endpoint_answers_as_a_server_does(service: Service) -> None:
    values = [
        chat_line("chat", "count"),
        line("/v1/completions", prompt=["<|user|>\ncount", "x"], max_tokens=5),
        line("/v1/responses", input="count"),
        line("/v1/embeddings", input=["x", "y"]),
    ]
    found = {answer["custom_id"].split(" ")[0]: answer for answer in results(service, values)}
    assert all(answer["error"] is None and answer["response"]["status_code"] == 200 for answer in found.values())
    bodies = {name: answer["response"]["body"] for name, answer in found.items()}
    assert bodies["chat"]["choices"][0]["message"]["content"] == "one two three"
    assert [choice["index"] for choice in bodies["/v1/completions"]["choices"]] == [0, 1]
    assert bodies["/v1/responses"]["output"][0]["content"][0]["text"] == "one two three"
    assert [len(item["embedding"]) for item in bodies["/v1/embeddings"]["data"]] == [32, 32]


@pytest.mark.clause("BATCH-07")
def test_the_body_is_what_the_service_gives_byte_for_byte(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    original = service.chat

    async def chat(*given: Any) -> Any:
        answer = await original(*given)
        told.append(answer.json_text())
        return answer

    monkeypatch.setattr(service, "chat", chat)
    kept: list[Result] = []
    asyncio.run(answer_all(Answerer(service, 0, 1), [line_of(chat_line("ä"))], kept.append))
    assert f'"body":{told[0]}}},"error":null}}\n' in kept[0].text
    assert kept[0].tokens == len("Hello – „you“".encode()) + 1


@pytest.mark.clause("BATCH-08", "BATCH-09")
@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"stream": True}, 400, "stream"),
        ({"stream": True, "stream_options": {"include_usage": True}}, 400, "stream"),
        ({"model": "gpt-9"}, 404, "model"),
        ({"temperature": -1}, 400, "temperature"),
        ({"unheard_of": 1}, 400, "unheard_of"),
        ({"messages": []}, 400, "messages"),
        ({"seed": "x"}, 400, "seed"),
        ({"max_tokens": 0}, 400, "max_tokens"),
    ],
)
def test_what_a_server_refuses_is_refused_likewise(
    service: Service, body: dict[str, Any], status: int, param: str
) -> None:
    (answer,) = results(service, [chat_line("a", **body)])
    assert answer["error"] is None and answer["response"]["status_code"] == status
    assert answer["response"]["body"]["error"]["param"] == param


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXTS, inside, max_size=3),
    max_leaves=6,
)
FIELDS = sorted({*ChatRequest.model_fields, *CompletionRequest.model_fields, *ResponsesRequest.model_fields, "input"})


@pytest.mark.clause("BATCH-04", "BATCH-08")
@given(
    st.lists(
        st.builds(
            lambda url, body: {"custom_id": "x", "method": "POST", "url": url, "body": body},
            st.sampled_from(URLS),
            st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=4).map(
                lambda more: {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2, **more}
            )
            | st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=4),
        ),
        max_size=4,
    )
)
def test_any_body_gets_one_answer(service: Service, values: list[dict[str, Any]]) -> None:
    found = results(service, [{**value, "custom_id": str(number)} for number, value in enumerate(values)])
    assert sorted(int(answer["custom_id"]) for answer in found) == list(range(len(values)))
    assert all(answer["response"]["status_code"] < 500 for answer in found)


@pytest.mark.clause("BATCH-06", "BATCH-23")
def test_seeds_and_answers_depend_on_nothing_around_a_line(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: dict[str, int | None] = {}
    original = service.chat

    async def chat(body: ChatRequest, call: Any) -> Any:
        seeds[str(body.messages[0].content)] = body.seed
        return await original(body, call)

    monkeypatch.setattr(service, "chat", chat)
    values = [chat_line(name, f"{name} count", **({"seed": 5} if name == "c" else {})) for name in "abcdef"]
    first = results(service, values, seed=3)
    assert seeds == {f"{name} count": 5 if name == "c" else derived_seed(name, 3) for name in "abcdef"}
    random.Random(0).shuffle(values)
    second = results(service, values, seed=3, at_a_time=2)
    assert sorted(map(essence, first), key=str) == sorted(map(essence, second), key=str)


@pytest.mark.clause("BATCH-20")
def test_no_more_lines_are_taken_than_can_be_open(service: Service) -> None:
    taken, kept = 0, 0

    def lines() -> Iterator[RequestLine]:
        nonlocal taken
        for number in range(40):
            taken += 1
            assert taken <= kept + 3
            yield line_of(chat_line(str(number)))

    def keep(_: Result) -> None:
        nonlocal kept
        kept += 1

    asyncio.run(answer_all(Answerer(service, 0, 3), lines(), keep))
    assert taken == kept == 40


@pytest.mark.clause("BATCH-20")
def test_no_more_lines_are_asked_at_a_time_after_many_have_succeeded(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, open_now, most = service.chat, 0, 0

    async def counted(body: ChatRequest, call: Call) -> Any:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        try:
            return await chat(body, call)
        finally:
            open_now -= 1

    monkeypatch.setattr(service, "chat", counted)

    async def ask() -> list[Result]:
        answerer = Answerer(service, 0, 2)
        return await asyncio.gather(*(answerer.result(line_of(chat_line(f"{number}"))) for number in range(8)))

    assert not any(result.failed for result in asyncio.run(ask()))
    assert most == 2


@pytest.mark.clause("BATCH-21")
def test_a_line_without_room_waits_and_one_that_never_has_room_is_told_so(small: Service) -> None:
    values = [chat_line(f"{number}", n=1 + number % 2) for number in range(12)]
    values.insert(4, {**line("/v1/completions", prompt=["x"] * 9), "custom_id": "many"})
    found = {answer["custom_id"]: answer for answer in results(small, values, at_a_time=12)}
    assert len(found) == len(values)
    assert found.pop("many")["response"]["body"]["error"]["param"] == "prompt"
    for number in range(12):
        assert len(found[str(number)]["response"]["body"]["choices"]) == 1 + number % 2


@pytest.mark.clause("BATCH-21")
def test_a_line_at_which_the_engine_fails_takes_no_other_with_it() -> None:
    service = stub_service({**SCRIPT, "delay_ms": 1})
    executor = service._served.thread.engine.executor
    original, poison = executor.run, b"poison"

    def run(plan: Any) -> Any:
        if any(poison in bytes(token & 255 for token in chunk.sequence.token_ids) for chunk in plan.chunks):
            raise RuntimeError("it cannot be computed")
        return original(plan)

    executor.run = run
    values = [chat_line(f"{number}", "poison" if number in (3, 17) else "count") for number in range(40)]
    try:
        found = {answer["custom_id"]: answer["response"]["status_code"] for answer in results(service, values)}
    finally:
        service.close()
    assert found == {f"{number}": 500 if number in (3, 17) else 200 for number in range(40)}


class Death(BaseException):
    """An error that is not among those that a step may raise."""


@pytest.mark.clause("BATCH-22")
def test_the_end_of_the_engine_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    service = stub_service({**SCRIPT, "delay_ms": 1})
    kept: list[Result] = []

    def keep(result: Result) -> None:
        kept.append(result)
        if len(kept) == 3:
            monkeypatch.setattr(service._served.thread.engine, "step", die)

    def die() -> None:
        raise Death

    lines = [line_of(chat_line(str(number))) for number in range(50)]
    try:
        with pytest.raises(InternalError, match="the engine's thread ended"):
            asyncio.run(answer_all(Answerer(service, 0, 2), lines, keep))
    finally:
        service.close()
    assert 3 <= len(kept) < 8 and not any(result.failed for result in kept)


@pytest.mark.clause("BATCH-08")
def test_a_defect_at_one_line_is_its_answer_alone(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    original = service.chat

    async def chat(body: ChatRequest, call: Any) -> Any:
        if body.messages[0].content == "bad":
            raise ValueError("secret details")
        return await original(body, call)

    monkeypatch.setattr(service, "chat", chat)
    found = {answer["custom_id"]: answer for answer in results(service, [chat_line("a", "bad"), chat_line("b")])}
    assert found["a"]["response"]["status_code"] == 500 and "secret" not in str(found["a"])
    assert found["b"]["response"]["status_code"] == 200
