"""SERVER-60 to SERVER-63, SERVER-70 to SERVER-74: the command, from its start to its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from ferrum.cli.main import program
from tests.processes import end_with_the_tests
from tests.server.running import CHAT, SCRIPT, ask, is_error, running

SLOW = {"default": "a" * 500, "delay_ms": 5}
"""An answer long enough to send requests to a server that ends."""


@contextmanager
def started(script: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process of the command and its address, after it has begun to listen."""
    command = [sys.executable, "-m", "ferrum", "serve", "--stub", str(script), "--port", "0", *flags]
    environment = {name: value for name, value in os.environ.items() if name != "FERRUM_API_KEY"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        preexec_fn=end_with_the_tests,
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("listening on http://127.0.0.1:"), line + process.stderr.read()
            yield process, line.split()[-1]
        finally:
            process.kill()


def written(folder: Path, script: dict[str, Any]) -> Path:
    (folder / "script.json").write_text(json.dumps(script))
    return folder / "script.json"


@pytest.mark.clause("SERVER-60")
@pytest.mark.clause("SERVER-61")
@pytest.mark.clause("SERVER-70")
def test_a_signal_lets_answers_finish(tmp_path: Path) -> None:
    with started(written(tmp_path, SLOW)) as (process, address), httpx.Client(base_url=address, timeout=60) as client:
        with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            while (health := client.get("/health")).status_code == 200:
                time.sleep(0.01)
            is_error(health, 503)
            refused = client.post("/v1/chat/completions", json=CHAT)
            is_error(refused, 503)
            assert "retry-after" in refused.headers
            *_, last = [line for line in lines if line]
            assert last == "data: [DONE]"
        assert process.wait(30) == 0
        assert process.stdout is not None and process.stdout.read() == ""


@pytest.mark.clause("SERVER-63")
def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    script = written(tmp_path, {"default": "a" * 100_000, "delay_ms": 20})
    with started(script) as (process, address), httpx.Client(base_url=address, timeout=60) as client:
        with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGINT)
            while httpx.get(f"{address}/health").status_code == 200:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.HTTPError):
                list(lines)
        assert process.wait(30) == 128 + signal.SIGTERM


@pytest.mark.clause("SERVER-62")
def test_answers_have_so_much_time_to_finish() -> None:
    script = {"default": "a" * 100_000, "delay_ms": 5}
    with running(script, drain_s=0.2) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.server.config.timeout_graceful_shutdown = 1
            server.server.drain()
            with pytest.raises(httpx.HTTPError):
                list(lines)
        server.thread.join(30)
        assert not server.thread.is_alive()


@pytest.mark.clause("SERVER-60")
def test_a_server_without_work_ends_at_once() -> None:
    with running(drain_s=60) as server:
        with server.connect():  # an idle connection is no work
            began = time.monotonic()
            server.server.drain()
            server.thread.join(30)
        assert time.monotonic() - began < 10


def run(*flags: str, **environment: str | None) -> tuple[int, str]:
    """Runs the command, which ends at once. Returns the exit code and stderr."""
    result = CliRunner().invoke(program, ["serve", *flags], env={"FERRUM_API_KEY": None, **environment})
    assert result.stdout == ""
    return result.exit_code, result.stderr


@pytest.mark.clause("SERVER-55")
@pytest.mark.clause("SERVER-72")
@pytest.mark.clause("SERVER-73")
def test_what_cannot_be_meant_is_one_line(tmp_path: Path) -> None:
    script = str(written(tmp_path, SCRIPT))
    empty = tmp_path / "empty"
    empty.write_text("\n")
    bad = tmp_path / "bad.json"
    bad.write_text("[]")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        cases = [
            (["--port", str(taken.getsockname()[1])], 1, "Address already in use"),
            (["--host", "nowhere.invalid"], 2, "--host"),
            (["--port", "70000"], 2, "--port"),
            (["--api-key", "two words"], 2, "--api-key"),
            (["--api-key-file", str(empty)], 1, "no key"),
            (["--api-key-file", str(tmp_path / "nothing")], 1, "nothing"),
            (["--max-body-size", "much"], 2, "--max-body-size"),
            (["--request-timeout", "0"], 2, "--request-timeout"),
            (["--ssl-certfile", str(empty)], 2, "--ssl-certfile"),
            (["--ssl-certfile", str(empty), "--ssl-keyfile", str(empty)], 1, "no certificate"),
            (["--tool-parser", "unknown"], 2, "--tool-parser"),
            (["--pooling", "unknown"], 2, "--pooling"),
            (["--max-model-len", "0"], 2, "--max-model-len"),
            (["-m", "some-model"], 2, "--stub"),
            (["--stub", str(bad)], 2, "--stub"),
        ]
        for flags, code, word in cases:
            found, told = run("--stub", script, "--port", "0", *flags)
            assert (found, told.count("\n")) == (code, 1) and word in told, (flags, told)
    assert run("--stub", script, FERRUM_API_KEY=" ")[0] == 1


