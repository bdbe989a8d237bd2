"""openai-python's own generated tests, which check every field and type of every answer, against the stub server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.suites import foreign, places
from tests.server.suites.serving import served

FILES = ["chat", "test_completions.py", "test_models.py", "test_embeddings.py", "test_responses.py", "responses"]
NAMES = ["gpt-6-astra", "gpt-3.5-turbo-instruct", "text-embedding-3-small"]  # the models that the tests ask for
ENOUGH = 100


@pytest.mark.suites
@pytest.mark.clause("SUITE-02")
def test_the_generated_tests_of_openai(tmp_path: Path) -> None:
    """The tests named path_params are left out: they end in the client before a request."""
    python, source = places.python("openai"), places.source("openai")
    flags = [flag for name in NAMES for flag in ("--served-model-name", name)]
    with served("--stub", str(places.HERE / "stub.json"), *flags) as server:
        outcomes = foreign.run(
            python,
            source,
            ["-n", "0", "-k", "not path_params", *(f"tests/api_resources/{name}" for name in FILES)],
            tmp_path,
            {"TEST_API_BASE_URL": f"{server.url}/v1"},
        )
    reasons = places.HERE / "openai_generated.toml"
    assert foreign.unexplained(outcomes, reasons) == []
    assert sum(outcome == "passed" for outcome in outcomes.values()) >= ENOUGH
    foreign.keep("openai_generated", "openai 3.57.0, its generated tests of the client", outcomes, reasons)
