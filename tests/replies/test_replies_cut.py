"""REPLY-19: answers that were cut off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.replies.formats import find_formats
from ferrum.replies.reply import Reply, joined
from tests.replies.writing import WRITERS, written, written_in_harmony

FORMATS = find_formats(None, "hermes", "think")
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "<b>"}}\n</tool_call>'
WHOLE = f"<think>Hm < 1</think>Wait: 1 < 2.\n{CALL}\n{CALL}"


def cut_at(place: int) -> Reply:
    parser = FORMATS.parser("", True)
    return joined([*parser.push(WHOLE[:place]), *parser.finish(cut=True)])


@pytest.mark.clause("REPLY-19")
@given(st.integers(0, len(WHOLE)))
def test_half_a_tag_is_no_word_of_an_answer(place: int) -> None:
    reply, whole = cut_at(place), cut_at(len(WHOLE))
    assert whole.content == "Wait: 1 < 2."
    assert whole.reasoning.startswith(reply.reasoning)
    assert whole.content.startswith(reply.content.rstrip())
    assert len(reply.tool_calls) <= WHOLE[:place].count("arguments")
    for ours, full in zip(reply.tool_calls, whole.tool_calls, strict=False):
        assert full.arguments.startswith(ours.arguments)


@pytest.mark.clause("REPLY-19")
@pytest.mark.parametrize("tools", [*WRITERS, "harmony"])
@given(data=st.data())
def test_an_answer_cut_anywhere_is_the_beginning_of_the_whole_one(tools: str, data: st.DataObject) -> None:
    harmony = tools == "harmony"
    formats = find_formats(None, tools, "harmony" if harmony else "think")
    whole = data.draw(written_in_harmony() if harmony else written(tools, "think"))
    place = data.draw(st.integers(0, len(whole.text)))
    parser = formats.parser(whole.prompt, True)
    reply = joined([*parser.push(whole.text[:place]), *parser.finish(cut=True)])
    assert whole.reply.reasoning.startswith(reply.reasoning.rstrip())
    assert whole.reply.content.startswith(reply.content.rstrip())
    assert len(reply.tool_calls) <= len(whole.reply.tool_calls)
    for ours, full in zip(reply.tool_calls, whole.reply.tool_calls, strict=False):
        assert ours.name == full.name
        assert full.arguments.startswith(ours.arguments)


@pytest.mark.clause("REPLY-19")
@pytest.mark.parametrize(
    ("text", "cut", "calls", "content"),
    [
        ('<tool_call>{"name": "f", "arguments": ', True, [], ""),
        ('<tool_call>{"name": "f", "arguments": ', False, [("f", "")], ""),
        ('<tool_call>{"name": "f", "arguments": {', True, [("f", "{")], ""),
        ('<tool_call>{"name": "f"', True, [], ""),
        ('<tool_call>{"name": "f"', False, [], '<tool_call>{"name": "f"'),
        ('<tool_call>{"name": "f"}', False, [("f", "{}")], ""),
        ("1 <", True, [], "1 "),
        ("1 <", False, [], "1 <"),
    ],
)
def test_what_ends_too_early(text: str, cut: bool, calls: list[tuple[str, str]], content: str) -> None:
    parser = FORMATS.parser("", True)
    reply = joined([*parser.push(text), *parser.finish(cut=cut)])
    assert [(call.name, call.arguments) for call in reply.tool_calls] == calls
    assert reply.content == content


@pytest.mark.clause("REPLY-04")
@given(space=st.text(" \t\n", max_size=4), text=st.sampled_from(["a", "<b>", "a <think> b"]))
def test_white_space_before_an_answer_without_thoughts_is_content(space: str, text: str) -> None:
    parser = FORMATS.parser("", False)
    assert joined([*parser.push(space + text), *parser.finish()]).content == space + text
