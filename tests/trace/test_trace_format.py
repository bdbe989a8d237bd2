"""TRACE-10: the format of a trace is written down, and the example keeps to it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.house.source import ROOT
from tests.trace import checks

EXAMPLE: dict[str, Any] = json.loads((Path(__file__).parent / "example.json").read_text())


@pytest.mark.clause("TRACE-10")
def test_the_example_is_a_trace() -> None:
    checks.check_whole(EXAMPLE)
    assert {event["kind"] for step in EXAMPLE["steps"] for event in step["events"]} <= set(checks.EVENTS)


@pytest.mark.clause("TRACE-10")
def test_the_format_names_every_field_and_event() -> None:
    text = (ROOT / "docs" / "trace-format.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text))
    for fields in (checks.WHOLE, checks.MODEL, checks.MEMORY, checks.LIMITS, checks.REQUEST, checks.SEQUENCE,
                   checks.STEP, checks.CHUNK, checks.EXPLAINED, checks.STAGE, checks.ATTENTION, {"launches"},
                   *checks.EVENTS.values(), set(checks.EVENTS)):  # fmt: skip
        assert fields <= named, fields - named


@pytest.mark.clause("TRACE-10")
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("steps", 0, "chunks", 0, "slots"), [0, 1, 2, 3, 8]),
        (("steps", 0, "chunks", 0, "start"), 1),
        (("steps", 1, "device"), [[0, 1, "3f9a01c7"], [1, 1, None], [2, 1, None]]),
        (("steps", 1, "running"), [0]),
        (("steps", 0, "choices", 0, "definition"), 8),
        (("steps", 0, "choices", 0, "unit"), 0.9),
        (("steps", 0, "choices", 0, "attention", "context"), 4),
        (("texts",), {"0": "The"}),
    ],
)
def test_the_checks_notice_what_is_wrong(path: tuple[Any, ...], value: Any) -> None:
    trace = json.loads(json.dumps(EXAMPLE))
    place = trace
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(AssertionError):
        checks.check_whole(trace)
