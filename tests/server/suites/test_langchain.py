"""LangChain's standard integration tests against the stub server, whose answers are written so that they can pass."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.server.suites import foreign, places
from tests.server.suites.serving import served

ENOUGH = 45  # images, sound and PDF files are skipped


@pytest.mark.suites
@pytest.mark.clause("SUITE-04")
def test_the_standard_tests_of_langchain(tmp_path: Path) -> None:
    python = places.python("langchain")
    cases = shutil.copy(places.HERE / "langchain_cases.py", tmp_path)  # away from this project's conftest.py
    names = ("--served-model-name", "first", "--served-model-name", "second")
    loops = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session"]  # its client keeps its loop
    with served("--stub", str(places.HERE / "langchain_stub.json"), *names) as server:
        outcomes = foreign.run(python, tmp_path, [*loops, cases], tmp_path, {"FERRUM_URL": f"{server.url}/v1"})
    assert [name for name, outcome in outcomes.items() if outcome == "failed"] == []
    assert sum(outcome == "passed" for outcome in outcomes.values()) >= ENOUGH
    foreign.keep("langchain", "langchain-tests, integrations of chat models and embeddings", outcomes)
