"""TEXT-70 to TEXT-75: what templates get to see, what they take, and messages that are gone on with."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import InvalidParameter, RequestValidation, TokenizerError
from ferrum.text import template_data, template_limits
from ferrum.text.chat import ChatTemplate
from ferrum.text.template_content import text_parts
from ferrum.text.template_data import Copier, as_chat

SEEN = "{% for m in messages %}{{ m | tojson }}{% endfor %}"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Role(StrEnum):
    USER = "user"


@dataclass
class Call:
    name: str
    arguments: dict[str, Any]


class Dumped:
    """A message as client libraries have it."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def model_dump(self) -> dict[str, Any]:
        return self.fields


class Endless:
    def model_dump(self) -> Any:
        return self


class Broken:
    @property
    def model_dump(self) -> Any:
        raise OSError("no")


def seen(*messages: Any, source: str = SEEN, **given: Any) -> str:
    return ChatTemplate(source).render(messages, **given)


@pytest.mark.clause("TEXT-70")
@pytest.mark.parametrize(
    ("message", "plain"),
    [
        ({"role": "user", "content": None}, {"role": "user"}),
        ({"role": "user", "name": None, "content": "a", "tool_calls": None}, {"role": "user", "content": "a"}),
        ({"content": [{"type": "text", "text": None}]}, {"content": [{"type": "text", "text": None}]}),
        ({"role": Role.USER, "content": np.str_("a")}, {"role": "user", "content": "a"}),
        ({"n": np.int64(3), "f": np.float32(0.5), "b": np.bool_(False)}, {"n": 3, "f": 0.5, "b": False}),
        (MappingProxyType({"a": MappingProxyType({"b": (1, 2)})}), {"a": {"b": [1, 2]}}),
        (Dumped(content=None, call=Call("f", {"x": 1})), {"call": {"name": "f", "arguments": {"x": 1}}}),
        (Call("f", {}), {"name": "f", "arguments": {}}),
        ({"image": np.zeros(3), "set": {1}, "bytes": b"a"}, {"image": "<ndarray>", "set": "<set>", "bytes": "<bytes>"}),
    ],
)  # fmt: skip
def test_messages_are_plain_and_without_nulls(message: Any, plain: dict[str, Any]) -> None:
    assert json.loads(seen(message)) == plain


@pytest.mark.clause("TEXT-70")
@given(st.dictionaries(st.text(), JSON))
def test_copies_are_equal_and_separate(message: dict[str, Any]) -> None:
    copied = Copier("messages")(message)
    assert copied == message
    assert copied is not message
    (chat,) = as_chat([{key: value for key, value in message.items() if key not in template_data.REASONING}])
    assert None not in chat.values() and chat.items() <= message.items()


def circle() -> dict[str, Any]:
    message: dict[str, Any] = {"role": "user"}
    message["content"] = [message]
    return message


def doubled() -> list[Any]:
    value: list[Any] = []
    for _ in range(40):
        value = [value, value]
    return value


