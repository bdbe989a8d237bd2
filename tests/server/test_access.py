"""SERVER-30 to SERVER-35: API keys, origins and hosts of requests."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from ferrum.cli.server_flags import key_of_environment, keys_of
from ferrum.errors import ConfigError
from ferrum.trace.page import policy
from tests.server.running import CHAT, application, ask, is_error

KEYS = ("first-key", "schlüssel")
CLOSED = ["/v1/models", "/metrics", "/openapi.json", "/tokenizer_info", "/nothing", "/health/"]


@pytest.fixture(scope="module")
def keyed() -> Iterator[FastAPI]:
    with application(api_keys=KEYS, cors_origins=("https://Page.example/",)) as made:  # as people write it
        yield made


@pytest.fixture(scope="module")
def local() -> Iterator[FastAPI]:
    hosts = ("localhost", "127.0.0.1", "::1", "box.example")
    with application(allowed_hosts=hosts, cors_origins=("https://page.example",)) as made:
        yield made


@pytest.mark.clause("SERVER-30")
@pytest.mark.parametrize("path", CLOSED)
def test_nothing_is_told_without_a_key(keyed: FastAPI, path: str) -> None:
    response = ask(keyed, "GET", path)
    assert is_error(response, 401)["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.clause("SERVER-30")
@pytest.mark.parametrize("path", ["/", "/health", "/version"])
def test_what_is_open(keyed: FastAPI, path: str) -> None:
    assert ask(keyed, "GET", path).status_code == 200


@pytest.mark.clause("SERVER-30")
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_each_key_fits(keyed: FastAPI, key: str, scheme: str) -> None:
    headers = {"authorization": f"{scheme} {key}".encode()}
    assert ask(keyed, "GET", "/v1/models", headers=headers).status_code == 200
    assert ask(keyed, "POST", "/v1/chat/completions", json=CHAT, headers=headers).status_code == 200


@pytest.mark.clause("SERVER-30")
@given(
    st.sampled_from(["Bearer ", "Basic ", "", "Bearer"]),
    st.binary(max_size=12) | st.sampled_from([b"first-ke", b"first-key"]),
)
def test_nothing_else_fits(keyed: FastAPI, scheme: str, key: bytes) -> None:
    given_key = scheme.encode() + key.translate(None, b"\r\n\0")
    fits = scheme == "Bearer " and key.strip() == b"first-key"
    status = ask(keyed, "GET", "/v1/models", headers={"authorization": given_key}).status_code
    assert status == (200 if fits else 401)


@pytest.mark.clause("SERVER-31")
def test_keys_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("\n one \n\ntwo\n")
    assert keys_of(tmp_path / "keys") == ("one", "two")
    assert keys_of(None) == ()
    (tmp_path / "keys").write_text("\n \n")
    with pytest.raises(ConfigError):
        keys_of(tmp_path / "keys")
    monkeypatch.setenv("FERRUM_API_KEY", "three")
    assert key_of_environment() == ("three",)
    monkeypatch.setenv("FERRUM_API_KEY", " ")
    with pytest.raises(ConfigError):
        key_of_environment()
    monkeypatch.delenv("FERRUM_API_KEY")
    assert key_of_environment() == ()


@pytest.mark.clause("SERVER-32")
def test_pages_that_were_named_may_ask(keyed: FastAPI) -> None:
    asks = {"origin": "https://page.example", "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type, x-request-id"}  # fmt: skip
    preflight = ask(keyed, "OPTIONS", "/v1/chat/completions", headers=asks)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://page.example"
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    refused = ask(keyed, "GET", "/v1/models", headers={"origin": "https://page.example"})
    is_error(refused, 401)
    assert refused.headers["access-control-allow-origin"] == "https://page.example"  # or the page could not read why
    assert refused.headers["access-control-expose-headers"] == "x-request-id"


@pytest.mark.clause("SERVER-32")
def test_other_pages_may_not(keyed: FastAPI) -> None:
    other = {"origin": "https://other.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in ask(keyed, "OPTIONS", "/v1/chat/completions", headers=other).headers
    assert "access-control-allow-origin" not in ask(keyed, "GET", "/health", headers=other).headers


@pytest.mark.clause("SERVER-33")
@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("localhost", True), ("localhost:8000", True), ("LocalHost:1", True), ("127.0.0.1:8000", True),
        ("[::1]:8000", True), ("box.example", True), ("evil.example", False), ("evil.example:8000", False),
        ("localhost.evil.example", False), ("", False), ("[", False), ("127.0.0.1@evil.example", False),
    ],
)  # fmt: skip
def test_a_server_answers_to_its_names(local: FastAPI, host: str, fits: bool) -> None:
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/")):
        response = ask(local, method, path, headers={"host": host}, json=CHAT if method == "POST" else None)
        if fits:
            assert response.status_code == 200
        else:
            assert is_error(response, 403)["type"] == "permission_error"


@pytest.mark.clause("SERVER-34")
@pytest.mark.parametrize(
    ("origin", "fits"),
    [
        ("http://localhost:8000", True), ("https://page.example", True), ("https://evil.example", False),
        ("http://localhost:9999", False), ("null", False), ("http://[", False),
    ],
)  # fmt: skip
def test_pages_elsewhere_do_not_post(local: FastAPI, origin: str, fits: bool) -> None:
    headers = {"origin": origin, "content-type": "text/plain"}
    response = ask(local, "POST", "/v1/chat/completions", json=CHAT, headers=headers)
    assert response.status_code == (200 if fits else 403)
    assert ask(local, "GET", "/health", headers=headers).status_code == 200


@pytest.mark.clause("SERVER-35")
def test_the_page_runs_its_own_script_only(local: FastAPI) -> None:
    response = ask(local, "GET", "/")
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    rules = dict(rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert rules["connect-src"] == "'self'"
    for tag in ("script", "style"):
        [inside] = re.findall(rf"<{tag}>(.*?)</{tag}>", response.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


@pytest.mark.clause("SERVER-35")
def test_a_page_without_a_script_runs_none() -> None:
    assert policy("<p>text</p>")["script-src"] == "'none'"
