"""BENCH-10 to BENCH-14, BENCH-20, BENCH-30 to BENCH-32: against a real HTTP server."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import Any

import pytest

from ferrum.errors import FerrumError, InvalidParameter
from ferrum.load_test.measurement import measure
from ferrum.load_test.plan import Plan, Setup
from ferrum.load_test.server import base_url, connected, headers
from ferrum.load_test.timeline import BROKEN, NO_CONNECTION, NO_TEXT, TIMED_OUT, TOLD, Timeline, Usage
from ferrum.load_test.workload import RandomWords
from tests.load_test.scripted import ANSWER, CUT, DONE, ROLE, STOP, Reply, delta, error, serving, usage

DEAD = "http://127.0.0.1:9/v1"  # "discard", on which no server listens
WORDS = RandomWords(5)


def ask(reply: Reply, timeout: float = 30.0, times: int = 1) -> Timeline:
    """The timeline of the last of `times` requests on one connection."""

    async def work(url: str) -> Timeline:
        async with connected(base_url(url), None, timeout) as server:
            clock = asyncio.get_running_loop().time
            for _ in range(times):
                timeline = await server.ask("/chat/completions", {"stream": True}, clock(), clock)
            return timeline

    with serving(reply) as server:
        return asyncio.run(work(server.url))


def measured(url: str, **fields: Any) -> dict[str, Any]:
    """The result of a measurement with one word of setup and another."""
    usual: dict[str, Any] = {"endpoint": "chat", "max_tokens": 4, "workload": WORDS, "plan": Plan(3), "warmup": 0}
    setup = Setup(base_url(url), **{**usual, **fields})
    return asyncio.run(measure(setup, lambda _text: None, lambda _stop: nullcontext()))


@pytest.mark.clause("BENCH-11")
@pytest.mark.clause("BENCH-13")
def test_times_are_those_of_text() -> None:
    """The role comes at once and the text a while later. (A slow machine makes times longer, never shorter.)"""
    pieces = [ROLE, b": alive\n\n", delta(content="a"), delta(content="b"), STOP, usage(7, 5), DONE]
    seen = ask(Reply(pieces, pause=0.04))
    assert seen.failure is None and seen.usage == Usage(7, 5)
    first, second = seen.texts
    assert first - seen.sent >= 0.08 and second - seen.sent >= 0.12 and seen.ended - seen.sent >= 0.24
    assert seen.sent < first <= second <= seen.ended


@pytest.mark.clause("BENCH-10")
def test_characters_and_lines_that_are_cut() -> None:
    content = (ROLE + delta(content="Grüße 🦜") + STOP + usage(1, 2) + DONE).replace(b"\n", b"\r\n")
    seen = ask(Reply([content[place : place + 1] for place in range(len(content))]))
    assert (seen.failure, len(seen.texts), seen.usage) == (None, 1, Usage(1, 2))


@pytest.mark.clause("BENCH-12")
@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (error(429, "slow down"), "status 429", "slow down"),
        (Reply([b"<html>no"], 502, "text/html"), "status 502", "<html>no"),
        (Reply([b'{"detail":"Not Found"}'], 404, "application/json"), "status 404", "Not Found"),
        (Reply([], 500), "status 500", ""),
        (Reply([b"x" * 70_000, CUT], 500), "status 500", "xxx..."),  # no more of an error is read
        (Reply([ROLE, delta(content="a"), CUT]), BROKEN, "peer closed connection"),
        (Reply([CUT]), BROKEN, "peer closed connection"),
        (Reply([ROLE, delta(content="a")]), BROKEN, "ended before the answer"),
        (Reply([ROLE, STOP, usage(7, 1), DONE]), NO_TEXT, "no text"),
        (Reply([ROLE, b'data: {"error": {"message": "gone"}}\n\n']), TOLD, "gone"),
        (Reply([b'{"choices": []}'], 200, "application/json"), BROKEN, "does not stream"),
    ],
)
def test_a_failure_has_a_kind_and_a_message_and_no_times(reply: Reply, kind: str, words: str) -> None:
    seen = ask(reply)
    assert seen.failure is not None and seen.failure.kind == kind
    assert words in seen.failure.message and len(seen.failure.message) < 300


@pytest.mark.clause("BENCH-12")
def test_an_answer_that_takes_too_long_has_timed_out() -> None:
    before = time.monotonic()
    seen = ask(Reply([ROLE, *[delta(content="a")] * 100, DONE], pause=0.1), timeout=0.3)
    assert seen.failure is not None and seen.failure.kind == TIMED_OUT
    assert time.monotonic() - before < 9


@pytest.mark.clause("BENCH-12")
def test_no_server_listens() -> None:
    async def work() -> Timeline:
        async with connected(DEAD, None, 5.0) as server:
            return await server.ask("/chat/completions", {}, 1.0, lambda: 2.0)

    seen = asyncio.run(work())
    assert seen.failure is not None and seen.failure.kind == NO_CONNECTION


def test_a_stream_that_does_not_end_after_its_end_costs_no_more_than_a_second() -> None:
    """The time of the answer is that of its last event, whatever the connection does."""
    before = time.monotonic()
    seen = ask(Reply([delta(content="a") + DONE, *[b": still here\n\n"] * 100], pause=0.1))
    assert seen.failure is None
    assert seen.texts == (seen.ended,)
    assert time.monotonic() - before < 9


@pytest.mark.clause("BENCH-30")
@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
        ("https://example.org/v1/", "https://example.org/v1"),
        ("https://example.org/api/openai", "https://example.org/api/openai"),
    ],
)
def test_an_address_without_a_path_means_v1(url: str, base: str) -> None:
    assert base_url(url) == base


@pytest.mark.clause("BENCH-07")
@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://x", "http://", "http://u:p@h", "http://h/v1?x=1", "http://h:x"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidParameter, match="url"):
        base_url(url)


@pytest.mark.clause("BENCH-30")
def test_the_first_model_is_asked_unless_one_is_named() -> None:
    with serving() as server:
        assert measured(server.url)["model"] == "first"
        assert measured(server.url, model="other")["model"] == "other"
    assert [body["model"] for body in server.bodies] == ["first"] * 3 + ["other"] * 3


@pytest.mark.clause("BENCH-20")
def test_warm_up_requests_come_first_and_do_not_count() -> None:
    def answering(number: int, _body: Any) -> Reply:
        return error(503, "cold") if number == 0 else ANSWER

    with serving(answering) as server:
        result = measured(server.url, warmup=2)
    assert result["requests"] == {"succeeded": 3, "failed": 0, "unfinished": 0}
    assert len(server.bodies) == 5
    prompts = [body["messages"][0]["content"] for body in server.bodies]
    assert prompts[2:] == [WORDS.prompt(number) for number in range(3)]
    assert len(set(prompts)) == 5


@pytest.mark.clause("BENCH-12")
@pytest.mark.clause("BENCH-14")
def test_a_result_counts_errors_by_kind_and_tokens_by_their_source() -> None:
    replies = [
        ANSWER,
        error(429, "slow down"),
        Reply([delta(content="a"), STOP, DONE]),
        error(429, "slower"),
        Reply([CUT]),
    ]
    with serving(lambda number, _body: replies[number]) as server:
        result = measured(server.url, plan=Plan(5))
    assert result["requests"] == {"succeeded": 2, "failed": 3, "unfinished": 0}
    assert [(kind["kind"], kind["count"]) for kind in result["failures"]] == [("status 429", 2), (BROKEN, 1)]
    assert result["failures"][0]["message"] == "slow down"
    assert result["tokens"] == {"prompt": None, "output": 6, "counted_by_usage": 1, "counted_by_chunks": 1}


@pytest.mark.clause("BENCH-31")
@pytest.mark.parametrize(
    ("models", "words"),
    [
        (error(401, "who are you?"), r"refuses the API key.*who are you\?.*OPENAI_API_KEY"),
        (error(404, "what?"), r"status 404: name the model with --model"),
        (Reply([b'{"data": []}'], 200, "application/json"), "lists no model"),
        (Reply([b"<html>"], 200, "text/html"), "lists no model"),
    ],
)
def test_a_list_of_models_that_is_none_says_what_to_do(models: Reply, words: str) -> None:
    with serving(models=models) as server, pytest.raises(FerrumError, match=words):
        measured(server.url)


@pytest.mark.clause("BENCH-31")
def test_what_can_never_work_ends_before_it_begins() -> None:
    with pytest.raises(FerrumError, match=r"no server answers at http://127\.0\.0\.1:9/v1"):
        measured(DEAD)
    with pytest.raises(FerrumError, match=r"no server answers at http://127\.0\.0\.1:9/v1"):
        measured(DEAD, model="x", warmup=1)
    with serving(error(404, "no such model")) as server:
        with pytest.raises(FerrumError, match="no such model; the server has 'first', 'second'"):
            measured(server.url, model="x", warmup=1)
        assert len(server.bodies) == 1
    nothing = serving(error(404, "no such path"), models=error(404, "no"))
    with nothing as server, pytest.raises(FerrumError, match=r"status 404: no such path$"):
        measured(server.url, model="x", warmup=1)
    with serving(error(401, "wrong key")) as server, pytest.raises(FerrumError, match="refuses the API key"):
        measured(server.url, model="x", warmup=1)


@pytest.mark.clause("BENCH-32")
def test_the_key_goes_to_the_server_and_into_no_result() -> None:
    with serving() as server:
        result = measured(server.url, api_key=" secret\n")
        assert [heard["Authorization"] for _, heard, _ in server.asked] == ["Bearer secret"] * 4
        assert "secret" not in str(result) and "secret" not in repr(
            Setup("x", "chat", 1, WORDS, Plan(1), api_key="secret")
        )
        server.asked.clear()
        measured(server.url)
        assert not any("Authorization" in heard for _, heard, _ in server.asked)
    for key in ("a\nb", "schlüssel"):
        with pytest.raises(InvalidParameter, match="api_key"):
            headers(key)
    assert "Authorization" not in headers(" ")
