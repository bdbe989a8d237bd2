"""API-01 to API-04, API-08, API-10, API-12, API-13: refused requests, and their errors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ferrum.api.errors import ApiError, as_api_error
from ferrum.api.protocol.base import UNSUPPORTED, read
from ferrum.api.protocol.chat import ChatRequest
from ferrum.api.protocol.completion import CompletionRequest
from ferrum.api.protocol.embedding import EmbeddingRequest
from ferrum.api.protocol.responses import ResponsesRequest
from ferrum.api.sampling import sampling_params
from ferrum.api.service import Service
from ferrum.api.stub import stub
from ferrum.config import EngineConfig
from ferrum.errors import (
    BackendError,
    Cancelled,
    InvalidParameter,
    NotFound,
    RequestValidation,
    ResourceExhausted,
    Timeout,
    Unsupported,
)
from ferrum.sampling_params import NUMBERS
from tests.api.asking import WEATHER, Json, Parrot, asked, chat, parrot, refusal, whole
from tests.sample.declared import examples

MESSAGES = [{"role": "user", "content": "Hi"}]
BODIES: list[tuple[Any, Json]] = [
    (ChatRequest, {"messages": MESSAGES}),
    (CompletionRequest, {"prompt": "Hi"}),
    (EmbeddingRequest, {"input": "Hi"}),
    (ResponsesRequest, {"input": "Hi"}),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)


@pytest.mark.clause("API-01")
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{}]}, "messages[0].role"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "Hi", "colour": 1}]}, "messages[0].colour"),
        ({"messages": MESSAGES, "temprature": 1}, "temprature"),
        ({"messages": MESSAGES, "n": "1"}, "n"),
        ({"messages": MESSAGES, "n": True}, "n"),
        ({"messages": MESSAGES, "n": 1.5}, "n"),
        ({"messages": MESSAGES, "max_tokens": 0}, "max_tokens"),
        ({"messages": MESSAGES, "stop": ["a", 1]}, "stop[1]"),
        ({"messages": MESSAGES, "top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"messages": MESSAGES, "tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"messages": MESSAGES, "response_format": {"type": "sound"}}, "response_format.type"),
    ],
)
def test_what_is_wrong_in_a_body_is_named_by_its_place(body: Json, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(ChatRequest, body)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert caught.value.message.startswith(param)
    assert "pydantic" not in caught.value.message


@pytest.mark.clause("API-01", "API-02")
@given(field=st.text(max_size=8), value=JSON, kind=st.sampled_from(BODIES))
def test_no_field_is_passed_over(field: str, value: Any, kind: tuple[Any, Json]) -> None:
    model, body = kind
    if field not in model.model_fields:
        with pytest.raises(ApiError) as caught:
            read(model, {**body, field: value})
        assert caught.value.code == "unknown_parameter"


@pytest.mark.clause("API-01")
@given(value=JSON)
def test_any_json_is_a_body_or_refused(value: Any) -> None:
    for model, body in BODIES:
        for given_body in (value, {**body, next(iter(body)): value}):
            try:
                assert isinstance(read(model, given_body), model)
            except ApiError as error:
                assert error.status == 400


@pytest.mark.clause("API-01")
@pytest.mark.parametrize(
    "body",
    [
        {"messages": [1] * 10},
        {"messages": [{"role": "user", "content": [{}] * 10}]},
        {"messages": MESSAGES, "tools": [0] * 10},
        {"messages": MESSAGES, "stop_token_ids": ["x"] * 10},
    ],
)
def test_of_a_list_of_mistakes_the_first_is_told(body: Json) -> None:
    """A list of all mistakes would take time and memory, and would not be read."""
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate(body)
    assert caught.value.error_count() <= 3


@pytest.mark.clause("API-01")
@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"messages": []}, "messages must have at least 1 item, not []"),
        ({"messages": MESSAGES, "n": 0}, "n must be greater than or equal to 1, not 0"),
        ({"messages": MESSAGES, "n": "1"}, "n must be a whole number, not '1'"),
        ({"messages": MESSAGES, "store": True}, "store can only be false: this server keeps nothing"),
        (
            {"messages": MESSAGES, "response_format": {"type": "json_schema", "json_schema": {"name": ""}}},
            "response_format.json_schema.name must have at least 1 character, not ''",
        ),
    ],
)
def test_a_mistake_is_told_in_one_sentence(body: Json, told: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(ChatRequest, body)
    assert caught.value.message == told


@pytest.mark.clause("API-02")
@pytest.mark.parametrize(("model", "body"), BODIES)
def test_fields_that_are_not_supported_take_null_and_refuse_the_rest_by_name(model: Any, body: Json) -> None:
    for name, field in model.model_fields.items():
        if UNSUPPORTED in (field.json_schema_extra or {}):
            assert read(model, {**body, name: None})
            with pytest.raises(ApiError) as caught:
                read(model, {**body, name: {"some": "thing"}})
            assert caught.value.code == "unsupported_parameter"
            assert caught.value.param == name
    for field in ("audio", "function_call"):
        with pytest.raises(ApiError) as caught:
            read(ChatRequest, {"messages": [{**MESSAGES[0], field: {}}]})
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", f"messages[0].{field}")


@pytest.mark.clause("API-02")
def test_values_that_change_nothing_are_accepted() -> None:
    body = {"store": False, "service_tier": "auto", "modalities": ["text"], "user": "x", "metadata": {"a": "b"}}
    assert read(ChatRequest, {"messages": MESSAGES, **body})
    for value in (True, 0, 0.0):
        assert refusal("chat", {"messages": MESSAGES, "store": value}).param == "store"
    for value in (True, 2, 1.0):
        assert refusal("completion", {"prompt": "x", "best_of": value}).param == "best_of"
    assert read(CompletionRequest, {"prompt": "x", "best_of": 1})


@pytest.mark.clause("API-03")
@pytest.mark.parametrize(
    ("error", "status", "param"),
    [
        (InvalidParameter("top_p", "must be above 0"), 400, "top_p"),
        (RequestValidation("too long"), 400, None),
        (Unsupported("no such thing"), 400, None),
        (NotFound("no such model"), 404, None),
        (Timeout("too late"), 408, None),
        (TimeoutError(), 408, None),
        (ResourceExhausted("the queue is full"), 429, None),
        (Cancelled("closed"), 503, None),
        (BackendError("the device is gone"), 500, None),
        (ZeroDivisionError("secret"), 500, None),
        (RecursionError(), 400, None),
    ],
)
def test_every_error_has_a_status(error: Exception, status: int, param: str | None) -> None:
    found = as_api_error(error)
    assert (found.status, found.param) == (status, param)
    assert set(found.body()["error"]) == {"message", "type", "param", "code"}
    assert found.message
    assert "secret" not in found.message


@pytest.mark.clause("API-04")
@pytest.mark.parametrize("field", NUMBERS)
def test_numbers_out_of_range_are_refused_in_the_words_of_python(field: str) -> None:
    error = refusal("chat", {"messages": MESSAGES, field: -1000})
    assert (error.status, error.param) == (400, field)


@pytest.mark.clause("API-04")
def test_fields_become_parameters_of_the_same_name() -> None:
    values = {
        **{name: examples(name)[0] for name in NUMBERS if name != "max_tokens"},
        "seed": 0, "stop_token_ids": [3], "ignore_eos": True,
        "include_stop_str_in_output": True, "skip_special_tokens": False, "logprobs_mode": "processed_logprobs",
        "speculate": "ngram:5",
    }  # fmt: skip
    params = sampling_params(read(ChatRequest, {"messages": MESSAGES, **values, "stop": "x", "logit_bias": {"5": 1.5}}))
    found = {name: getattr(params, name) for name in values}
    assert {name: [*value] if isinstance(value, tuple) else value for name, value in found.items()} == values
    assert (params.stop, params.logit_bias) == (("x",), {5: 1.5})
    assert refusal("chat", {"messages": MESSAGES, "logit_bias": {"foo": 1}}).param == "logit_bias"


@pytest.mark.clause("API-08")
@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_a_prompt_that_is_too_long_says_both_numbers(kind: str) -> None:
    body = {"prompt": "x" * 200} if kind == "completion" else {"messages": [{"role": "user", "content": "x" * 200}]}
    error = refusal(kind, body, lambda: parrot(EngineConfig(max_model_len=100)))
    assert (error.status, error.code) == (400, "context_length_exceeded")
    told = error.body()["error"]
    assert (told["n_ctx"], told["param"]) == (100, "prompt" if kind == "completion" else "messages")
    assert told["n_prompt_tokens"] >= 200
    assert str(told["n_prompt_tokens"]) in error.message
    if kind == "completion":
        error = refusal(kind, {"prompt": "x" * 100}, lambda: parrot(EngineConfig(max_model_len=100)))
        assert error.code == "context_length_exceeded"  # there is no room for a single token


@pytest.mark.clause("API-10")
def test_an_answer_has_one_form_at_most() -> None:
    both = {"response_format": {"type": "json_object"}, "structured_outputs": {"choice": ["a"]}}
    assert refusal("chat", {"messages": MESSAGES, **both}).code == "conflict"
    forced = {"tools": [WEATHER], "tool_choice": "required", "response_format": {"type": "json_object"}}
    assert refusal("chat", {"messages": MESSAGES, **forced}).code == "conflict"


@pytest.mark.clause("API-10", "API-03")
def test_a_form_that_cannot_be_kept_to_is_told_of_the_field_that_asks_for_it() -> None:
    hiccup = {"type": "object", "properties": {"a": {"type": "hiccup"}}}
    form = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": hiccup}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": hiccup}}
    own = {"structured_outputs": {"json": hiccup}}
    cases: list[tuple[str, Json, str]] = [
        ("chat", {"messages": MESSAGES, **form}, "response_format"),
        ("chat", {"messages": MESSAGES, **own}, "structured_outputs"),
        ("chat", {"messages": MESSAGES, "tools": [tool], "tool_choice": "required"}, "tools"),
        (
            "chat",
            {"messages": MESSAGES, "tools": [tool], "tool_choice": "required", "response_format": {"type": "text"}},
            "tools",
        ),
        ("completion", {"prompt": "Hi", **form}, "response_format"),
        ("completion", {"prompt": "Hi", **own}, "structured_outputs"),
        ("response", {"input": "Hi", "text": {"format": {"type": "json_schema", "schema": hiccup}}}, "text.format"),
    ]
    for kind, body, param in cases:
        error = refusal(kind, body)
        assert (error.status, error.param) == (400, param)
        assert "hiccup" in error.message


@pytest.mark.clause("API-10")
@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"response_format": {"type": "text"}}, "Hi {"),
        ({"structured_outputs": {"choice": ["yes"]}}, "yes"),
        ({"structured_outputs": {"regex": "[a-c]{3}d"}}, None),
        ({"response_format": {"type": "json_object"}}, '{"":""}'),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": 7}}}}, "7"),
        ({"response_format": {"type": "json_object", "schema": {"const": {"a": 7}}}}, '{"a":7}'),
    ],
)
def test_the_form_of_an_answer_is_kept_to(form: Json, said: str | None) -> None:
    answer = asked(lambda service: whole(service, "chat", chat("Hi {", seed=1, max_tokens=50, **form)))
    content = answer["choices"][0]["message"]["content"]
    assert said is None or content == said
    if said is None:
        assert len(content) == 4
        assert content.endswith("d")


@pytest.mark.clause("API-10")
def test_the_form_is_that_of_what_comes_after_the_thoughts() -> None:
    form = {"type": "json_schema", "json_schema": {"schema": {"const": {"a": 7}}}}
    body = chat('<think>Seven, {"a": 8}?</think>\n\n{"a":7}', response_format=form, max_tokens=200)
    message = asked(lambda service: whole(service, "chat", body))["choices"][0]["message"]
    assert message["content"] == '{"a":7}'
    assert message["reasoning_content"] == 'Seven, {"a": 8}?'


@pytest.mark.clause("API-12")
@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"documents": [{"title": "a"}]}, "documents"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs.enable_thinking"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ],
)
def test_what_a_template_does_not_read_is_refused_by_name(more: Json, param: str) -> None:
    assert refusal("chat", {"messages": MESSAGES, **more}).param == param


@pytest.mark.clause("API-03", "API-12")
@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('roles must alternate') }}", "{{ messages[0].content.a.b }}", "{{ messages[7].content }}"],
)
def test_a_conversation_that_the_template_refuses_is_the_mistake_of_the_caller(template: str) -> None:
    error = refusal("chat", {"messages": MESSAGES}, lambda: Service(stub(Parrot((), "", template=template))))
    assert (error.status, error.param) == (400, "messages")


@pytest.mark.clause("API-12")
def test_an_effort_that_is_said_twice_must_be_the_same() -> None:
    def made() -> Service:
        return Service(stub(Parrot((), "", template="{{ reasoning_effort }}{{ messages[0].content }}")))

    variables = {"chat_template_kwargs": {"reasoning_effort": "low"}}
    error = refusal("chat", chat("x", reasoning_effort="high", **variables), made)
    assert (error.status, error.param, error.code) == (400, "reasoning_effort", "conflict")
    same = chat("x", reasoning_effort="low", **variables)
    assert asked(lambda service: whole(service, "chat", same), made)["choices"][0]["message"]["content"] == "x"


@pytest.mark.clause("API-13")
@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"priority": "high"}, "priority"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ],
)
def test_a_field_that_needs_another_is_refused_without_it(more: Json, param: str) -> None:
    assert refusal("chat", {"messages": MESSAGES, **more}).param == param


@pytest.mark.clause("API-13")
def test_conversations_that_cannot_be_answered_are_refused() -> None:
    twice = [*MESSAGES, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert refusal("chat", {"messages": twice}).param == "messages"
    assert refusal("chat", {"messages": [{"role": "user"}]}).param == "messages"
    assert refusal("chat", {"messages": [*MESSAGES, {"role": "assistant"}]}).param == "messages"
