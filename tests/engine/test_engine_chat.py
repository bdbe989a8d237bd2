"""ENGINE-60 to ENGINE-64: the arguments of a chat beside its messages, and the kinds of content in a message."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import EngineConfig
from ferrum.engine.conversations import chat_options, chat_prompt
from ferrum.errors import FerrumError, InvalidParameter, ModelWarning, RequestValidation, TokenizerError, Unsupported
from ferrum.text import template_data
from ferrum.text.byte_tokenizer import ByteTokenizer
from ferrum.text.template_names import ChatTemplates
from tests.sample.test_sampling_any import OBJECTS
from tests.tiny import TinyModel, tiny_config, tiny_params

ONE = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
HI = [{"role": "user", "content": "Hi"}]
PLAIN = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content + '.' }}{% endfor %}{{ tools | tojson if tools }}"
    "{{ documents | tojson if documents }}{{ x }}{{ '<a>' if add_generation_prompt }}"
)
TOOL_USE = "T{{ messages[0].content }}{{ tools | length }}"
LISTED = "{% for m in messages %}{% for p in m.content %}[{{ p.type }}:{{ p.text }}]{% endfor %}{% endfor %}"


def llm_with(**templates: str) -> LLM:
    config = tiny_config(max_positions=256)
    model = TinyModel(config, tiny_params(config), ByteTokenizer(), ChatTemplates(templates, bos_token="<s>"))
    return LLM.from_loaded(model, NumpyOps("float32"), EngineConfig())


@pytest.fixture(scope="module")
def llm() -> LLM:
    return llm_with(default=PLAIN, tool_use=TOOL_USE, listed=LISTED)


def chat(llm: LLM, messages: Any = HI, **given: Any) -> str:
    """The prompt of a chat. Checks that all three calls make the same one."""
    (one,) = llm.chat(messages, ONE, **given)
    (each,) = llm.chat_each(messages, ONE, **given)
    with llm.stream_chat(messages, ONE, **given) as stream:
        for _ in stream:
            pass
        streamed = stream.completion()
    assert one.prompt_token_ids == each.prompt_token_ids == streamed.prompt_token_ids
    assert one.token_ids == each.token_ids == streamed.token_ids
    return llm.tokenizer.decode(list(one.prompt_token_ids))


@pytest.mark.clause("ENGINE-60")
@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ({}, "<user>Hi.<a>"),
        ({"tools": None, "documents": None, "chat_template": None, "chat_template_kwargs": None}, "<user>Hi.<a>"),
        ({"add_generation_prompt": False}, "<user>Hi."),
        ({"documents": [{"text": "d"}]}, '<user>Hi.[{"text": "d"}]<a>'),
        ({"documents": (MappingProxyType({"text": "d"}),)}, '<user>Hi.[{"text": "d"}]<a>'),
        ({"tools": [{"a": 1}]}, "THi1"),
        ({"tools": []}, "THi0"),
        ({"tools": [{"a": 1}], "chat_template": "default"}, '<user>Hi.[{"a": 1}]<a>'),
        ({"chat_template": "{{ bos_token }}{{ messages[0].role }}"}, "<s>user"),
        ({"chat_template": "tool_use", "tools": [{}, {}]}, "THi2"),
        ({"chat_template_kwargs": {"x": False}}, "<user>Hi.False<a>"),
        ({"chat_template_kwargs": MappingProxyType({"x": {"a": [None]}})}, "<user>Hi.{'a': [None]}<a>"),
        ({"chat_template": "{{ bos_token }}", "chat_template_kwargs": {"bos_token": "<B>"}}, "<B>"),
        ({"add_generation_prompt": False, "continue_final_message": True}, "<user>Hi"),
        (
            {
                "add_generation_prompt": False,
                "continue_final_message": "role",
                "chat_template": "{{ messages[0].role }}>{{ messages[0].content }}",
            },
            "user",
        ),
    ],
    ids=str,
)
def test_what_goes_to_the_template(llm: LLM, given: dict[str, Any], prompt: str) -> None:
    assert chat(llm, **given) == prompt


@pytest.mark.clause("ENGINE-60")
def test_it_holds_for_all_conversations(llm: LLM) -> None:
    answers = llm.chat([HI, [{"role": "user", "content": "Ho"}]], ONE, chat_template_kwargs={"x": 1})
    prompts = [llm.tokenizer.decode(list(answer.prompt_token_ids)) for answer in answers]
    assert prompts == ["<user>Hi.1<a>", "<user>Ho.1<a>"]


@pytest.mark.clause("ENGINE-60")
def test_a_chat_goes_on_with_an_answer(llm: LLM) -> None:
    begun = [*HI, {"role": "assistant", "content": "The answer is"}]
    prompt = chat(llm, begun, add_generation_prompt=False, continue_final_message=True)
    assert prompt == "<user>Hi.<assistant>The answer is"
    (raw,) = llm.generate([llm.tokenizer.encode(prompt, add_special_tokens=False)], ONE)
    (gone_on,) = llm.chat(begun, ONE, add_generation_prompt=False, continue_final_message=True)
    assert raw.token_ids == gone_on.token_ids


@pytest.mark.clause("ENGINE-61")
@pytest.mark.parametrize(
    ("given", "field", "says"),
    [
        ({"continue_final_message": True}, "continue_final_message", "set that to False"),
        ({"continue_final_message": "content"}, "continue_final_message", "set that to False"),
        ({"add_generation_prompt": 1}, "add_generation_prompt", "true or false, not 1"),
        ({"add_generation_prompt": None}, "add_generation_prompt", "not None"),
        ({"continue_final_message": 1, "add_generation_prompt": False}, "continue_final_message", "not 1"),
        ({"tools": {"type": "function"}}, "tools", "list of JSON objects"),
        ({"tools": ["f"]}, "tools", "'f' is none"),
        ({"tools": [print]}, "tools", "JSON schema"),
        ({"tools": "[]"}, "tools", "list of JSON objects"),
        ({"documents": ["text"]}, "documents", "'text' is none"),
        ({"chat_template": 5}, "chat_template", "not 5"),
        ({"chat_template": "nope"}, "chat_template", "no name"),
        ({"chat_template": "{% if %}"}, "chat_template", "malformed"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs", "mapping"),
        ({"chat_template_kwargs": {1: 2}}, "chat_template_kwargs", "texts for keys"),
        *(
            ({"chat_template_kwargs": {name: 1}}, "chat_template_kwargs", f"'{name}'")
            for name in (
                *("messages", "self", "tools", "documents", "add_generation_prompt", "continue_final_message"),
                *("chat_template", "tokenize"),
            )
        ),
    ],
    ids=str,
)
def test_what_cannot_be_names_its_parameter(llm: LLM, given: dict[str, Any], field: str, says: str) -> None:
    calls: list[Callable[..., Any]] = [llm.chat, llm.chat_each, llm.stream_chat]
    for call in calls:
        with pytest.raises(InvalidParameter, match=says) as refusal:
            call(HI, ONE, **given)
        assert refusal.value.field == field and str(refusal.value).isprintable()


@pytest.mark.clause("ENGINE-61")
def test_anything_in_the_place_of_anything(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_data, "MOST_VALUES", 5000)  # there is a list that would take long to copy
    fields = ["tools", "documents", "add_generation_prompt", "continue_final_message", "chat_template"]
    for field in [*fields, "chat_template_kwargs"]:
        for value in (value for value in OBJECTS if type(value) is not str or value.isascii()):
            for given in (value, [value], {"x": value}):
                try:
                    llm.chat_each(HI, ONE, **{field: given})
                except InvalidParameter as error:
                    assert error.field == field and len(str(error)) < 250
                except FerrumError:
                    pass  # a template that prints it all, for one


@pytest.mark.clause("ENGINE-61")
def test_a_model_without_a_template_needs_one() -> None:
    llm = llm_with()
    with pytest.raises(Unsupported, match="tiny has no chat template: use generate"):
        llm.chat(HI, ONE)
    assert chat(llm, chat_template="{{ messages[0].content }}") == "Hi"
    only = llm_with(rag="{{ messages[0].content }}", tool_use=TOOL_USE)
    with pytest.raises(TokenizerError, match="name one"):
        only.chat(HI, ONE)
    assert chat(only, chat_template="rag") == "Hi" and chat(only, tools=[{}]) == "THi1"


PARTS = [{"type": "text", "text": "What is"}, {"type": "input_text", "text": "it?"}]


@pytest.mark.clause("ENGINE-62")
@pytest.mark.parametrize(
    ("content", "joined", "listed"),
    [
        (PARTS, "What is\nit?", "[text:What is][text:it?]"),
        (tuple(PARTS), "What is\nit?", "[text:What is][text:it?]"),
        (["a", "b"], "a\nb", "[text:a][text:b]"),
        ([{"type": "refusal", "refusal": "no"}], "no", "[text:no]"),
        ([{"type": "output_text", "text": "a"}], "a", "[text:a]"),
        ([{"text": "a"}], "a", "[text:a]"),
        ([], "", ""),
    ],
)
def test_parts_are_joined_where_the_template_wants_a_text(llm: LLM, content: Any, joined: str, listed: str) -> None:
    messages = [{"role": "user", "content": content}]
    assert chat(llm, messages) == f"<user>{joined}.<a>"
    assert chat(llm, [*messages, *HI], chat_template="{{ messages[0].content ~ messages[1].content }}") == joined + "Hi"
    if listed:
        assert chat(llm, messages, chat_template="listed") == listed


@pytest.mark.clause("ENGINE-62")
@pytest.mark.parametrize(
    "content", [5, True, {"type": "text", "text": "a"}, [5], [{"type": "image_url"}], [{}], object, np.zeros(2)]
)
def test_contents_that_are_no_text_name_the_messages(llm: LLM, content: Any) -> None:
    for template in ("default", "listed", "{{ messages[0].role }}"):
        with pytest.raises(InvalidParameter, match=r"^messages ") as refusal:
            llm.chat([{"role": "user", "content": content}], ONE, chat_template=template)
        assert str(refusal.value).isprintable()


@pytest.mark.clause("ENGINE-63")
@pytest.mark.parametrize(
    ("message", "lacks"),
    [({"role": "user"}, "content"), ({"role": "user", "content": None}, "content"), ({"content": "a"}, "role")],
)
def test_a_template_that_needs_more_of_a_message_names_it(llm: LLM, message: Any, lacks: str) -> None:
    strict = "{% for m in messages %}{{ m.role + m.content }}{% endfor %}"
    with pytest.raises(InvalidParameter, match=rf"^messages are refused, and number 2 has no {lacks}: the chat temp"):
        llm.chat([*HI, message], ONE, chat_template=strict)
    lenient = "{% for m in messages %}[{{ m.role }}{{ m.content }}]{% endfor %}"
    assert chat(llm, [*HI, message], chat_template=lenient).startswith("[userHi][")


@pytest.mark.clause("ENGINE-63")
def test_a_template_that_refuses_whole_messages_says_why(llm: LLM) -> None:
    with pytest.raises(TokenizerError, match="roles must alternate"):
        llm.chat(HI, ONE, chat_template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InvalidParameter, match="messages must have text as role, not 5"):
        llm.chat([{"role": 5, "content": "a"}], ONE)
    with pytest.raises(RequestValidation, match="too long"):
        llm.chat([{"role": "user", "content": "x" * 5_000_000}], ONE)


@dataclass
class Answer:
    role: str
    content: str | None
    refusal: None = None


class Dumped:
    def __iter__(self) -> Any:  # as pydantic's models can be iterated, too
        return iter([("role", "user")])

    def model_dump(self) -> dict[str, Any]:
        return {"role": "user", "content": "Hi", "name": None}


@pytest.mark.clause("ENGINE-60")
def test_messages_as_client_libraries_have_them(llm: LLM) -> None:
    assert chat(llm, [Answer("user", "Hi")]) == chat(llm, [Dumped()]) == "<user>Hi.<a>"
    assert len(llm.chat([[Dumped()], [Dumped(), *HI]], ONE)) == 2
    assert chat(llm, [Dumped(), Answer("assistant", "b"), *HI]) == "<user>Hi.<assistant>b.<user>Hi.<a>"


@pytest.mark.clause("ENGINE-64")
@pytest.mark.parametrize(
    ("given", "unread"),
    [
        ({"tools": [{}], "chat_template": "{{ messages }}"}, "tools"),
        ({"documents": [{}], "chat_template": "{{ messages }}"}, "documents"),
        ({"chat_template_kwargs": {"enable_thinkin": False}}, "enable_thinkin"),
    ],
)
def test_what_no_template_reads_is_told(llm: LLM, given: dict[str, Any], unread: str) -> None:
    with pytest.warns(ModelWarning, match=f"template of tiny does not read '{unread}': what is given for it"):
        llm.chat_each(HI, ONE, **given)


@pytest.mark.clause("ENGINE-64")
def test_what_is_read_is_not_told(llm: LLM) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chat(llm, tools=[{}], documents=[], chat_template="default", chat_template_kwargs={"x": 1})
        chat(llm, tools=[], chat_template="{{ messages }}")


@pytest.mark.clause("LOAD-51")
@pytest.mark.parametrize("source", ["", "  \n"])
def test_an_empty_template_is_none(source: str) -> None:
    with pytest.warns(ModelWarning, match="chat template is empty"):
        assert not ChatTemplates({"default": source})


@pytest.mark.clause("ENGINE-64")
def test_a_template_that_does_not_read_the_messages_is_told() -> None:
    with pytest.warns(ModelWarning, match="does not read 'messages'"):
        chat_prompt(ChatTemplates({"default": "chatml"}), [{"role": "user", "content": "hi"}], chat_options())
