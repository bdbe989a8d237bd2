"""API-05, API-06, API-11, API-14, API-45: a stream has the same contents as a whole answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.api.service import Service
from tests.api.asking import WEATHER, Json, asked, chat, chunks, hidden, whole

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<"), max_size=12)


@st.composite
def replies(draw: st.DrawFn) -> str:
    """Draws an answer in the stub's format: reasoning, words and calls, some absent; the words may look like tags."""
    text = ""
    if draw(st.booleans()):
        text += f"<think>{draw(WORDS)}</think>"
    text += draw(WORDS) + draw(st.sampled_from(["", "<", "<tool", "< b", "</think", "<|x|>"]))
    for _ in range(draw(st.integers(0, 2))):
        call = {"name": draw(st.sampled_from(["get_weather", "f"])), "arguments": {"city": draw(WORDS)}}
        text += f"\n<tool_call>\n{json.dumps(call, ensure_ascii=draw(st.booleans()))}\n</tool_call>"
    return text


def joined(parts: list[Json]) -> dict[int, Json]:
    """The oracle: the choices of a stream, joined by a reader that the test defines."""
    choices: dict[int, Json] = {}
    for part in parts:
        for choice in part["choices"]:
            fresh = {"content": "", "reasoning": "", "calls": [], "scores": [], "finish": None, "ids": [], "roles": 0}
            found = choices.setdefault(choice["index"], fresh)
            delta = choice["delta"]
            assert found["finish"] is None, "nothing comes after the end"
            found["roles"] += "role" in delta
            found["content"] += delta.get("content") or ""
            found["reasoning"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", []):
                if call["index"] == len(found["calls"]):
                    assert call["type"] == "function"
                    assert call["id"]
                    found["calls"].append([call["function"]["name"], ""])
                else:
                    assert "id" not in call
                found["calls"][call["index"]][1] += call["function"]["arguments"]
            found["scores"] += (choice.get("logprobs") or {}).get("content") or []
            found["ids"] += choice.get("token_ids", [])
            found["finish"] = choice["finish_reason"]
    return choices


def told(choice: Json) -> Json:
    """A whole choice in the same form."""
    message = choice["message"]
    return {
        "content": message["content"] or "",
        "reasoning": message.get("reasoning_content", ""),
        "calls": [[call["function"]["name"], call["function"]["arguments"]] for call in message.get("tool_calls", [])],
        "scores": (choice["logprobs"] or {}).get("content", []),
        "finish": choice["finish_reason"],
        "ids": choice["token_ids"],
        "roles": 1,
    }


@pytest.mark.clause("API-06", "API-11", "API-05")
@given(
    say=replies(),
    n=st.integers(1, 3),
    scores=st.booleans(),
    tools=st.booleans(),
    parallel=st.sampled_from([None, False]),
    length=st.sampled_from([None, 1, 20]),
    stop=st.sampled_from([[], ["e"], ["</think"]]),
)
def test_a_chat_streamed_and_joined_is_the_chat(
    say: str, n: int, scores: bool, tools: bool, parallel: bool | None, length: int | None, stop: list[str]
) -> None:
    more: Json = {"tools": [WEATHER], "parallel_tool_calls": parallel} if tools else {}
    body = chat(say, n=n, logprobs=scores, max_tokens=length, stop=stop, return_token_ids=True, seed=1, **more)
    body["stream_options"] = {"include_usage": True}

    async def ask(service: Service) -> tuple[Json, list[Json]]:
        alone = {key: value for key, value in body.items() if key != "stream_options"}
        return await whole(service, "chat", alone), await chunks(service, "chat", body)

    answer, parts = asked(ask)
    assert {choice["index"]: told(choice) for choice in answer["choices"]} == joined(parts)
    assert parts[0]["prompt_token_ids"] == answer["prompt_token_ids"]
    *interior, last = parts
    assert last["choices"] == []
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert last["usage"][name] == answer["usage"][name]
    assert all(part["usage"] is None for part in interior)
    firsts = {part["choices"][0]["index"]: part["choices"][0] for part in reversed(interior)}
    assert all(first["delta"] == {"role": "assistant", "content": None} for first in firsts.values())
    ends = [choice for part in interior for choice in part["choices"] if choice["finish_reason"] is not None]
    assert [end["delta"] for end in ends] == [{}] * n
    assert len({part["id"] for part in parts}) == 1
    assert answer["id"] != last["id"]


@pytest.mark.clause("API-06")
@given(
    say=st.builds(str.__add__, st.sampled_from(["", "a", "<thi", "<"]), WORDS),
    end=st.sampled_from(["", "<", "<tool_c"]),
)
def test_what_only_looks_like_the_beginning_of_a_tag_is_said_in_the_end(say: str, end: str) -> None:
    body = chat(say + end, tools=[WEATHER])
    answer = asked(lambda service: whole(service, "chat", body))
    assert answer["choices"][0]["message"]["content"] == say + end
    assert joined(asked(lambda service: chunks(service, "chat", body)))[0]["content"] == say + end


@pytest.mark.clause("API-14")
@given(say=WORDS, top=st.integers(0, 3))
def test_tokens_of_logprobs_are_the_text(say: str, top: int) -> None:
    answer = asked(lambda service: whole(service, "chat", chat(say, logprobs=True, top_logprobs=top)))
    (choice,) = answer["choices"]
    entries = choice["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == say == choice["message"]["content"]
    assert all(-9999 <= score["logprob"] <= 0 for entry in entries for score in [entry, *entry["top_logprobs"]])
    assert all(len(entry["top_logprobs"]) == top for entry in entries)


@pytest.mark.clause("API-06", "API-20", "API-21")
@given(
    says=st.lists(WORDS, min_size=1, max_size=3),
    n=st.integers(1, 2),
    echo=st.booleans(),
    scores=st.sampled_from([None, 0, 2]),
    length=st.sampled_from([1, 30]),
    ids=st.booleans(),
)
def test_a_completion_streamed_and_joined_is_the_completion(
    says: list[str], n: int, echo: bool, scores: int | None, length: int, ids: bool
) -> None:
    body = {
        "prompt": [hidden(say) for say in says], "n": n, "echo": echo, "logprobs": scores, "max_tokens": length,
        "return_token_ids": ids, "stream_options": {"include_usage": True},
    }  # fmt: skip

    async def ask(service: Service) -> tuple[Json, list[Json]]:
        alone = {key: value for key, value in body.items() if key != "stream_options"}
        return await whole(service, "completion", alone), await chunks(service, "completion", body)

    answer, parts = asked(ask)
    found: dict[int, Any] = {}
    for part in parts:
        for choice in part["choices"]:
            one = found.setdefault(choice["index"], ["", [], [], [], [], [], [], None])
            one[0] += choice["text"]
            for number, name in enumerate(("tokens", "token_logprobs", "top_logprobs", "text_offset"), start=1):
                one[number] += (choice["logprobs"] or {}).get(name, [])
            one[5] += choice.get("token_ids", [])
            one[6] += choice.get("prompt_token_ids", [])
            one[7] = choice["finish_reason"]
    for index, choice in enumerate(answer["choices"]):
        scored = choice["logprobs"] or {}
        lists = [scored.get(name, []) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")]
        lists += [choice.get("token_ids", []), choice.get("prompt_token_ids", [])]
        assert choice["index"] == index
        assert found[index] == [choice["text"], *lists, choice["finish_reason"]]
        begins = body["prompt"][index // n]
        assert choice["text"].startswith(begins) if echo else not choice["text"].startswith(begins)
    assert len(answer["choices"]) == n * len(says) == len(found)
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert parts[-1]["usage"][name] == answer["usage"][name]


def output_of(events: list[Json]) -> list[Json]:
    """The oracle: the output of a response, joined from its events by a reader that the test defines."""
    items: list[Json] = []
    for event in events:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert event["output_index"] == len(items)
            items.append({"id": event["item"]["id"], "type": event["item"]["type"], "text": ""})
        elif kind.endswith(".delta"):
            assert event["item_id"] == items[event["output_index"]]["id"]
            items[event["output_index"]]["text"] += event["delta"]
        elif kind.endswith((".text.done", "_text.done")):
            assert event["text"] == items[event["output_index"]]["text"]
        elif kind == "response.output_item.done":
            items[event["output_index"]]["done"] = event["item"]
    return items


@pytest.mark.clause("API-06", "API-45", "API-44")
@given(say=replies(), tools=st.booleans(), length=st.sampled_from([None, 1, 20]))
def test_the_events_of_a_response_build_up_its_output(say: str, tools: bool, length: int | None) -> None:
    function = {"type": "function", **WEATHER["function"]}
    body: Json = {"input": hidden(say), "max_output_tokens": length, "tools": [function] if tools else []}

    async def ask(service: Service) -> tuple[Json, list[Json]]:
        return await whole(service, "response", body), await chunks(service, "response", body)

    answer, events = asked(ask)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    items = output_of(events)
    last = events[-1]["response"]
    assert [item["done"] for item in items] == last["output"]
    assert events[-1]["type"] == f"response.{last['status']}"

    def plain(output: list[Json]) -> list[Any]:
        return [
            [
                item["type"],
                item["status"],
                item.get("name"),
                item.get("arguments"),
                [c["text"] for c in item.get("content", [])],
            ]
            for item in output
        ]

    assert plain(answer["output"]) == plain(last["output"])
    texts = [
        item.get("arguments", "".join(part["text"] for part in item.get("content", []))) for item in last["output"]
    ]
    assert texts == [item["text"] for item in items]
    assert answer["usage"]["output_tokens"] == last["usage"]["output_tokens"]


@pytest.mark.clause("API-14", "API-45")
@given(say=WORDS)
def test_logprobs_of_a_response_are_of_all_its_words(say: str) -> None:
    body: Json = {"input": hidden(f"<think>Hm</think>a{say}"), "include": ["message.output_text.logprobs"]}
    parts = asked(lambda service: chunks(service, "response", body))
    (item,) = parts[-1]["response"]["output"][1:]
    (content,) = item["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in content["logprobs"]).decode() == content["text"] == f"a{say}"
    told = [entry for part in parts if part["type"] == "response.output_text.delta" for entry in part["logprobs"]]
    assert told == content["logprobs"]
    plain: Json = {"input": hidden(say), "include": ["message.output_text.logprobs"]}
    for item in asked(lambda service: whole(service, "response", plain))["output"]:
        (content,) = item["content"]
        assert b"".join(bytes(entry["bytes"]) for entry in content["logprobs"]).decode() == say