@pytest.mark.clause("TEXT-70")
@pytest.mark.parametrize(
    "message",
    [
        5,
        "a",
        None,
        b"a",
        [("role", "user")],
        object(),
        Endless(),
        Broken(),
        circle(),
        {"content": doubled()},
        {b"a": 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_message_is_named(message: Any) -> None:
    with pytest.raises(InvalidParameter, match=r"^messages must be ") as refusal:
        seen(message)
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 250


@pytest.mark.clause("TEXT-71")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"reasoning": "r"}, {"thinking": "r", "reasoning": "r", "reasoning_content": "r"}),
        ({"thinking": "t"}, {"thinking": "t", "reasoning_content": "t"}),
        ({"reasoning_content": "c"}, {"thinking": "c", "reasoning_content": "c"}),
        ({"thinking": "t", "reasoning": "r"}, {"thinking": "t", "reasoning": "r", "reasoning_content": "t"}),
        ({"reasoning_content": "c", "thinking": "t"}, {"thinking": "t", "reasoning_content": "c"}),
        ({"reasoning_content": None, "reasoning": "r"}, {"thinking": "r", "reasoning": "r", "reasoning_content": "r"}),
        ({"thinking": "", "reasoning": "r"}, {"thinking": "", "reasoning": "r", "reasoning_content": ""}),
        ({"content": "a"}, {"content": "a"}),
    ],
)
def test_reasoning_is_found_under_any_name(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert seen(given) == json.dumps(expected)  # in this order, which `tojson` and `items` show


@pytest.mark.clause("TEXT-70")
@pytest.mark.parametrize("field", ["tools", "documents"])
@pytest.mark.parametrize("value", [5, "a", {}, {"a": 1}, [5], ["a"], [None], [print], [[]], [{"a": circle()}]])
def test_tools_and_documents_are_objects(field: str, value: Any) -> None:
    with pytest.raises(InvalidParameter, match=rf"^{field} must be "):
        seen({"role": "user"}, **{field: value})
    shown = seen({"role": "user"}, source="{{ " + field + " | tojson }}", **{field: ({"a": MappingProxyType({})},)})
    assert shown == '[{"a": {}}]'


@pytest.mark.clause("TEXT-70")
def test_variables_are_plain() -> None:
    assert seen(source="{{ x }}{{ y.a }}", x=np.float32(0.5), y=Dumped(a=1)) == "0.51"
    with pytest.raises(InvalidParameter, match="chat_template_kwargs must be plain data"):
        seen(source="", x=circle())


SQUARE = "{% for m in messages %}{% for n in messages %}{% endfor %}{% endfor %}ok"


@pytest.mark.clause("TEXT-72")
@pytest.mark.parametrize(
    ("each", "count", "length", "source", "seconds"),
    [
        (0.0006, 300, 500, SQUARE, None),  # the clock advances by so much with some hundred steps
        (0.0006, 1, 1, "{% for i in range(90000) %}{% endfor %}", "0.5"),
        (0.01, 1, 4_000_000, "{% for i in range(90000) %}{% endfor %}", "10.0"),
    ],
)
def test_time_goes_by_what_is_given(
    monkeypatch: pytest.MonkeyPatch, each: float, count: int, length: int, source: str, seconds: str | None
) -> None:
    looks = itertools.count()
    monkeypatch.setattr(template_limits, "clock", lambda: next(looks) * each)
    messages = [{"role": "user", "content": "x" * length}] * count
    if seconds is None:
        assert seen(*messages, source=source) == "ok"
        assert 0.5 < next(looks) * each < 2
    else:
        with pytest.raises(TokenizerError, match=f"takes more than {seconds} seconds"):
            seen(*messages, source=source)


@pytest.mark.clause("TEXT-72")
def test_sizes_go_by_what_is_given() -> None:
    many = [{"role": "user", "content": "short"}] * 20_000  # as values, more than four million characters
    assert seen(*many, source="{{ messages[1:] | length }}") == "19999"


@pytest.mark.clause("TEXT-72")
@pytest.mark.parametrize(
    "source", ["{{ messages[0].content | trim }}", SEEN, "{{ messages | length ~ messages }}", "{{ 1 // 0 }}"]
)
def test_a_conversation_that_no_prompt_can_hold_is_called_too_long(source: str) -> None:
    with pytest.raises(RequestValidation, match=r"conversation is too long: it has 42000\d\d characters, .* 4194304"):
        seen({"role": "user", "content": "x" * 4_200_000}, source=source)


TAKEN = [
    "{% for p in messages[0].content %}{{ p.text }}{% endfor %}",
    "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{% for p in m.get('content') %}{{ p['text'] }}{% endfor %}{% endfor %}",
    "{% set c = messages[0].content %}{% if c is not string %}{% for p in c %}{{ p.text }}{% endfor %}{% endif %}",
    "{% macro f(content) %}{% for p in content %}{{ p.text }}{% endfor %}{% endmacro %}{{ f(messages[0].content) }}",
    "{% macro f(a, b) %}{% for p in b %}{{ p.text }}{% endfor %}{% endmacro %}{{ f(1, messages[0].content) }}",
    "{% macro g(x) %}{% for p in x %}{{ p.text }}{% endfor %}{% endmacro %}{% macro f(y) %}{{ g(y) }}{% endmacro %}"
    "{{ f(messages[0].content) }}",
    "{{ messages[0].content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join }}",
    "{% for p in messages[0].content | selectattr('text') %}{{ p.text }}{% endfor %}",
    "{{ messages[0]['content'][0]['text'] ~ messages[0].content[1].text }}",
    "{% for p in messages[0].content if p.type == 'text' %}{{ p.text }}{% endfor %}",
    "{% for p in messages[0].content[:5] or [] %}{{ p.text }}{% endfor %}",
]
NOT_TAKEN = [
    "{{ messages[0].content }}",
    "{% for m in messages %}{{ m.role + m.content }}{% endfor %}",
    "{% for x in messages[0].content.split('b') %}{{ x }}{% endfor %}{{ messages[0].content.split('a')[0] }}",
    "{% for m in messages %}{% if m.content[0] == ' ' %}{{ m.content[1:] }}{% endif %}{% endfor %}",
    "{% for m in messages %}{% for c in m.tool_calls %}{{ c.name }}{% endfor %}{{ m.content | trim }}{% endfor %}",
    "{% for d in documents %}{{ d.text }}{% endfor %}{{ messages | map(attribute='content') | join }}",
    "{% set x = messages[0].content | length %}{% for i in range(x) %}{{ i }}{% endfor %}",
]  # fmt: skip


@pytest.mark.clause("TEXT-73")
def test_templates_that_walk_through_parts_are_known_by_their_source() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    for source in TAKEN:
        template = ChatTemplate(source)
        assert template.takes_parts and template.render([{"role": "user", "content": parts}]) == "ab", source
    for source in NOT_TAKEN:
        assert not ChatTemplate(source).takes_parts, source


@pytest.mark.clause("TEXT-73")
@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (None, None),
        ("a", None),
        ([], []),
        (["a", {"type": "text", "text": "b"}], ["a", "b"]),
        ([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": ""}, {"text": "c"}], ["a", "", "c"]),
        (({"type": "refusal", "refusal": "no"},), ["no"]),
    ],
)
def test_the_texts_of_parts(content: Any, texts: list[str] | None) -> None:
    assert text_parts(content) == texts


@pytest.mark.clause("TEXT-73")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        *((5, "not 5"), (True, "not True"), ({"a": 1}, "not {'a': 1}"), ([5], "not 5"), ([[]], r"not \[\]")),
        ([{"type": "image_url", "image_url": {"url": "a"}}], "'image_url'"),
        ([{"type": "text", "text": "a"}, {"type": "input_audio"}], "'input_audio'"),
        ([{"type": ["text"], "text": "a"}], "only text"),
        ([{"type": "text"}], "text is None"),
        ([{"type": "text", "text": 5}], "text is 5"),
        ([{"type": "refusal", "text": "a"}], "refusal is None"),
        ([{}], "type None"),
    ],
)
def test_other_parts_are_refused_by_name(content: Any, says: str) -> None:
    with pytest.raises(InvalidParameter, match=rf"^messages .*{says}"):
        text_parts(content)