def assembled(*flags: str, **environment: str | None) -> tuple[str, Any, Any, Any]:
    """What the command builds from its flags: stderr, the application, the service, the terms."""
    made: list[Any] = []

    def serve(app: Any, service: Any, sockets: Any, terms: Any, ready: Any) -> None:
        made.extend((app, service, terms))
        for each in sockets:
            each.close()
        ready()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ferrum.server.run.serve", serve)
        code, told = run("--port", "0", *flags, **environment)
    assert code == 0, told
    return told, *made


@pytest.mark.clause("SERVER-71")
def test_a_server_without_keys_that_others_can_reach_warns(tmp_path: Path) -> None:
    script = str(written(tmp_path, SCRIPT))
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    assert "warning: every machine that reaches this address" in assembled("--stub", script, "--host", "0.0.0.0")[0]
    for flags in (["--host", "0.0.0.0", "--api-key-file", str(keys)], ["--host", "localhost"]):
        assert "warning" not in assembled("--stub", script, *flags)[0]
    assert "warning" not in assembled("--stub", script, "--host", "0.0.0.0", FERRUM_API_KEY="secret")[0]


@pytest.mark.clause("SERVER-31")
@pytest.mark.clause("SERVER-33")
def test_the_flags_decide_which_requests_are_allowed(tmp_path: Path) -> None:
    script = str(written(tmp_path, SCRIPT))
    keys = tmp_path / "keys"
    keys.write_text("two\n")

    def status(app: Any, **headers: str) -> int:
        return ask(app, "GET", "/v1/models", headers=headers).status_code

    _, app, _, _ = assembled("--stub", script, "--api-key", "one", "--api-key-file", str(keys), FERRUM_API_KEY="three")
    for key in ("one", "two", "three"):
        assert status(app, authorization=f"Bearer {key}", host="any.example") == 200
    assert status(app) == 401
    _, app, _, _ = assembled("--stub", script)
    assert (status(app), status(app, host="evil.example")) == (200, 403)
    _, app, _, _ = assembled("--stub", script, "--allowed-host", "box.example")
    assert (status(app, host="box.example"), status(app, host="evil.example")) == (200, 403)
    _, app, _, _ = assembled("--stub", script, "--host", "0.0.0.0")
    assert status(app, host="whatever.example") == 200
    code, told = run("--port", "0", "--stub", script, "--allowed-host", "box.example", "--api-key", "one")
    assert code == 2 and "--allowed-host" in told


@pytest.mark.clause("SERVER-72")
@pytest.mark.clause("SERVER-74")
def test_flags_arrive(tmp_path: Path) -> None:
    script, template = str(written(tmp_path, SCRIPT)), tmp_path / "template"
    template.write_text("{% for m in messages %}{{ m.content }}{% endfor %}|")
    _, app, service, terms = assembled(
        "--stub", script, "--served-model-name", "a", "--served-model-name", "b", "--chat-template", str(template),
        "--pooling", "mean", "--max-model-len", "123", "--max-num-seqs", "3", "--client-timeout", "7",
        "--max-connections", "11", "--idle-timeout", "13", "--drain-timeout", "17", "--max-header-size", "19KiB",
        "--max-body-size", "1000",
    )  # fmt: skip
    assert service.names == ("a", "b") and service.model("b").max_model_len == 123
    assert (terms.bounds.client_timeout_s, terms.bounds.connections) == (7, 11)
    assert (terms.idle_s, terms.drain_s, terms.largest_head, terms.tls) == (13, 17, 19 << 10, None)
    found = ask(app, "POST", "/tokenize", json={"messages": [{"role": "user", "content": "hi"}]})
    assert found.json()["count"] == 3
    is_error(ask(app, "POST", "/tokenize", json={"prompt": "x" * 1000}), 413)
