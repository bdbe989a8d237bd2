"""REPLY-18: a required form of an answer, with reasoning before it."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.replies.formats import ReplyFormats, find_formats
from ferrum.replies.thought_grammar import after_thought
from ferrum.sampling_params import StructuredOutputs
from tests.sample.following import fits

THINKS, PLAIN = find_formats("<think>"), find_formats(None)
FORMS = [
    (StructuredOutputs(json={"const": {"a": 1}}), '{"a":1}', '{"a":2}'),
    (StructuredOutputs(choice=("yes", 'n"o')), 'n"o', "maybe"),
    (StructuredOutputs(regex="a/b\n[0-9]\\/"), "a/b\n7/", "a/b 7/"),
    (StructuredOutputs(regex="a\\\nb"), "a\nb", "a\\nb"),
]


@pytest.mark.clause("REPLY-18")
@pytest.mark.parametrize(("structure", "right", "wrong"), FORMS)
@pytest.mark.parametrize(("formats", "prompt"), [(THINKS, ""), (THINKS, "<think>\n"), (PLAIN, "")])
def test_the_form_holds_after_the_thoughts(
    structure: StructuredOutputs, right: str, wrong: str, formats: ReplyFormats, prompt: str
) -> None:
    found = after_thought(formats, prompt, structure)
    inside = "Hm, {}: <b>\n</think>\n\n"
    for answer, expected in ((right, True), (wrong, False), ("", False)):
        if prompt:
            assert fits(found, inside + answer) is expected
            assert not fits(found, answer)
        else:
            assert fits(found, answer) is expected
            assert fits(found, f"<think>{inside}{answer}") is (expected and formats is THINKS)


@pytest.mark.clause("REPLY-18")
@given(st.from_regex(r"([a-z/]|\\\\|\\/|\\n|\n){0,8}", fullmatch=True))
def test_any_expression_stands_between_slashes(expression: str) -> None:
    """The expressions have slashes, escaped slashes, backslashes and ends of lines."""
    structure = after_thought(THINKS, "", StructuredOutputs(regex=f"x{expression}"))
    text = "x" + re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], expression)
    assert re.fullmatch(f"x{expression}", text)
    assert fits(structure, text)
    assert not fits(structure, text + "!")


@pytest.mark.clause("REPLY-18")
def test_a_grammar_of_the_callers_own_is_of_the_whole_answer() -> None:
    own = StructuredOutputs(grammar='start: "a"')
    assert after_thought(THINKS, "", own) is own
    schema = StructuredOutputs(json={"oneOf": [{"type": "integer"}, {"const": 1}]}, one_of_as_any_of=True)
    assert fits(after_thought(THINKS, "", schema), json.dumps(1))
