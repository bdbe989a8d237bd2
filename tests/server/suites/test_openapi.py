"""schemathesis, which makes requests from the served OpenAPI document, right ones and wrong ones, and compares every
answer with what the document says of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.server.suites import places
from tests.server.suites.serving import served

EXAMPLES = 40  # of each operation


@pytest.mark.suites
@pytest.mark.clause("SUITE-06")
def test_schemathesis_finds_no_fault(tmp_path: Path) -> None:
    """The check that every request that fits the document is answered is left out: a schema cannot say all rules."""
    python = places.python("schemathesis")
    with served("--stub", str(places.HERE / "stub.json"), "--max-model-len", "512") as server:
        command = [python, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
        command += [
            "--max-examples",
            str(EXAMPLES),
            "--seed",
            "16",
            "--workers",
            "1",
            "--continue-on-failure",
            "--exclude-checks",
            "positive_data_acceptance",
        ]
        found = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, check=False
        )
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
