"""SERVER-80 to SERVER-84: `serve --ray`, with two replicas on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.house.source import ROOT
from tests.processes import end_with_the_tests

pytestmark = pytest.mark.ray
pytest.importorskip("ray")

SCRIPT = {"answers": [{"when": "long", "say": "0123456789" * 200}], "default": "Hello!", "delay_ms": 10}


@dataclass
class Served:
    process: subprocess.Popen[str]
    url: str

    def ask(self, text: str, **more: object) -> dict[str, object]:
        return {"json": {"messages": [{"role": "user", "content": text}], **more}, "timeout": 60}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("ray")
    (folder / "stub.json").write_text(json.dumps(SCRIPT))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--stub", "stub.json", "--ray", "--replicas", "2", "--port", str(port), "--max-num-seqs", "16"]
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "ferrum", "serve", *flags],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=end_with_the_tests,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("listening on"):
            break
    yield Served(process, f"http://127.0.0.1:{port}")
    process.terminate()
    process.communicate(timeout=120)


def texts(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content") or ""


@pytest.mark.clause("SERVER-80")
def test_streams_and_errors_are_those_of_one_machine(served: Served) -> None:
    assert httpx.get(f"{served.url}/health", timeout=60).json() == {"status": "ok"}
    with httpx.stream("POST", f"{served.url}/v1/chat/completions", **served.ask("hi", stream=True)) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "".join(texts(stream.iter_lines())) == "Hello!"
    refused = httpx.post(f"{served.url}/v1/chat/completions", **served.ask("hi", temperature=-1))
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "temperature"


@pytest.mark.clause("SERVER-81")
def test_replicas_batch_what_comes_at_the_same_time(served: Served) -> None:
    found: list[int] = []

    def ask() -> None:
        answer = httpx.post(f"{served.url}/v1/chat/completions", **served.ask("long", max_tokens=200))
        found.append(answer.json()["usage"]["completion_tokens"])

    began = time.monotonic()
    asking = [threading.Thread(target=ask) for _ in range(24)]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    assert found == [200] * 24
    assert time.monotonic() - began < 24 * 200 * 0.01 / 2  # one after the other, on two replicas


@pytest.mark.clause("SERVER-82")
def test_a_request_is_cancelled_wherever_it_is_answered(served: Served) -> None:
    for number in range(6):
        name = f"long-{number}"
        with httpx.stream(
            "POST", f"{served.url}/v1/chat/completions", headers={"x-request-id": name},
            **served.ask("long", stream=True, max_tokens=2000),
        ) as stream:  # fmt: skip
            lines = stream.iter_lines()
            next(texts(lines))
            cancelled = httpx.post(f"{served.url}/v1/requests/{name}/cancel", timeout=60)
            assert cancelled.json() == {"id": name, "object": "request.cancelled"}
            assert '"finish_reason":"cancelled"' in "".join(lines)
    assert httpx.post(f"{served.url}/v1/requests/long-0/cancel", timeout=60).status_code == 404


@pytest.mark.clause("SERVER-82")
def test_a_client_that_leaves_ends_its_request(served: Served) -> None:
    with httpx.stream(
        "POST", f"{served.url}/v1/chat/completions", headers={"x-request-id": "left"},
        **served.ask("long", stream=True, max_tokens=2000),
    ) as stream:  # fmt: skip
        next(texts(stream.iter_lines()))
    until = time.monotonic() + 10
    while httpx.post(f"{served.url}/v1/requests/left/cancel", timeout=60).status_code != 404:
        assert time.monotonic() < until
        time.sleep(0.2)


@pytest.mark.clause("SERVER-83")
def test_running_answers_finish_at_the_end(served: Served) -> None:
    """The last test, since it ends the server."""
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(
            httpx.post(f"{served.url}/v1/chat/completions", **served.ask("long", max_tokens=300))
        )
    )
    asking.start()
    time.sleep(1)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(120) == 0
    asking.join()
    assert answers[0].json()["usage"]["completion_tokens"] == 300
