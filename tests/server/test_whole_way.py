"""SERVER-75: the whole way, from the command line through the server, the engine and a backend, with the real model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import end_with_the_tests

QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}


def streamed(client: httpx.Client, body: dict[str, Any]) -> str:
    text = ""
    with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
    return text


@pytest.mark.clause("SERVER-75")
def test_a_question_to_the_real_model(smollm2_path: Path) -> None:
    command = [sys.executable, "-m", "ferrum", "serve", "-m", str(smollm2_path), "--port", "0", "--backend", "numba"]
    environment = {name: value for name, value in os.environ.items() if name != "FERRUM_API_KEY"}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=end_with_the_tests
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("listening on "), line + process.stderr.read()
            with httpx.Client(base_url=line.split()[-1], timeout=120) as client:
                answer = client.post("/v1/chat/completions", json=QUESTION).json()
                [choice] = answer["choices"]
                assert choice["message"]["content"] == "The capital of France is Paris."
                assert choice["finish_reason"] == "stop"
                assert streamed(client, QUESTION) == choice["message"]["content"]
                raw = client.post("/v1/completions", json={"prompt": "1, 2, 3,", "max_tokens": 2, "temperature": 0})
                assert raw.json()["choices"][0]["text"] == " 4"
                tokens = 2 * answer["usage"]["completion_tokens"] + 2
                assert f"ferrum_generation_tokens_total {tokens}.0\n" in client.get("/metrics").text
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