@pytest.mark.clause("TEXT-74")
def test_the_variables_that_a_template_reads() -> None:
    template = ChatTemplate("{% if tools is defined and think %}{{ messages.documents }}{% endif %}{% set own = 1 %}")
    assert {name for name in ("tools", "think", "documents", "own", "messages", "x") if template.reads(name)} == {
        *("tools", "think", "messages")
    }


CHATML = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n{% endfor %}{{ '<a>' if add_generation_prompt }}"
TRIMMED = CHATML.replace("m.content", "m.content | trim")


@pytest.mark.clause("TEXT-75")
@pytest.mark.parametrize(
    ("source", "content", "text"),
    [
        (CHATML, "The answer is", "<user>q<end>\n<assistant>The answer is"),
        (CHATML, "The answer is \n", "<user>q<end>\n<assistant>The answer is \n"),
        (TRIMMED, " The answer is \n", "<user>q<end>\n<assistant>The answer is"),
        (CHATML, "", "<user>q<end>\n<assistant>"),
        (TAKEN[1], [{"type": "text", "text": "a"}, {"type": "text", "text": "b "}], "ab "),
        (TAKEN[1], [{"type": "text", "text": "a"}, {"type": "image"}], "a"),
        (CHATML.replace("<end>", "<end>{{ m.content }}"), "x", "<user>q<end>q\n<assistant>x<end>x"),
    ],
)
def test_a_final_message_is_gone_on_with(source: str, content: Any, text: str) -> None:
    question = [] if source == TAKEN[1] else [{"role": "user", "content": "q"}]
    messages = [*question, {"role": "assistant", "content": content}]
    given = {"add_generation_prompt": False, "continue_final_message": True}
    assert seen(*messages, source=source, **given) == text
    assert messages[-1]["content"] == content


