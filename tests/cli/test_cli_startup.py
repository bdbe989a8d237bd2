"""CLI-24: the modules that are imported between the start of the program and the first token."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ferrum.cli.main import YOUNG_OBJECTS
from tests.cli.conftest import environment

UNNEEDED = [
    "filelock", "huggingface_hub", "llvmlite", "numba", "ssl", "statistics", "subprocess", "torch", "transformers",
    "ferrum.cli.bench", "ferrum.cli.models", "ferrum.load.download",
]  # fmt: skip


def imported(*arguments: object) -> set[str]:
    """The modules of a process that has run the program."""
    code = "import sys\nfrom ferrum.cli.main import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300, check=True)
    return set(ran.stderr.split("\n")[-2].split())


@pytest.mark.clause("CLI-24")
@pytest.mark.parametrize("raw", [True, False])
def test_generate_imports_what_it_uses(tiny: Path, raw: bool) -> None:
    found = imported("generate", "Hi", "-m", tiny, "--backend", "numpy", "-n", 2, *(["--raw"] if raw else []))
    assert sorted(found.intersection(UNNEEDED)) == []
    assert ("jinja2" in found) == (not raw)


@pytest.mark.clause("CLI-24")
def test_a_command_imports_no_other() -> None:
    found = imported("inspect", "--help")
    assert "ferrum.cli.models" in found
    assert not found & {"ferrum.cli.generate", "ferrum.cli.bench", "numpy"}
    found = imported("chat", "--help")
    assert "ferrum.cli.chat" in found
    assert not found & {"ferrum.cli.generate", "ferrum.cli.models", "numpy", "jinja2", "readline"}
    assert not found & {"ferrum.cli.server_flags", "ferrum.cli.service_flags"}
    assert not imported("--help") & {"asyncio", "numpy", "ssl"}  # which looks at all of them


@pytest.mark.clause("CLI-24")
def test_the_program_seldom_searches_for_garbage(tiny: Path) -> None:
    code = (
        "import gc\nfrom ferrum.cli.main import main\n"
        "try: main()\nfinally: print(gc.get_threshold()[0], gc.get_freeze_count() > 10_000)"
    )
    command = [sys.executable, "-c", code, "--version"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=True)
    assert ran.stdout.split("\n")[1] == f"{YOUNG_OBJECTS} True"
