"""The official `openai` client, unmodified, over real sockets, against the scripted model: programs work as written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletionChunk

from tests.server.running import running

SCRIPT = {
    "answers": [
        {"when": "weather", "say": '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'},
        {"when": "think", "say": "<think>\nIt is easy.\n</think>\n\nForty-two."},
        {"when": "person", "say": '{"name": "Ada", "age": 36}'},
        {"when": "once upon", "say": " a time there was a server."},
    ],
    "default": "Hello! How can I help you today?",
}
ANSWER = "Hello! How can I help you today?"
HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(SCRIPT) as server:
        yield server.url


@pytest.fixture(scope="module")
def client(address: str) -> openai.OpenAI:
    """A client that checks the type of every field that comes."""
    return client_of(address)


@pytest.fixture(scope="module")
def loose(address: str) -> openai.OpenAI:
    """A client that does not check types. Its types forbid some answers that OpenAI sends too: vectors as base64, null
    in some completions."""
    return client_of(address, strict=False)


def client_of(url: str, key: str = "any", *, strict: bool = True) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, _strict_response_validation=strict)


def joined(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


@pytest.mark.clause("SUITE-01")
def test_a_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="stub", messages=HELLO)
    choice = answer.choices[0]
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "stub"
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", ANSWER, "stop")
    assert choice.message.tool_calls is None
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.clause("SUITE-01")
def test_a_chat_that_is_streamed(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="stub", messages=HELLO, stream=True, stream_options=options))
    first, last, counts = chunks[0], chunks[-2], chunks[-1]
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", None)
    assert joined(chunks) == ANSWER
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert last.choices[0].delta.content is None
    assert counts.choices == []
    assert counts.usage is not None
    assert counts.usage.completion_tokens > 0
    assert {chunk.id for chunk in chunks} == {first.id}


@pytest.mark.clause("SUITE-01")
def test_several_answers_to_a_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="stub", messages=HELLO, n=3, max_tokens=3, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    chunks = list(client.chat.completions.create(model="stub", messages=HELLO, n=3, max_tokens=3, seed=1, stream=True))
    assert [joined(chunks, index) for index in range(3)] == [choice.message.content for choice in answer.choices]


@pytest.mark.clause("SUITE-01")
def test_log_probabilities_of_a_chat(client: openai.OpenAI) -> None:
    asked = {"model": "stub", "messages": HELLO, "logprobs": True, "top_logprobs": 4}
    choice = client.chat.completions.create(**asked).choices[0]
    assert choice.logprobs is not None
    entries = choice.logprobs.content or []
    assert b"".join(bytes(entry.bytes or ()) for entry in entries).decode() == choice.message.content
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 4 for entry in entries)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    kept = [choice.logprobs for chunk in chunks for choice in chunk.choices if choice.logprobs is not None]
    assert [entry for part in kept for entry in part.content or []] == entries


@pytest.mark.clause("SUITE-01")
@pytest.mark.parametrize(
    "choice",
    ["auto", "required", {"type": "function", "function": {"name": "weather"}}],
    ids=["auto", "required", "named"],
)
def test_a_tool_call(client: openai.OpenAI, choice: object) -> None:
    asked = {
        "model": "stub",
        "messages": [{"role": "user", "content": "What is the weather in Oslo?"}],
        "tools": [WEATHER, TIME],
        "tool_choice": choice,
    }
    answer = client.chat.completions.create(**asked).choices[0]
    (call,) = answer.message.tool_calls or []
    assert call.id
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == (
        "function",
        "weather",
        {"city": "Oslo"},
    )
    assert answer.finish_reason == "tool_calls"
    assert not answer.message.content
    with client.chat.completions.stream(**asked) as stream:
        names = [event.name for event in stream if event.type == "tool_calls.function.arguments.done"]
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls or []
    assert names == ["weather"]
    assert streamed.function.arguments == call.function.arguments


@pytest.mark.clause("SUITE-01")
def test_a_conversation_goes_on_after_a_tool_call(client: openai.OpenAI) -> None:
    asked = [{"role": "user", "content": "What is the weather in Oslo?"}]
    message = client.chat.completions.create(model="stub", messages=asked, tools=[WEATHER]).choices[0].message
    assert message.tool_calls is not None
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
    messages = [*asked, message, result, *HELLO]
    answer = client.chat.completions.create(model="stub", messages=messages, tools=[WEATHER], tool_choice="none")
    assert answer.choices[0].message.content == ANSWER


@pytest.mark.clause("SUITE-01")
def test_reasoning_is_told_apart(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Please think."}]
    message = client.chat.completions.create(model="stub", messages=messages).choices[0].message
    assert message.content == "Forty-two."
    assert message.model_extra is not None
    assert message.model_extra["reasoning_content"].strip() == "It is easy."
    chunks = list(client.chat.completions.create(model="stub", messages=messages, stream=True))
    assert joined(chunks) == message.content
    deltas = [choice.delta.model_extra or {} for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == message.model_extra["reasoning_content"]


@pytest.mark.clause("SUITE-01")
def test_answers_that_match_a_schema(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Describe a person."}]
    parsed = client.chat.completions.parse(model="stub", messages=messages, response_format=Person).choices[0].message
    assert parsed.parsed == Person(name="Ada", age=36)
    schema = {"type": "json_schema", "json_schema": {"name": "number", "schema": {"const": [1, 2]}}}
    forced = client.chat.completions.create(model="stub", messages=HELLO, response_format=schema)
    assert json.loads(forced.choices[0].message.content or "") == [1, 2]
    loose = client.chat.completions.create(model="stub", messages=messages, response_format={"type": "json_object"})
    assert json.loads(loose.choices[0].message.content or "") == {"name": "Ada", "age": 36}


@pytest.mark.clause("SUITE-01")
def test_completions(client: openai.OpenAI, loose: openai.OpenAI) -> None:
    asked = {"model": "stub", "prompt": "once upon", "max_tokens": 64}
    answer = client.completions.create(**asked)
    assert answer.id.startswith("cmpl-")
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (" a time there was a server.", "stop")
    chunks = list(loose.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.choices[0].text
    echoed = loose.completions.create(**asked, echo=True, logprobs=2).choices[0]
    assert echoed.text == "once upon" + answer.choices[0].text
    assert echoed.logprobs is not None
    assert "".join(echoed.logprobs.tokens or []) == echoed.text + "<eos>"
    assert (echoed.logprobs.token_logprobs or [0])[0] is None
    several = client.completions.create(model="stub", prompt=["once upon", "Hello", "once upon"], n=2, max_tokens=4)
    assert [choice.index for choice in several.choices] == list(range(6))


@pytest.mark.clause("SUITE-01")
def test_embeddings(client: openai.OpenAI, loose: openai.OpenAI) -> None:
    asked = loose.embeddings.create(model="stub", input=["one text", "another", "one text"])
    plain = client.embeddings.create(model="stub", input="one text", encoding_format="float")
    first, second, third = (item.embedding for item in asked.data)
    assert first == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert first == pytest.approx(third, abs=1e-6)
    assert first != second
    assert sum(each * each for each in first) == pytest.approx(1, abs=1e-3)
    assert asked.usage.total_tokens == asked.usage.prompt_tokens > 0


@pytest.mark.clause("SUITE-01")
def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="stub", input="Hello", instructions="Be brief.")
    assert answer.id.startswith("resp_")
    assert (answer.status, answer.output_text) == ("completed", ANSWER)
    with client.responses.stream(model="stub", input=[{"role": "user", "content": "Hello"}]) as stream:
        events = list(stream)
        whole = stream.get_final_response()
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
    assert whole.output_text == ANSWER
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    parsed = client.responses.parse(model="stub", input="Describe a person.", text_format=Person)
    assert parsed.output_parsed == Person(name="Ada", age=36)


@pytest.mark.clause("SUITE-01")
def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["stub"]
    assert client.models.retrieve("stub").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


@pytest.mark.clause("SUITE-01")
def test_errors_are_the_classes_of_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="stub", messages=HELLO, temperature=-1)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="prediction") as unsupported:
        client.chat.completions.create(model="stub", messages=HELLO, prediction={"type": "content", "content": "x"})
    assert unsupported.value.param == "prediction"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=HELLO)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="stub", messages=[{"role": "user", "content": "word " * 100_000}])


@pytest.mark.clause("SUITE-01")
def test_keys_of_the_client() -> None:
    with running(SCRIPT, api_keys=("right",)) as server:
        right = client_of(server.url, "right")
        assert right.chat.completions.create(model="stub", messages=HELLO).choices[0].message.content == ANSWER
        wrong = client_of(server.url, "wrong")
        with pytest.raises(openai.AuthenticationError):
            wrong.chat.completions.create(model="stub", messages=HELLO)


@pytest.mark.clause("SUITE-01")
def test_raw_answers_and_streams_that_are_left(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="stub", messages=HELLO)
    assert raw.headers["x-request-id"]
    assert raw.parse().choices[0].message.content == ANSWER
    stream = client.chat.completions.create(model="stub", messages=HELLO, stream=True)
    next(iter(stream))
    stream.close()
    assert client.chat.completions.create(model="stub", messages=HELLO).choices[0].message.content == ANSWER


@pytest.mark.clause("SUITE-01")
def test_a_client_that_does_not_wait() -> None:
    with running({"default": ANSWER, "delay_ms": 50}) as server:
        patient = client_of(server.url)
        with pytest.raises(openai.APITimeoutError):
            patient.with_options(timeout=0.3).chat.completions.create(model="stub", messages=HELLO)
        assert (
            patient.chat.completions.create(model="stub", messages=HELLO, max_tokens=2).choices[0].message.content
            == "He"
        )


@pytest.mark.clause("SUITE-01")
def test_the_asynchronous_client(address: str) -> None:
    async def talk() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0) as client:

            async def one(number: int) -> str:
                stream = await client.chat.completions.create(
                    model="stub", messages=HELLO, stream=True, max_completion_tokens=number, seed=number
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(one(number) for number in range(1, 9)))

    assert asyncio.run(talk()) == [ANSWER[:number] for number in range(1, 9)]


@pytest.mark.clause("SUITE-01")
def test_tools_of_responses(client: openai.OpenAI) -> None:
    tool = {"type": "function", "name": "weather", "parameters": WEATHER["function"]["parameters"], "strict": True}
    asked = [{"role": "user", "content": "What is the weather in Oslo?"}]
    answer = client.responses.create(model="stub", input=asked, tools=[tool])
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Oslo"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    told = client.responses.create(model="stub", input=[*asked, call, result, *HELLO], tools=[tool])
    assert told.output_text == ANSWER
    with client.responses.stream(model="stub", input=asked, tools=[tool], tool_choice="required") as stream:
        deltas = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        assert json.loads("".join(deltas)) == {"city": "Oslo"}
