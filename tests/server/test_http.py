"""SERVER-01 to SERVER-09, SERVER-14 to SERVER-16: requests and answers, asked of the application itself."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from ferrum import __version__
from ferrum.api.errors import ApiError
from ferrum.api.protocol.base import Answer
from ferrum.api.service import Service
from ferrum.errors import InvalidParameter, ResourceExhausted
from ferrum.server.app import make_app
from ferrum.server.settings import ServerSettings
from tests.server.running import CHAT, SCRIPT, application, ask, is_error, running, scripted

POSTED = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/tokenize", "/detokenize"]
LIMIT = 200_000


@pytest.fixture(scope="module")
def app() -> Iterator[FastAPI]:
    with application(max_body_bytes=LIMIT) as made:
        yield made


@pytest.mark.clause("SERVER-01")
@pytest.mark.parametrize(
    "wrong",
    [
        {"api_keys": ("",)}, {"api_keys": ("two words",)}, {"api_keys": ("line\n",)}, {"api_keys": (b"secret",)},
        {"max_body_bytes": 0}, {"request_timeout_s": 0.0}, {"keep_alive_s": -1.0}, {"cors_origins": (1,)},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_cannot_be_meant(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter) as caught:
        ServerSettings(**wrong)
    assert caught.value.field in wrong
    assert not any(word in str(caught.value) for word in ("two words", "secret"))


@pytest.mark.clause("SERVER-02")
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
    st.sampled_from(
        [*POSTED, "/", "/health", "/v1/models", "/v1/models/x/y", "/v1/requests/x/cancel", "/nothing", "/v1/"]
    ),
    st.sampled_from([b"", b"[]", b"{}", b"null", b'{"model": 1}', b'{"messages": [], "prompt": 7}', b"\xff", b"{"]),
)
def test_every_error_has_the_form_of_openai(app: FastAPI, method: str, path: str, body: bytes) -> None:
    response = ask(app, method, path, content=body)
    if response.status_code != 200:
        is_error(response, response.status_code)
        assert response.status_code < 500


@pytest.mark.clause("SERVER-02")
def test_a_path_or_a_method_that_is_not_there(app: FastAPI) -> None:
    assert is_error(ask(app, "GET", "/v1/nothing"), 404)["type"] == "not_found_error"
    response = ask(app, "DELETE", "/health")
    is_error(response, 405)
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.clause("SERVER-19")
def test_texts_do_not_take_ever_more_threads() -> None:
    body = {"prompt": "a" * 100_000}
    with running() as server, ThreadPoolExecutor(30) as clients:
        asked = [clients.submit(httpx.post, f"{server.url}/tokenize", json=body, timeout=60) for _ in range(60)]
        assert {each.result().status_code for each in asked} == {200}
        assert 1 <= sum(thread.name.startswith("ferrum-text") for thread in threading.enumerate()) <= 4


@pytest.mark.clause("SERVER-18")
def test_a_head_without_its_body() -> None:
    with running() as server:
        for path, status in (("/health", 200), ("/", 200), ("/v1/models", 200), ("/v1/models/other", 404)):
            whole, head = httpx.get(server.url + path), httpx.head(server.url + path)
            assert head.status_code == whole.status_code == status and head.content == b""
            assert head.headers["content-length"] == whole.headers["content-length"]


@pytest.mark.clause("SERVER-02")
def test_errors_name_the_field(app: FastAPI) -> None:
    wrong = {**CHAT, "messages": [{"role": "user", "content": 5}]}
    assert is_error(ask(app, "POST", "/v1/chat/completions", json=wrong), 400)["param"] == "messages[0].content"
    unknown = is_error(ask(app, "POST", "/v1/chat/completions", json={**CHAT, "model": "other"}), 404)
    assert unknown["param"] == "model" and unknown["code"] == "model_not_found"


class Failing(Service):
    """A service that raises the same error for every request."""

    error: BaseException

    async def chat(self, body: Any, call: Any) -> Any:
        raise self.error

    async def chat_stream(self, body: Any, call: Any) -> AsyncIterator[Any]:
        raise self.error


def failing(service: Service, error: BaseException) -> FastAPI:
    made = Failing(service._served)
    made.error = error
    return make_app(made)


@pytest.mark.clause("SERVER-02")
@pytest.mark.clause("SERVER-03")
@pytest.mark.clause("SERVER-05")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "later"),
    [
        (ResourceExhausted("the queue is full"), 429, True),
        (ApiError(503, "the server is shutting down", "server_error"), 503, True),
        (InvalidParameter("seed", "is odd"), 400, False),
        (RuntimeError("a secret of the server"), 500, False),
    ],
    ids=str,
)
def test_errors_of_the_service(stream: bool, error: Exception, status: int, later: bool) -> None:
    with scripted() as service:
        body = {**CHAT, "stream": stream}
        response = ask(failing(service, error), "POST", "/v1/chat/completions", json=body)
    told = is_error(response, status)
    assert ("retry-after" in response.headers) == later
    assert "a secret" not in told["message"]


@pytest.mark.clause("SERVER-02")
def test_a_defect_has_the_form_of_an_error_too() -> None:
    def fail() -> None:
        raise RuntimeError("a secret of the server")

    async def asked(app: FastAPI) -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/fail")

    with application() as app:
        app.add_api_route("/fail", fail)
        assert "secret" not in is_error(asyncio.run(asked(app)), 500)["message"]


@pytest.mark.clause("SERVER-04")
def test_answers_are_those_of_the_service(app: FastAPI) -> None:
    answer = ask(app, "POST", "/v1/chat/completions", json=CHAT)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["choices"][0]["message"]["content"] == "Hello!"
    text = ask(app, "POST", "/v1/completions", json={"prompt": "x"}).json()
    assert text["choices"][0]["text"] == "Hello!"
    tokens = ask(app, "POST", "/tokenize", json={"prompt": "abc", "add_special_tokens": False}).json()["tokens"]
    assert ask(app, "POST", "/detokenize", json={"tokens": tokens}).json()["prompt"] == "abc"
    assert ask(app, "GET", "/tokenizer_info").json()["model_max_length"] > 0
    assert ask(app, "GET", "/version").json() == {"version": __version__}


@pytest.mark.clause("SERVER-04")
def test_nothing_is_added_to_an_answer() -> None:
    class Odd(Answer):
        number: int
        left_out: int | None = None

    class One(Service):
        async def chat(self, body: Any, call: Any) -> Any:
            return Odd(number=7)

    with scripted() as service:
        response = ask(make_app(One(service._served)), "POST", "/v1/chat/completions", json=CHAT)
    assert response.content == b'{"number":7}'


@pytest.mark.clause("SERVER-06")
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=140))
def test_every_response_has_an_id(app: FastAPI, chosen: str) -> None:
    plain = re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", chosen) is not None
    for path in ("/health", "/nothing"):
        found = ask(app, "GET", path, headers={"X-Request-Id": chosen}).headers["x-request-id"]
        assert found == chosen if plain else re.fullmatch(r"[0-9a-f]{32}", found)


@pytest.mark.clause("SERVER-06")
def test_ids_differ(app: FastAPI) -> None:
    assert len({ask(app, "GET", "/health").headers["x-request-id"] for _ in range(5)}) == 5


@pytest.mark.clause("SERVER-07")
def test_health_says_why_not() -> None:
    with scripted() as service:
        app = make_app(service)
        assert ask(app, "GET", "/health").json() == {"status": "ok"}
        service.drain()
        assert "shutting down" in is_error(ask(app, "GET", "/health"), 503)["message"]
        is_error(ask(app, "POST", "/v1/chat/completions", json=CHAT), 503)


@pytest.mark.clause("SERVER-08")
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_cancelled_by_its_id(stream: bool) -> None:
    async def ask_and_cancel(app: FastAPI) -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            body = {**CHAT, "stream": stream}
            asked = asyncio.create_task(
                client.post("/v1/chat/completions", json=body, headers={"X-Request-Id": "mine"}, timeout=60)
            )
            while (cancelled := await client.post("/v1/requests/mine/cancel")).status_code == 404:
                await asyncio.sleep(0.005)
            return cancelled, await asked

    with application({"default": "a" * 10_000, "delay_ms": 5}) as app:
        cancelled, answer = asyncio.run(ask_and_cancel(app))
        assert cancelled.json() == {"id": "mine", "object": "request.cancelled"}
        assert answer.status_code == 200 and '"finish_reason":"cancelled"' in answer.text
        is_error(ask(app, "POST", "/v1/requests/mine/cancel"), 404)


@pytest.mark.clause("SERVER-09")
def test_names_of_models_hold_slashes() -> None:
    with scripted(SCRIPT, names=["org/name", "short"]) as service:
        app = make_app(service)
        assert [card["id"] for card in ask(app, "GET", "/v1/models").json()["data"]] == ["org/name", "short"]
        for path in ("/v1/models/org/name", "/v1/models/org%2Fname"):
            assert ask(app, "GET", path).json()["id"] == "org/name"
        assert is_error(ask(app, "GET", "/v1/models/name"), 404)["code"] == "model_not_found"


def padded(size: int) -> bytes:
    """The body of a chat of exactly `size` bytes."""
    raw = json.dumps(CHAT).encode()
    return raw + b" " * (size - len(raw))


@pytest.mark.clause("SERVER-14")
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_may_be_as_large_as_the_limit_and_not_larger(app: FastAPI, declared: bool) -> None:
    def content(raw: bytes) -> Any:
        async def parts() -> AsyncIterator[bytes]:
            for start in range(0, len(raw), 7001):
                yield raw[start : start + 7001]

        return raw if declared else parts()

    assert ask(app, "POST", "/v1/chat/completions", content=content(padded(LIMIT))).status_code == 200
    error = is_error(ask(app, "POST", "/v1/chat/completions", content=content(padded(LIMIT + 1))), 413)
    assert error["code"] == "request_too_large"


@pytest.mark.clause("SERVER-14")
def test_a_large_body_is_refused_before_it_comes(app: FastAPI) -> None:
    async def asked() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            raise AssertionError("the body was read")

        async def send(message: Any) -> None:
            sent.append(message)

        for length in (b"300000", b"9" * 100):
            scope = {
                "type": "http", "method": "POST", "path": "/v1/completions", "query_string": b"", "root_path": "",
                "headers": [(b"content-length", length), (b"host", b"localhost")],
            }  # fmt: skip
            await app(scope, receive, send)
        return sent

    sent = asyncio.run(asked())
    assert [each["status"] for each in sent if each["type"] == "http.response.start"] == [413, 413]


@pytest.mark.clause("SERVER-15")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"content-type": "text/plain"}, 200),
        ({"content-type": "application/x-www-form-urlencoded"}, 200),
        ({"content-type": "Multipart/Form-Data; boundary=x"}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({"content-encoding": "identity"}, 200),
    ],
    ids=str,
)
def test_json_is_json_whatever_it_is_called(app: FastAPI, headers: dict[str, str], status: int) -> None:
    response = ask(app, "POST", "/v1/chat/completions", content=json.dumps(CHAT), headers=headers)
    assert response.status_code == status
    if status != 200:
        is_error(response, status)


@pytest.mark.clause("SERVER-16")
def test_a_large_body_is_taken_apart_elsewhere(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from ferrum.server import request_body

    where = []
    parse = request_body.parse_object

    def seen(raw: bytes) -> dict[str, Any]:
        where.append(threading.current_thread() is threading.main_thread())
        return parse(raw)

    monkeypatch.setattr(request_body, "parse_object", seen)
    for size in (500, LIMIT):
        assert ask(app, "POST", "/v1/chat/completions", content=padded(size)).status_code == 200
    assert where == [True, False]
