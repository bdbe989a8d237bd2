"""SEC-01 to SEC-06: a few hundred cases of every target; a minute of each under HYPOTHESIS_PROFILE=nightly."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from hypothesis import settings

from ferrum import SamplingParams
from ferrum.config import EngineConfig
from tests.fuzz.runner import fuzz
from tests.fuzz.target import TARGETS
from tests.fuzz.targets.parameters import CONFIG, GOOD

CASES = {
    "gguf": 300,
    "safetensors": 300,
    "configurations": 300,
    "tokenizers": 200,
    "templates": 150,
    "prefixes": 400,
    "conversations": 600,
    "structures": 60,
    "parameters": 300,
}
"""The number of cases of each target: about half a second each."""
SECONDS = 60.0
NIGHTLY = "nightly"


def test_every_target_is_tried() -> None:
    assert list(CASES) == list(TARGETS)


@pytest.mark.clause("SEC-06")
@pytest.mark.parametrize(("kind", "values"), [(SamplingParams, GOOD), (EngineConfig, CONFIG)])
def test_every_parameter_is_tried_with_values_of_its_type(kind: Any, values: dict[str, list[Any]]) -> None:
    assert values.keys() == {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("gguf", marks=pytest.mark.clause("SEC-01")),
        pytest.param("safetensors", marks=pytest.mark.clause("SEC-01")),
        pytest.param("configurations", marks=pytest.mark.clause("SEC-01")),
        pytest.param("tokenizers", marks=pytest.mark.clause("SEC-01")),
        pytest.param("templates", marks=pytest.mark.clause("SEC-02")),
        pytest.param("prefixes", marks=pytest.mark.clause("SEC-03")),
        pytest.param("conversations", marks=pytest.mark.clause("SEC-04")),
        pytest.param("structures", marks=pytest.mark.clause("SEC-05")),
        pytest.param("parameters", marks=pytest.mark.clause("SEC-06")),
    ],
)
def test_nothing_but_errors_of_ferrum(target: str) -> None:
    if settings.get_current_profile_name() == NIGHTLY:  # each night other cases
        tally = fuzz(target, str(int(time.time())), seconds=SECONDS)
    else:
        tally = fuzz(target, "0", cases=CASES[target])
    assert tally.accepted and tally.refused, f"all the same: {tally}"
    assert not tally.findings, "\n".join(map(str, (tally, *tally.findings.values())))
