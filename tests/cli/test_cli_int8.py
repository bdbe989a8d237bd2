"""CLI-16, CLI-18: `--compute int8`, and the messages for models and backends that do not have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke

SMALL = ("--json", "-p", 5, "-n", 3, "-r", 1)


@pytest.mark.clause("CLI-18")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize(("dtype", "noted"), [("auto", True), ("q8_0", False), ("q4_0", False)])
def test_nothing_is_noted_where_weights_are_quantised(
    invoke: Invoke, tiny: Path, backend: str, dtype: str, noted: bool
) -> None:
    result = invoke("bench", "-m", tiny, "--backend", backend, "--dtype", dtype, "--compute", "int8", *SMALL)
    assert result.exit_code == 0 and json.loads(result.stdout)["decode_tok_s"] > 0
    assert ("note: --compute int8 rounds only" in result.stderr) == noted


@pytest.mark.clause("CLI-10", "CLI-16")
@pytest.mark.parametrize(
    ("compute", "backend", "words"),
    [
        ("int9", "numba", ("--compute", "int8", "'int9'")),
        ("float16", "numba", ("float16", "not part of this version")),
        ("int8", "ferrum.testing.cuda_shim.backend:ShimOps", ("--compute", "float32, bfloat16", "'int8'")),
    ],
)
def test_an_arithmetic_that_is_not_there_is_refused_in_one_line(
    invoke: Invoke, tiny: Path, compute: str, backend: str, words: tuple[str, ...]
) -> None:
    for program in (("generate", "-n", 1, "hello"), ("bench", *SMALL)):
        result = invoke(program[0], "-m", tiny, "--backend", backend, "--compute", compute, *program[1:])
        assert result.exit_code in (1, 2) and result.stdout == ""
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
        assert all(word in result.stderr for word in words), result.stderr
