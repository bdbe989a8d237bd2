"""API-30 to API-33, API-12: tools that are offered, forced and called."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from ferrum.api.conversation import render
from ferrum.api.protocol.base import read
from ferrum.api.protocol.chat import ChatRequest
from ferrum.api.served import Served, formats_of
from ferrum.api.service import Service
from ferrum.api.stub import stub
from ferrum.replies.json_calls import HERMES
from tests.api.asking import TIME, WEATHER, Json, Parrot, asked, chat, chunks, refusal, whole

CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'
WITHOUT_TOOLS = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{{ add_generation_prompt }}"


def calls(body: Json) -> list[tuple[str, Any]]:
    """The calls of an answer, each with its arguments."""
    answer = asked(lambda service: whole(service, "chat", body))
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in choice["message"]["tool_calls"]
    ]


@pytest.mark.clause("API-30", "API-33")
@pytest.mark.parametrize("say", ["I would rather talk.", CALL, "<think>Hm", ""])
@pytest.mark.parametrize("seed", range(3))
def test_a_required_call_parses_and_its_arguments_are_valid(say: str, seed: int) -> None:
    body = chat(say, tools=[WEATHER, TIME], tool_choice="required", seed=seed, max_tokens=2000)
    found = calls(body)
    assert found
    for name, arguments in found:
        tool = next(tool for tool in (WEATHER, TIME) if tool["function"]["name"] == name)
        jsonschema.validate(arguments, tool["function"].get("parameters", {}))
    if say == CALL:
        assert found == [("get_weather", {"city": "Rome"})]


@pytest.mark.clause("API-30", "API-33")
def test_a_named_tool_is_called_once() -> None:
    named = {"type": "function", "function": {"name": "get_time"}}
    twice = '<tool_call>{"name": "get_time", "arguments": {}}</tool_call>\n' * 2
    for say in (CALL, twice):
        body = chat(say, tools=[WEATHER, TIME], tool_choice=named, max_tokens=2000)
        assert [name for name, _ in calls(body)] == ["get_time"]
    wrong = {"type": "function", "function": {"name": "get_date"}}
    assert refusal("chat", chat("", tools=[WEATHER], tool_choice=wrong)).param == "tool_choice"
    assert refusal("chat", chat("", tools=[WEATHER, WEATHER])).param == "tools"


@pytest.mark.clause("API-33")
def test_a_call_that_was_cut_off_is_not_one_to_carry_out() -> None:
    answer = asked(lambda service: whole(service, "chat", chat(CALL, tools=[WEATHER], max_tokens=len(CALL) - 20)))
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "get_weather"


@pytest.mark.clause("API-33")
@pytest.mark.parametrize(("say", "content"), [(CALL, None), (f"Wait. {CALL}", "Wait."), ("", "")])
def test_the_content_of_an_answer_that_is_only_calls_is_null(say: str, content: str | None) -> None:
    (choice,) = asked(lambda service: whole(service, "chat", chat(say, tools=[WEATHER])))["choices"]
    assert choice["message"]["content"] == content
    assert choice["finish_reason"] == ("tool_calls" if CALL in say else "stop")


@pytest.mark.clause("API-30")
def test_without_tools_or_with_none_what_looks_like_a_call_is_content() -> None:
    for more in ({}, {"tools": []}, {"tools": None}, {"tools": [WEATHER], "tool_choice": "none"}):
        answer = asked(lambda service, more=more: whole(service, "chat", chat(CALL, **more)))
        (choice,) = answer["choices"]
        assert choice["message"]["content"] == CALL
        assert choice["finish_reason"] == "stop"


@pytest.mark.clause("API-31")
@pytest.mark.parametrize(("parallel", "count"), [(None, 3), (True, 3), (False, 1)])
def test_calls_after_the_first_are_dropped_where_one_was_asked_for(parallel: bool | None, count: int) -> None:
    body = chat(f"{CALL}\n{CALL}\n{CALL}", tools=[WEATHER], parallel_tool_calls=parallel)
    assert len(calls(body)) == count
    parts = asked(lambda service: chunks(service, "chat", body))
    begun = [call for part in parts for call in part["choices"][0]["delta"].get("tool_calls", []) if "id" in call]
    assert len(begun) == count


def rendered(messages: list[Json], template: str, tools: list[Json]) -> str:
    """The prompt of a conversation, through a template."""
    served: Served = stub(Parrot((), "", template=template))
    try:
        body = read(ChatRequest, {"messages": messages, "tools": tools})
        return render(served, body.messages, body.tools or ())
    finally:
        served.thread.close()


CONVERSATION: list[Json] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "The weather in Rome?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": "sunny"},
]


@pytest.mark.clause("API-32")
def test_a_template_without_tools_is_told_of_them_as_text() -> None:
    prompt = rendered(CONVERSATION, WITHOUT_TOOLS, [WEATHER])
    system, rest = prompt.split("[user] ", 1)
    assert system.startswith("[system] Be brief.")
    assert json.dumps(WEATHER["function"]["description"]) in system
    assert '{"name": "get_weather", "arguments": {"city": "Rome"}}' in rest
    assert "<tool_response>\nsunny\n</tool_response>" in rest
    assert "[system]" not in rendered(CONVERSATION[1:2], WITHOUT_TOOLS, [])
    parts = [{"type": "text", "text": "Be brief."}]
    assert rendered([{**CONVERSATION[0], "content": parts}, *CONVERSATION[1:]], WITHOUT_TOOLS, [WEATHER]) == prompt


@pytest.mark.clause("API-32")
def test_a_model_whose_template_has_no_tools_can_call() -> None:
    assert formats_of(WITHOUT_TOOLS, "auto", "auto").tools is HERMES
    assert formats_of(WITHOUT_TOOLS, "none", "auto").tools is None

    def made() -> Service:
        return Service(stub(Parrot((), "", template=WITHOUT_TOOLS)))

    answer = asked(lambda service: whole(service, "chat", chat(CALL, tools=[WEATHER])), made)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "get_weather"


@pytest.mark.clause("API-12")
def test_a_template_gets_arguments_as_objects_and_roles_that_it_knows() -> None:
    own = "{% for m in messages %}{{ m.role }}:"
    own += "{% for c in m.tool_calls or [] %}{{ c.function.arguments.city }}{% endfor %};"
    prompt = rendered(CONVERSATION, own + "{% endfor %}{{ tools | length }}", [WEATHER])
    assert prompt == "system:;user:;assistant:Rome;tool:;1"
    assert rendered(CONVERSATION[:2], own + "{% endfor %}{# developer #}", []).startswith("developer:;")
    bad = [{**CONVERSATION[2], "tool_calls": [{"function": {"name": "f", "arguments": "[1"}}]}]
    assert refusal("chat", {"messages": [*CONVERSATION[:2], *bad]}).param == "messages"
