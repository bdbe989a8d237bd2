"""Makes chat_template_styles.json: what `apply_chat_template` of transformers makes of conversations of every shape,
through templates in the styles of published ones (chat_template_styles/*.jinja, written for this test).

    python tests/goldens/make_chat_template_styles.py

Needs transformers; no model. A rendering is kept as the beginning of its SHA-256, a refusal as its sentence.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import tokenizers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
REFUSED = "!"
MARK = "CONTINUE_FINAL_MESSAGE_TAG "
"""What transformers puts behind a message that is to be continued."""


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def call(name: str, arguments: Any, number: int = 1) -> dict[str, Any]:
    return {"id": f"call{number:05}", "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "Be brief."}
WEATHER = call("get_weather", {"city": "Köln", "days": 2, "metric": True, "hours": [6, 18]})
RESULT = {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": '{"degrees": 15}'}
PARTS = [{"type": "text", "text": "What is "}, {"type": "text", "text": "the capital?"}]
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one question": [user("Hi")],
    "system": [SYSTEM, user("Is 1 < 2 & 'é' > \"a\"?")],
    "turns": [user("  a \n"), assistant("b"), user("c"), assistant(" d\n"), user("e")],
    "ends with an answer": [SYSTEM, user("Go on"), assistant("The answer is")],
    "ends with white space": [user("Go on"), assistant("The answer is \n")],
    "empty texts": [{"role": "system", "content": ""}, user(""), assistant(""), user(" ")],
    "unicode": [user("héllo 😀 \u202eabc\u00a0"), assistant("日本語 <|im_end|> </s>"), user("𝒳\r\ny\tz\u2028")],
    "system in the middle": [user("a"), SYSTEM, assistant("b"), user("c")],
    "two users": [user("a"), user("b"), assistant("c"), assistant("d")],
    "call": [user("Weather?"), assistant(None, tool_calls=[WEATHER]), RESULT, assistant("15 degrees"), user("Thanks")],
    "call with text": [SYSTEM, user("Weather?"), assistant("I look.", tool_calls=[WEATHER]), RESULT],
    "call without content": [user("Weather?"), {"role": "assistant", "tool_calls": [WEATHER]}, RESULT],
    "two calls": [
        user("Weather and time?"),
        assistant("", tool_calls=[WEATHER, call("time", {}, 2)]),
        RESULT,
        {"role": "tool", "tool_call_id": "call00002", "name": "time", "content": "9:00"},
    ],
    "arguments as text": [user("Weather?"), assistant(None, tool_calls=[call("get_weather", '{"city": "Köln"}')])],
    "short calls": [user("Weather?"), assistant("", tool_calls=[{"name": "f", "arguments": {"a": 1}}]), user("b")],
    "null keys": [
        user("a", name=None),
        assistant("b", tool_calls=None, name=None, reasoning_content=None, refusal=None),
        {"role": "tool", "content": "15", "name": None},
        user(None),
    ],
    "names": [user("a", name="Ann"), assistant("b", name="bot"), user("c", name="Bo")],
    "reasoning": [user("q"), assistant("answer", reasoning="because"), user("q2")],
    "reasoning_content": [user("q"), assistant("answer", reasoning_content="because\n"), user("q2")],
    "thinking": [user("q"), assistant("answer", thinking="because"), user("q2")],
    "all reasonings": [user("q"), assistant("a", thinking="t", reasoning="r", reasoning_content="c"), user("q2")],
    "empty reasonings": [user("q"), assistant("a", thinking="", reasoning="r", reasoning_content=None), user("q2")],
    "reasoning and call": [
        user("Weather?"),
        assistant("", reasoning_content="must call", tool_calls=[WEATHER]),
        RESULT,
        assistant("15", reasoning="done"),
    ],
    "thoughts in the text": [user("q"), assistant("<think>\nlong\n</think>\n\nanswer"), user("q2 /no_think")],
    "parts": [user(PARTS), assistant([{"type": "text", "text": "Paris"}]), user("Sure?")],
    "parts with an image": [user([{"type": "image"}, *PARTS, {"type": "image_url", "image_url": {"url": "a"}}])],
    "no parts": [user([]), assistant("a")],
    "strange roles": [
        {"role": "developer", "content": "a"},
        user("b"),
        {"role": "ipython", "content": {"c": [1, None]}},
    ],
    "numbers": [user(5), assistant(2.5), user(True)],
    "no role": [{"content": "a"}, user("b")],
    "more keys": [user("a", tools=None, functions="f()", metadata={"x": None}), assistant("b", prefix=True)],
    "many turns": [message for number in range(15) for message in (user(f"q{number}"), assistant(f"a{number}"))],
    "agent": [SYSTEM, user("Do it")]
    + [
        message
        for number in range(1, 6)
        for message in (assistant(None, tool_calls=[call("step", {"n": number}, number)]), {**RESULT, "content": "ok"})
    ],
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Städte <any>"},
                    "days": {"type": "integer", "default": None},
                    "unit": {"type": "string", "enum": ["C", "F"]},
                    "hours": {"type": "array", "items": {"type": "integer"}},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "time", "description": "now", "parameters": {"properties": {}}}},
]
DOCUMENTS = [{"title": "Köln", "text": "A city\non the Rhine"}, {"doc_id": "7", "title": "b", "text": ""}]
BEGIN, END = {"add_generation_prompt": True}, {"add_generation_prompt": False}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "prompt": BEGIN,
    "no prompt": END,
    "tools": {**BEGIN, "tools": TOOLS},
    "no tools": {**END, "tools": []},
    "thinking": {**BEGIN, "enable_thinking": True, "thinking": True, "reasoning_effort": "high", "thinking_budget": 9},
    "no thinking": {**BEGIN, "tools": TOOLS, "enable_thinking": False, "thinking": False, "thinking_budget": 0},
    "documents": {**BEGIN, "documents": DOCUMENTS},
    "continued": {**END, "continue_final_message": True},
    "reasoning continued": {**END, "continue_final_message": "reasoning_content"},
    "other tokens": {**BEGIN, "bos_token": "<B>", "keep_past_thinking": True, "date_string": "today", "tools": None},
}


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate(SPECIAL_TOKENS.values())}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, extra_special_tokens=["<x>"], **SPECIAL_TOKENS)


def rendered(own: PreTrainedTokenizerFast, source: str, messages: list[dict[str, Any]], given: dict[str, Any]) -> str:
    try:
        text = own.apply_chat_template(messages, chat_template=source, tokenize=False, **given)
    except Exception as error:
        sentence = " ".join(str(error).split()) or type(error).__name__
        # the last are Python's, for a content that is a mapping or a number
        continues = any(
            part in sentence for part in ("continue_final_message is set", "'dict' and 's", "'bool' and 's")
        )
        return REFUSED + ("" if continues else sentence)
    text = text.replace(MARK, "").replace(MARK.strip(), "")  # left where a template writes a message twice
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def main() -> None:
    """Writes the goldens beside this script."""
    own, results = tokenizer(), {}
    for path in sorted((HERE / "chat_template_styles").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        results[path.stem] = [
            [rendered(own, source, messages, given) for given in ARGUMENTS.values()]
            for messages in CONVERSATIONS.values()
        ]
    content = {
        "special_tokens": SPECIAL_TOKENS, "conversations": CONVERSATIONS, "arguments": ARGUMENTS, "results": results
    }  # fmt: skip
    target = HERE / "chat_template_styles.json"
    target.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    flat = [result for rows in results.values() for row in rows for result in row]
    refused = sum(result.startswith(REFUSED) for result in flat)
    print(f"{target}: {len(results)} templates, {len(flat)} renderings, {refused} of them refused")


if __name__ == "__main__":
    main()
