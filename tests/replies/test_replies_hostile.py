"""REPLY-01 to REPLY-04: random answers, and answers written to make a parser slow."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.replies.formats import ReplyFormats, find_formats
from ferrum.replies.reply import Content, Reply, joined
from ferrum.replies.source import Source
from tests.replies.writing import PIECES, REASONING, SPACE, TAGS, WRITERS, cut, without_tags

FORMATS = [
    *(find_formats(None, tools, "none") for tools in WRITERS),
    *(find_formats(None, "none", reasoning) for reasoning in REASONING),
    find_formats(None, "hermes", "think"),
    find_formats(None, "harmony", "harmony"),
]
formats = st.sampled_from(FORMATS)
garbage = st.lists(st.sampled_from([*PIECES, *TAGS, *"{}", '"name": "f"', '"arguments": {', '"parameters":'])).map(
    "".join
)


@pytest.mark.clause("REPLY-01", "REPLY-02")
@given(formats=formats, text=garbage, inside=st.booleans(), with_tools=st.booleans(), data=st.data())
def test_garbage_is_the_same_however_it_is_cut(
    formats: ReplyFormats, text: str, inside: bool, with_tools: bool, data: st.DataObject
) -> None:
    prompt = formats.marks[0] if inside and formats.marks else ""
    replies = []
    for pieces in ([text], data.draw(cut(text))):
        parser = formats.parser(prompt, with_tools)
        replies.append(joined(part for piece in (*map(parser.push, pieces), parser.finish()) for part in piece))
    assert replies[0] == replies[1]
    assert all(call.name for call in replies[0].tool_calls)


@pytest.mark.clause("REPLY-04")
@given(formats=formats, text=st.lists(st.sampled_from(PIECES)).map("".join).filter(without_tags), data=st.data())
def test_an_answer_without_tags_is_content_unchanged(formats: ReplyFormats, text: str, data: st.DataObject) -> None:
    parser = formats.parser("", True)
    parts = [part for piece in (*map(parser.push, data.draw(cut(text))), parser.finish()) for part in piece]
    assert joined(parts) == Reply(text, "", ())
    assert all(isinstance(part, Content) and part.text for part in parts)


@pytest.mark.clause("REPLY-02")
@given(formats=formats, text=st.text("<[|tT/ :a", max_size=60).map(lambda text: f"a{text}").filter(without_tags))
def test_no_more_is_held_back_than_could_be_a_tag(formats: ReplyFormats, text: str) -> None:
    parser, said = formats.parser("", True), ""
    for end, character in enumerate(text, 1):
        said += joined(parser.push(character)).content
        held = text[len(said) : end]
        assert text.startswith(said)
        assert not held.strip(SPACE) or any(mark.startswith(held.lstrip(SPACE)) for mark in (*formats.marks, *TAGS))


LONG = {
    "openings of tags": ("", "<", ""),
    "tags": ("", "<tool_call>[TOOL_CALLS]", ""),
    "white space": ("", " ", ""),
    "a string": ('<tool_call>{"name": "f", "arguments": {"a": "', "x<", ""),
    "arguments before a name": ('<tool_call>{"arguments": {"a": "', "x<", '"}, "name": "f"}'),
    "brackets": ('<tool_call>{"name": "f", "arguments": ', "{[", ""),
    "halves of a tag in arguments": ('<tool_call>{"name": "f", "arguments": {', "</tool", ""),
    "a bare object": ('{"name": "', "x", ""),
    "keys": ('<tool_call>{"name": "f", "arguments": {}', ', "a": 1', ""),
    "a name": ("[TOOL_CALLS]", "x", ""),
    "reasoning": ("<think>", "a </", ""),
    "a header": ("<|channel|>", "a<|", ""),
    "messages": ("", "<|channel|>final<|message|>a<|end|>", ""),
    "parameters": ("<tool_call><function=f>", "<parameter=a>1</parameter>", ""),
}
"""Hostile answers: the beginning, the part that is repeated, and the end."""


@pytest.mark.clause("REPLY-03")
@pytest.mark.parametrize("what", LONG)
@pytest.mark.parametrize("tools", ["hermes", "mistral", "llama3", "harmony", "qwen3-coder"])
def test_work_grows_with_the_text(what: str, tools: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of twice the length takes twice the work: lines of Python that run, and characters that are copied."""
    formats = find_formats(None, tools, "harmony" if tools == "harmony" else "think")
    for size in (1, 1 << 20):
        first, unit, last = LONG[what]
        once, twice = (work(formats, first + unit * count + last, size, monkeypatch) for count in (100, 200))
        assert twice < 2.2 * once


def work(formats: ReplyFormats, text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> int:
    count = 0

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return line

    def feed(source: Source, text: str, own: Any = Source.feed) -> None:
        nonlocal count
        own(source, text)
        count += len(vars(source)["_text"])

    monkeypatch.setattr(Source, "feed", feed)
    parser = formats.parser("", True)
    before = sys.gettrace()
    sys.settrace(line)
    try:
        for at in range(0, len(text), size):
            parser.push(text[at : at + size])
        parser.finish()
    finally:
        sys.settrace(before)
        monkeypatch.undo()
    return count
