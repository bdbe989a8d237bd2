"""REPLY-01, REPLY-04 to REPLY-15: replies in every format, written by a writer of the tests, cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import InvalidParameter
from ferrum.replies.calls import Tool
from ferrum.replies.formats import ReplyFormats, find_formats
from ferrum.replies.reply import (
    CallArguments,
    CallBegins,
    Content,
    Part,
    Reasoning,
    Reply,
    ReplyParser,
    ToolCall,
    joined,
)
from tests.replies.writing import REASONING, WRITERS, Written, cut, written, written_in_harmony


def parsed(parser: ReplyParser, pieces: list[str]) -> Reply:
    return joined(part for piece in (*map(parser.push, pieces), parser.finish()) for part in piece)


def whole(formats: ReplyFormats, text: str, prompt: str = "", with_tools: bool = True) -> Reply:
    """The reply that is read from an answer in one piece. Checks that single characters give the same."""
    reply = parsed(formats.parser(prompt, with_tools), [text])
    assert parsed(formats.parser(prompt, with_tools), list(text)) == reply
    return reply


def reads(formats: ReplyFormats, answer: Written, data: st.DataObject) -> None:
    for pieces in ([answer.text], data.draw(cut(answer.text))):
        assert parsed(formats.parser(answer.prompt, True), pieces) == answer.reply


@pytest.mark.clause("REPLY-01", "REPLY-04", "REPLY-05", "REPLY-06", "REPLY-07", "REPLY-08", "REPLY-09", "REPLY-13")
@pytest.mark.parametrize("tools", WRITERS)
@given(data=st.data())
def test_calls_and_content_are_read_as_they_were_written(tools: str, data: st.DataObject) -> None:
    reads(find_formats(None, tools, "none"), data.draw(written(tools, "none")), data)


@pytest.mark.clause("REPLY-01", "REPLY-04", "REPLY-10", "REPLY-11")
@pytest.mark.parametrize("reasoning", REASONING)
@given(data=st.data())
def test_reasoning_is_read_as_it_was_written(reasoning: str, data: st.DataObject) -> None:
    tools = data.draw(st.sampled_from([*WRITERS, "none"]))
    reads(find_formats(None, tools, reasoning), data.draw(written(tools, reasoning)), data)


@pytest.mark.clause("REPLY-01", "REPLY-12")
@given(data=st.data())
def test_messages_of_harmony_are_read_as_they_were_written(data: st.DataObject) -> None:
    reads(find_formats(None, "harmony", "harmony"), data.draw(written_in_harmony()), data)


HERMES = find_formats(None, "hermes", "think")
LLAMA = find_formats(None, "llama3", "none")
HARMONY = find_formats(None, "harmony", "harmony")
CODER = find_formats(None, "qwen3-coder", "none")
CALLED = "<|channel|>commentary to=functions.f<|message|>"
ANSWER = "<|channel|>final<|message|>"
THOUGHT = "<|channel|>analysis<|message|>"
CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
HALF = ToolCall("f", '{"a": "\\ud800"}')
F = ToolCall("f", '{"a": 1}')


@pytest.mark.clause("REPLY-02", "REPLY-05", "REPLY-06", "REPLY-07")
@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("Use <tool_call> so: <tool_call> [1]", Reply("Use <tool_call> so: <tool_call> [1]", "", ())),
        (f"<tool_call><tool_call>{CALL}", Reply("<tool_call><tool_call>", "", (F,))),
        ('<tool_call>{"a": 1}</tool_call>', Reply('<tool_call>{"a": 1}</tool_call>', "", ())),
        ('<tool_call>{"name": "", "arguments": {}}', Reply('<tool_call>{"name": "", "arguments": {}}', "", ())),
        ('<tool_call>{"name": 5, "arguments": {}}', Reply('<tool_call>{"name": 5, "arguments": {}}', "", ())),
        ('<tool_call>{"name": "\\ud800"}', Reply('<tool_call>{"name": "\\ud800"}', "", ())),
        ('<tool_call>{"name": "f', Reply('<tool_call>{"name": "f', "", ())),
        # a call, whatever becomes of it
        ('<tool_call>{"name": "f", "arguments": {"a": "</tool', Reply("", "", (ToolCall("f", '{"a": "</tool'),))),
        ('<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call> b', Reply("b", "", (F,))),
        ('<tool_call>{"name": "f", "arguments": {"a": 1', Reply("", "", (ToolCall("f", '{"a": 1'),))),
        ('<tool_call>{"name": "f", "arguments": {a=1}}</tool_call>', Reply("", "", (ToolCall("f", "{a=1}"),))),
        (CALL[:-3], Reply("", "", (F,))),
        (CALL.removesuffix("</tool_call>"), Reply("", "", (F,))),
        (f"{CALL}\n{CALL} and", Reply("and", "", (F, F))),
        (f"a \n{CALL}", Reply("a", "", (F,))),
        (f"a {CALL}\n", Reply("a", "", (F,))),
        # arguments of all kinds
        ('<tool_call>{"name": "f"}', Reply("", "", (ToolCall("f", "{}"),))),
        ('<tool_call>{"name": "f", "arguments": null}', Reply("", "", (ToolCall("f", "{}"),))),
        ('<tool_call>{"name": "f", "arguments": 12}', Reply("", "", (ToolCall("f", "12"),))),
        ('<tool_call>{"name": "f", "arguments": 12 }', Reply("", "", (ToolCall("f", "12"),))),
        ('<tool_call>{"name": "f", "arguments": "hm"}', Reply("", "", (ToolCall("f", '"hm"'),))),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}', Reply("", "", (F,))),
        ('<tool_call>{"arguments": {"a": 1}, "name": "f"}', Reply("", "", (F,))),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": \\"\\ud800\\"}"}', Reply("", "", (HALF,))),
        ('<tool_call>[{"name": "f", "arguments": {"a": 1}}, {"b": 2}]', Reply('{"b": 2}]', "", (F,))),
    ],
)  # fmt: skip
def test_what_is_a_call_and_what_only_looks_like_one(text: str, reply: Reply) -> None:
    assert whole(HERMES, text) == reply


@pytest.mark.clause("REPLY-05")
def test_a_call_is_streamed_as_it_is_written() -> None:
    parser = HERMES.parser("", True)
    steps: list[tuple[str, list[Part]]] = [
        ('Hi <tool_call>{"name": "f", ', [Content("Hi")]),
        ('"arguments": {"a', [CallBegins(0, "f"), CallArguments(0, "{"), CallArguments(0, '"'), CallArguments(0, "a")]),
        ("bc", [CallArguments(0, "bc")]),
    ]
    for text, parts in steps:
        assert parser.push(text) == parts


@pytest.mark.clause("REPLY-09")
@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ('{"name": "Bob", "age": 3}', Reply('{"name": "Bob", "age": 3}', "", ())),
        ('{"name": "Bob"}', Reply('{"name": "Bob"}', "", ())),
        ('So: {"name": "f", "parameters": {}}', Reply('So: {"name": "f", "parameters": {}}', "", ())),
        ('{"type": "function", "name": "f", "parameters": {"a": 1}}', Reply("", "", (F,))),
        ('{"name": "f", "parameters": {"a": 1}};', Reply("", "", (F,))),
        ('So: <|python_tag|>{"name": "f", "parameters": {"a": 1}}', Reply("So:", "", (F,))),
        ('<|python_tag|>f.call(a="1")', Reply('<|python_tag|>f.call(a="1")', "", ())),
        ("  plain", Reply("  plain", "", ())),
    ],
)
def test_bare_objects(text: str, reply: Reply) -> None:
    assert whole(LLAMA, text) == reply


@pytest.mark.clause("REPLY-09")
def test_an_answer_in_json_is_streamed_where_calls_are_bare() -> None:
    parser = LLAMA.parser("", True)
    assert parser.push('{"name": "Bob", "age"') == []
    assert parser.push(": 3") == [Content('{"name": "Bob", "age":'), Content(" 3")]


@pytest.mark.clause("REPLY-10", "REPLY-11")
@pytest.mark.parametrize(
    ("text", "prompt", "reply"),
    [
        ("Well <think>a</think>", "", Reply("Well <think>a</think>", "", ())),
        ("<think>a</think>b<think>c</think>", "", Reply("b<think>c</think>", "a", ())),
        (f"<think>a {CALL}</think>{CALL}", "", Reply("", f"a {CALL}", (F,))),
        ("<think>a b ", "", Reply("", "a b", ())),
        ("a</think>b", "<think>\n", Reply("b", "a", ())),
        ("<think>a</think>b", "<think>", Reply("b", "a", ())),
        ("a</think>b", "<think></think>\n\n", Reply("a</think>b", "", ())),
        ("</think>\n\nb\n", "<think>", Reply("b\n", "", ())),
    ],
)
def test_where_reasoning_stands(text: str, prompt: str, reply: Reply) -> None:
    assert whole(HERMES, text, prompt) == reply


@pytest.mark.clause("REPLY-11")
def test_tags_around_the_answer_are_dropped_where_both_may_stand() -> None:
    granite = find_formats(None, "none", "granite")
    assert whole(granite, "<think>a</think><response>b</response>") == Reply("b", "a", ())
    assert whole(granite, "<response>b</response>") == Reply("b", "", ())
    assert whole(granite, "<response>b\n</response>\n") == Reply("b", "", ())
    assert whole(granite, "a <response>b</response>") == Reply("a <response>b</response>", "", ())
    command = find_formats(None, "command-r", "command-r")
    assert whole(command, "<|START_TEXT|>b<|END_TEXT|>") == Reply("b", "", ())


@pytest.mark.clause("REPLY-02", "REPLY-12", "REPLY-15")
@pytest.mark.parametrize(
    ("text", "with_tools", "reply"),
    [
        ("plain <|chan", True, Reply("plain <|chan", "", ())),
        (" to=functions.f is plain", True, Reply(" to=functions.f is plain", "", ())),
        (" to=functions.f<|channel|>commentary json<|message|>{}", True, Reply("", "", (ToolCall("f", "{}"),))),
        ("<|channel|>commentary to=functions.f<|message|>", True, Reply("", "", (ToolCall("f", "{}"),))),
        ("<|channel|>commentary to=functions.f<|message|>a<|call|>", True, Reply("", "", (ToolCall("f", "a"),))),
        ("<|channel|>analysis to=functions.f<|message|>{}", True, Reply("", "", (ToolCall("f", "{}"),))),
        ("<|channel|>commentary to=functions.f<|message|>{}", False, Reply("{}", "", ())),
        ("<|channel|>commentary to=python<|message|>1+1", True, Reply("", "1+1", ())),
        ("<|channel|>commentary to=assistant<|channel|>final<|message|>a", True, Reply("a", "", ())),
        (f"{THOUGHT}a<|end|><|start|>assistant{THOUGHT}b", True, Reply("", "a\nb", ())),
        (f"{THOUGHT}a<|start|>assistant<|channel|>final<|message|>b ", True, Reply("b ", "a", ())),
        (f"{THOUGHT}a<|end|><|start|>assistant<|channel|>fin", True, Reply("", "a", ())),
        ("<|channel|>final<|end|>a", True, Reply("a", "", ())),
        (f"{CALLED}{{\"a\": 1<|channel|>final<|message|>b", True, Reply("b", "", (ToolCall("f", '{"a": 1'),))),
        (f"{ANSWER}a<|end|><|start|>assistant{ANSWER}  ", True, Reply("a", "", ())),
    ],
)  # fmt: skip
def test_messages_of_harmony(text: str, with_tools: bool, reply: Reply) -> None:
    assert whole(HARMONY, text, with_tools=with_tools) == reply


@pytest.mark.clause("REPLY-05", "REPLY-12")
def test_a_call_of_harmony_is_streamed_behind_white_space_too() -> None:
    parser = HARMONY.parser("", True)
    assert parser.push(CALLED + " ") == [CallBegins(0, "f")]
    assert "".join(part.text for part in parser.push('\n{"a') if isinstance(part, CallArguments)) == '{"a'


@pytest.mark.clause("REPLY-12")
def test_without_reasoning_all_messages_are_content() -> None:
    text = "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b"
    assert whole(find_formats(None, "harmony", "none"), text) == Reply("a\nb", "", ())


@pytest.mark.clause("REPLY-13")
def test_values_in_tags_have_the_types_of_the_schema() -> None:
    given = {"a": "01", "b": "1", "c": "1", "d": "NaN", "e": '\n"x"\n\n'}
    inner = "".join(f"<parameter={key}>{value}</parameter>" for key, value in given.items())
    text = f"<function=f>{inner}</function>"
    tool = Tool("f", {"properties": {"b": {"type": "string"}, "c": {"type": ["string", "integer"]}}})
    assert parsed(CODER.parser("", True, [tool]), [text]).tool_calls == (
        ToolCall("f", '{"a": "01", "b": "1", "c": 1, "d": "NaN", "e": "\\"x\\"\\n"}'),
    )
    assert parsed(CODER.parser("", True), [text]).tool_calls[0].arguments.startswith('{"a": "01", "b": 1')


@pytest.mark.clause("REPLY-05", "REPLY-13")
@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("<tool_call><function=f></function></tool_call>", Reply("", "", (ToolCall("f", "{}"),))),
        ("<tool_call><function=f>", Reply("", "", (ToolCall("f", "{"),))),
        ("<tool_call><function=f><parameter=a>1</parameter><parameter=b>2", Reply("", "", (ToolCall("f", '{"a": 1'),))),
        ("<tool_call><function=f>\n</function>\n</tool_", Reply("", "", (ToolCall("f", "{}"),))),
        ("<tool_call><function=>", Reply("<tool_call><function=>", "", ())),
        ("<tool_call><function", Reply("<tool_call><function", "", ())),
        (CALL, Reply("", "", (F,))),
    ],
)
def test_calls_in_tags_that_are_not_whole(text: str, reply: Reply) -> None:
    assert whole(CODER, text) == reply


@pytest.mark.clause("REPLY-15")
@pytest.mark.parametrize("tools", WRITERS)
@given(data=st.data())
def test_without_tools_a_call_is_content(tools: str, data: st.DataObject) -> None:
    answer = data.draw(written(tools, "none"))
    assert whole(find_formats(None, tools, "none"), answer.text, with_tools=False) == Reply(answer.text, "", ())


@pytest.mark.clause("REPLY-14")
@pytest.mark.parametrize(
    ("template", "tools", "reasoning"),
    [
        ("{{ messages[0].content }}", None, None),
        ("<tools>{{ tools }}</tools> <tool_call>\n{\"name\": ", "hermes", None),
        ("<tools> <tool_call> {{ '<think>\\n\\n</think>' }}", "hermes", "think"),
        ("<tool_call>\n<function=f>\n<parameter=p>\nvalue\n</parameter>", "qwen3-coder", None),
        ("<seed:tool_call>\n<function=f>\n<parameter=p> <seed:think>", "seed", "seed"),
        ("[TOOL_CALLS][{\"name\": ", "mistral-list", None),
        ("{{ '[TOOL_CALLS]' + name + '[ARGS]' + arguments }} [THINK]", "mistral", "mistral"),
        ("<|START_ACTION|>[{\"tool_name\": {{ name }} <|START_THINKING|>", "command-r", "command-r"),
        ("respond with <|tool_call|> <think></think> and <response></response>", "granite", "granite"),
        ("<TOOLCALL>[{{ calls }}]</TOOLCALL> <think>", "nemotron", "think"),
        ("<tool_calls>[{{ calls }}]</tool_calls>", "apriel", None),
        (" functools[{{ calls }}]", "firefunction", None),
        ("{{ '<function=' + name + '>' + arguments + '</function>' }} <|start_header_id|>", "functionary", None),
        ("<|start_header_id|> {{ '\"parameters\": ' }}", "llama3", None),
        ("<|start|>assistant<|channel|>analysis<|message|> to=functions.", "harmony", "harmony"),
        ("<tool_call>{{ name }}<arg_key>{{ key }}</arg_key> <think>", None, "think"),
        ('<tool_call> {"name" ]<]minimax[>[ <think>', None, "think"),
    ],
)  # fmt: skip
def test_a_template_tells_the_formats(template: str, tools: str | None, reasoning: str | None) -> None:
    formats = find_formats(template)
    assert (formats.tools and formats.tools.name) == tools
    assert (formats.reasoning and formats.reasoning.name) == reasoning
    assert find_formats(template, "none", "none") == ReplyFormats(None, None)
    if tools != "harmony":
        named = find_formats(template, "llama3", "think")
        assert named.tools and named.tools.name == "llama3" and named.reasoning and named.reasoning.name == "think"


@pytest.mark.clause("REPLY-14")
def test_unknown_names_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        InvalidParameter, match=r"tool_parser.*auto, none, harmony, seed, qwen3-coder, .*llama3, not 'x'"
    ):
        find_formats(None, "x")
    with pytest.raises(InvalidParameter, match=r"reasoning_parser.*think, not 'x'"):
        find_formats(None, "none", "x")
    with pytest.raises(InvalidParameter, match="tool_parser"):
        find_formats(None, "hermes", "harmony")
    with pytest.raises(InvalidParameter, match="reasoning_parser"):
        find_formats(None, "harmony", "think")


@pytest.mark.clause("REPLY-14")
def test_marks_are_the_tags_of_both() -> None:
    assert find_formats(None, "hermes", "think").marks == ("<think>", "</think>", "<tool_call>", "</tool_call>")
    assert find_formats(None, "none", "none").marks == ()
    assert "<|message|>" in HARMONY.marks and len(set(HARMONY.marks)) == len(HARMONY.marks)


@pytest.mark.clause("REPLY-01")
def test_parts_make_a_reply() -> None:
    parts = [
        Reasoning("a"),
        Content("b"),
        CallBegins(0, "f"),
        CallArguments(0, "{"),
        CallBegins(1, "g"),
        CallArguments(0, "}"),
    ]
    assert joined([*parts, Content("c")]) == Reply("bc", "a", (ToolCall("f", "{}"), ToolCall("g", "")))


@pytest.mark.clause("REPLY-04")
def test_white_space_before_a_call_is_kept_between_content_only() -> None:
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    for text, content in ((f"\n\n{call}\nb", "b"), (f"a\n\n{call}\nb", "a\n\nb"), (f"a\n\n{call}\n", "a")):
        parser = find_formats(None, "hermes", "none").parser("", True)
        assert joined([*parser.push(text), *parser.finish()]).content == content