@pytest.mark.clause("TEXT-75")
def test_a_reasoning_is_gone_on_with_under_any_name() -> None:
    message = {"role": "assistant", "reasoning": "so", "content": "a"}
    for name in ("reasoning_content", "thinking", "reasoning"):
        for read in ("reasoning_content", "thinking"):
            source = "<think>{{ messages[0]." + read + " }}</think>{{ messages[0].content }}"
            assert seen(message, source=source, continue_final_message=name) == "<think>so"
    message |= {"thinking": "hm"}  # another one
    source = "<{{ messages[0].reasoning_content }}><{{ messages[0].thinking }}>{{ messages[0].reasoning }}"
    assert seen(message, source=source, continue_final_message="thinking") == "<hm><hm"


@pytest.mark.clause("TEXT-75")
@pytest.mark.parametrize(
    ("message", "source", "says"),
    [
        ({"role": "assistant"}, CHATML, "has no content"),
        ({"role": "assistant", "content": None}, CHATML, "has no content"),
        ({"role": "assistant", "content": 5}, CHATML, "has no content"),
        ({"role": "assistant", "content": []}, CHATML, "has no content with a text"),
        ({"role": "assistant", "content": [{"type": "image"}]}, CHATML, "has no content with a text"),
        ({"role": "assistant", "content": "a"}, "{{ messages[0].role }}", "does not look at the content"),
        ({"role": "assistant", "content": "a"}, "{# content #}b", "leaves out the final message"),
        ({"role": "assistant", "content": "abc"}, "{{ messages[0].content[:2] }}", "leaves out the final message"),
        ({"role": "assistant", "content": "abc"}, "{{ messages[0].content | upper }}", "leaves out the final message"),
    ],
)
def test_a_message_that_cannot_be_gone_on_with(message: Any, source: str, says: str) -> None:
    with pytest.raises(InvalidParameter, match=rf"^continue_final_message is set, but .*{says}"):
        seen(message, source=source, continue_final_message=True)


@pytest.mark.clause("TEXT-75")
def test_nothing_can_be_gone_on_with_in_an_empty_conversation() -> None:
    with pytest.raises(InvalidParameter, match="no final message"):
        seen(continue_final_message=True)


@pytest.mark.clause("TEXT-17")
@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ 1e400 | tojson }}", "Infinity"),
        ("{{ -1e400 }}", "-inf"),
        ("{{ [1e400, {'a': 1e999}] | tojson }}", '[Infinity, {"a": Infinity}]'),
        ("{{ 1e400 > 5 }}{{ 1e308 }}", "True1e+308"),
    ],
)
def test_numbers_beyond_all_numbers(source: str, text: str) -> None:
    assert seen(source=source) == text


@pytest.mark.clause("TEXT-23")
@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ namespace }}", "the class namespace into text"),
        ("{{ dict }}", "a dict function into text"),
        ("{{ [dict] }}", "a dict function into text"),
        ("{{ dict.nothing + 1 }}", "'dict function object' has no attribute 'nothing'"),
        ("{{ ([1] | map('string')) | tojson }}", "it turns a generator into text, which has none"),
    ],
)
def test_errors_call_things_as_templates_do(source: str, says: str) -> None:
    with pytest.raises(TokenizerError, match=says):
        seen(source=source)


@pytest.mark.clause("TEXT-17")
@pytest.mark.parametrize("name", ["items", "keys", "get", "values", "update", "pop", "role", "copy_"])
def test_attributes_of_messages_are_methods_before_keys(name: str) -> None:
    """As Jinja finds them: a key with the name of a method is found in brackets only."""
    message = {"role": "user", name: "key"}
    is_method = hasattr(dict, name)
    assert seen(message, source="{{ messages[0]." + name + " is string }}") == str(not is_method)
    assert seen(message, source="{{ messages[0]['" + name + "'] }}") == "key"


@pytest.mark.clause("TEXT-75")
@pytest.mark.parametrize(
    "said", ["THE_FINAL_MESSAGE_ENDS_HERE", "a THE_FINAL_MESSAGE_ENDS_HERE b THE_FINAL_MESSAGE_ENDS_HERE_1"]
)
def test_no_words_of_a_message_are_taken_for_the_mark(said: str) -> None:
    said = said.format("THE_FINAL_MESSAGE_ENDS_HERE")
    chat = [{"role": "user", "content": said}, {"role": "assistant", "content": f"{said} x"}]
    template = ChatTemplate("{% for m in messages %}<{{ m.content }}>{% endfor %}")
    assert template.render(chat, False, continue_final_message=True) == f"<{said}><{said} x"


@pytest.mark.clause("TEXT-19")
def test_half_of_a_character_is_no_template() -> None:
    with pytest.raises(TokenizerError, match="half of a surrogate pair"):
        ChatTemplate("a\ud800")
