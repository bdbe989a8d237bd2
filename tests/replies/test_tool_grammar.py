"""REPLY-16 and REPLY-17: a text that matches a tool grammar is a valid call."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrum.errors import InvalidParameter
from ferrum.replies import thought_grammar as module
from ferrum.replies.calls import Tool
from ferrum.replies.formats import ReplyFormats, find_formats
from ferrum.replies.reply import Reply, joined
from ferrum.replies.tool_grammar import MOST_CALLS, tool_grammar
from tests.replies.writing import WRITERS, names
from tests.sample.following import fits, some_answer

FEW = settings(max_examples=max(1, settings.default.max_examples // 50 if settings.default else 1))
"""The number of examples is small, since a grammar takes a third of a second to compile."""
CASES = [
    *((tools, "none", "") for tools in (*WRITERS, "none")),
    ("hermes", "think", ""),
    ("llama3", "think", "<think>\n"),
    ("mistral", "mistral", ""),
    ("command-r", "command-r", "<|START_THINKING|>"),
    ("harmony", "harmony", ""),
    ("none", "harmony", ""),
]

leaves = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "integer", "minimum": -3, "maximum": 40}),
    st.just({"type": "string", "maxLength": 6}),
    st.lists(st.text('<>{}"\\ab', max_size=5), min_size=1, max_size=3, unique=True).map(lambda some: {"enum": some}),
)


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]] = leaves) -> dict[str, Any]:
    """Draws the JSON schema of an object with up to three properties."""
    properties = draw(st.dictionaries(names, inner, max_size=3))
    required = [key for key in properties if draw(st.booleans())]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


lists = leaves.map(lambda items: {"type": "array", "items": items, "maxItems": 2})
schemas = objects(leaves | lists | objects())


def read(formats: ReplyFormats, prompt: str, text: str) -> Reply:
    parser = formats.parser(prompt, True)
    return joined([*parser.push(text), *parser.finish()])


@pytest.mark.clause("REPLY-16", "REPLY-17")
@pytest.mark.parametrize(("tools", "reasoning", "prompt"), CASES)
@given(made=st.dictionaries(names, schemas, min_size=1, max_size=3), parallel=st.booleans(), rng=st.randoms())
@FEW
def test_what_the_grammar_allows_is_parsed_and_fits(
    tools: str, reasoning: str, prompt: str, made: dict[str, Any], parallel: bool, rng: Random
) -> None:
    formats = find_formats(None, tools, reasoning)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LONGEST_THOUGHT", 20)  # a walk at random does not find its end
        structure = tool_grammar(formats, [Tool(*each) for each in made.items()], parallel=parallel, prompt=prompt)
    answers = [some_answer(structure, rng, 2000) for _ in range(4)]
    for answer in filter(None, answers):
        reply = read(formats, prompt, answer)
        assert reply.content == ""
        assert len(reply.tool_calls) == 1 or (parallel and 1 < len(reply.tool_calls) <= MOST_CALLS)
        for call in reply.tool_calls:
            jsonschema.validate(json.loads(call.arguments), made[call.name])
    assert any(answers)


F = Tool("f", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.clause("REPLY-16", "REPLY-17")
def test_an_answer_may_reason_and_must_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_THOUGHT", 200)
    formats = find_formats(None, "hermes", "think")
    one = tool_grammar(formats, [F], parallel=False, prompt="")
    many = tool_grammar(formats, [F], parallel=True, prompt="")
    inside = tool_grammar(formats, [F], parallel=False, prompt="<think>\n")
    thought = "<think>a <tool_call> </thin</think>\n\n"
    for structure, text, allowed in [
        (one, CALL, True),
        (one, thought + CALL, True),
        (one, f"{CALL}\n{CALL}", False),
        (many, f"{CALL}\n{CALL}", True),
        (many, "\n".join([CALL] * MOST_CALLS), True),
        (many, "\n".join([CALL] * (MOST_CALLS + 1)), False),
        (one, "", False),
        (one, "a" + CALL, False),
        (one, thought, False),
        (one, CALL.replace('"f"', '"g"'), False),
        (one, CALL.replace("1", "null"), False),
        (inside, CALL, False),
        (inside, thought.removeprefix("<think>") + CALL, True),
        (one, f"<think>{'a' * module.LONGEST_THOUGHT}</think>\n\n{CALL}", True),
        (one, f"<think>{'a' * module.LONGEST_THOUGHT}a</think>\n\n{CALL}", False),
    ]:
        assert fits(structure, text) == allowed


@pytest.mark.clause("REPLY-17")
def test_tools_that_cannot_be_called_are_refused() -> None:
    formats = find_formats(None)
    for tools, said in [
        ([], "must hold a tool"),
        ([Tool("a b", {})], "names of letters"),
        ([Tool("f", {"type": "array"})], "are an object, not 'array'"),
    ]:
        with pytest.raises(InvalidParameter, match=f"tools.*{said}"):
            tool_grammar(formats, tools, parallel=True, prompt="")
    for kind in ({}, {"type": "object"}, {"type": ["object", "null"]}):
        structure = tool_grammar(formats, [Tool("f", kind)], parallel=False, prompt="")
        assert fits(structure, CALL) and not fits(structure, CALL.replace('{"a": 1}', "null"))
