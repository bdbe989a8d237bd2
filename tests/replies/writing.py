"""Replies as models write them: for each format a writer, which shares no code with the readers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from ferrum.replies.reply import Reply, ToolCall

SPACE = " \t\r\n"
TAGS = (
    "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<function=", "</function>", "<|python_tag|>",
    "<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|call|>", "<|return|>", "<|constrain|>", "<think>",
    "</think>", "[THINK]", "[/THINK]",
    "<|START_ACTION|>", "<|END_ACTION|>", "<|START_THINKING|>", "<|END_THINKING|>", "<response>",
    "</response>", "<|START_RESPONSE|>", "<|END_RESPONSE|>", "<seed:tool_call>", "</seed:tool_call>", "<seed:think>",
    "</seed:think>", "<TOOLCALL>", "</TOOLCALL>", "<tool_calls>", "</tool_calls>", "functools", "<|tool_call|>",
    "<parameter=", "</parameter>",
)  # fmt: skip
PIECES = [
    *"<>[]{}/|\\\":;,. \n\tab1é", "😀", "name", "null", "function", "think", "<tool", "tool_call>", "<|", "|>", "</",
    "json", "TOOL_CALLS", '{"name": "f"', "to=functions.f", "\r\n",
    *(tag[:-1] for tag in TAGS), *(tag[1:] for tag in TAGS),
]  # fmt: skip


def without_tags(text: str) -> bool:
    return not any(tag in text for tag in TAGS)


raw_texts = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
texts = raw_texts.map(lambda text: text.strip(SPACE)).filter(without_tags)
"""Draws texts without tags, and without white space at their ends."""
spaces = st.text(" \n", max_size=3)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,9}", fullmatch=True)
hostile_texts = st.lists(st.sampled_from([*PIECES, *TAGS]), max_size=5).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | hostile_texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hostile_texts, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def arguments(draw: st.DrawFn) -> str:
    """Draws a JSON object and one of its spellings."""
    value = draw(st.dictionaries(hostile_texts, values, max_size=4))
    ascii_only, indent = draw(st.booleans()), draw(st.sampled_from([None, 2]))
    return json.dumps(value, ensure_ascii=ascii_only, indent=indent)


@dataclass(frozen=True)
class Written:
    """The text of an answer, the prompt before it, and the reply that a reader must get from it."""

    prompt: str
    text: str
    reply: Reply


Calls = Sequence[ToolCall]
Writer = Callable[[st.DrawFn, Calls], str]


def _object(draw: st.DrawFn, call: ToolCall, name: str, keys: Sequence[str]) -> str:
    """Draws a call as a JSON object, in the variants that models write."""
    given = call.arguments
    if draw(st.booleans()):
        given = json.dumps(given, ensure_ascii=draw(st.booleans()))
    pairs = [(name, json.dumps(call.name)), (draw(st.sampled_from(keys)), given)]
    if call.arguments == "{}" and draw(st.booleans()):
        pairs[1:] = draw(st.sampled_from([[], [(keys[0], "null")], [(keys[0], '""')]]))
    if draw(st.booleans()):
        pairs.append(("id", json.dumps(draw(hostile_texts))))
    gap = draw(spaces)
    return (
        "{"
        + ",".join(f"{gap}{json.dumps(key)}{gap}:{gap}{value}{gap}" for key, value in draw(st.permutations(pairs)))
        + "}"
    )


def tagged(opening: str, closing: str, name: str = "name", keys: Sequence[str] = ("arguments", "parameters")) -> Writer:
    """A writer that puts each call between tags."""

    def write(draw: st.DrawFn, calls: Calls) -> str:
        objects = [_object(draw, call, name, keys) for call in calls]
        return draw(spaces).join(f"{opening}{draw(spaces)}{each}{draw(spaces)}{closing}" for each in objects)

    return write


def listed(opening: str, closing: str, name: str = "name", keys: Sequence[str] = ("arguments", "parameters")) -> Writer:
    """A writer that puts all calls in one list."""

    def write(draw: st.DrawFn, calls: Calls) -> str:
        objects = f",{draw(spaces)}".join(_object(draw, call, name, keys) for call in calls)
        return f"{opening}{draw(spaces)}[{draw(spaces)}{objects}{draw(spaces)}]{draw(spaces)}{closing}" if calls else ""

    return write


def mistral(draw: st.DrawFn, calls: Calls) -> str:
    between = draw(st.sampled_from(["[ARGS]", "", "[CALL_ID]a1B2c3D4e[ARGS]", "[ARGS] "]))
    return "".join(f"[TOOL_CALLS]{call.name}{between}{call.arguments}" for call in calls)


def functionary(draw: st.DrawFn, calls: Calls) -> str:
    closing = draw(st.sampled_from(["</function>", "\n</function>\n"]))
    return "".join(f"<function={call.name}>{draw(spaces)}{call.arguments}{closing}" for call in calls)


def llama3(draw: st.DrawFn, calls: Calls) -> str:
    """A writer of calls without tags, at the beginning of an answer."""
    objects = []
    for call in calls:
        pairs = [f'"name": {json.dumps(call.name)}', f'"parameters": {call.arguments}']
        objects.append("{" + ", ".join(draw(st.permutations(pairs))) + "}")
    return draw(st.sampled_from(["", "<|python_tag|>"])) + draw(st.sampled_from(["; ", ";", "\n", ""])).join(objects)


def harmony(draw: st.DrawFn, calls: Calls) -> str:
    messages = []
    for call in calls:
        kind = draw(st.sampled_from(["", " json", " <|constrain|>json"]))
        to = f" to=functions.{call.name}"
        header = draw(st.sampled_from([f"<|channel|>commentary{to}{kind}", f"{to}<|channel|>commentary{kind}"]))
        messages.append(f"{header}<|message|>{call.arguments}<|call|>")
    return "<|start|>assistant".join(messages)


def coder(opening: str, closing: str) -> Writer:
    """A writer that puts each argument between tags."""

    def write(draw: st.DrawFn, calls: Calls) -> str:
        written = []
        for call in calls:
            line = draw(st.sampled_from(["", "\n"]))
            values: dict[str, Any] = json.loads(call.arguments)
            inner = "".join(
                f"<parameter={key}>{line}{_shown(each)}{line}</parameter>\n" for key, each in values.items()
            )
            written.append(f"{opening}\n<function={call.name}>\n{inner}</function>\n{closing}")
        return "\n".join(written)

    return write


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


WRITERS: dict[str, Writer] = {
    "hermes": tagged("<tool_call>", "</tool_call>"),
    "mistral-list": listed("[TOOL_CALLS]", ""),
    "mistral": mistral,
    "command-r": listed("<|START_ACTION|>", "<|END_ACTION|>", "tool_name", ("parameters",)),
    "granite": listed("<|tool_call|>", ""),
    "nemotron": listed("<TOOLCALL>", "</TOOLCALL>"),
    "apriel": listed("<tool_calls>", "</tool_calls>"),
    "firefunction": listed("functools", ""),
    "functionary": functionary,
    "llama3": llama3,
    "qwen3-coder": coder("<tool_call>", "</tool_call>"),
    "seed": coder("<seed:tool_call>", "</seed:tool_call>"),
}
"""The writers of all formats except harmony, which has its own strategy."""
REASONING = {
    "think": ("<think>", "</think>"),
    "seed": ("<seed:think>", "</seed:think>"),
    "mistral": ("[THINK]", "[/THINK]"),
    "granite": ("<think>", "</think>"),
    "command-r": ("<|START_THINKING|>", "<|END_THINKING|>"),
}
AROUND = {"granite": ("<response>", "</response>"), "command-r": ("<|START_RESPONSE|>", "<|END_RESPONSE|>")}


def _plain_arguments(draw: st.DrawFn) -> str:
    """Draws arguments for tags: values that are equal to their spelling."""
    plain = (
        texts.filter(lambda text: not _reads(text))
        | st.integers()
        | st.booleans()
        | st.lists(st.integers(), max_size=2)
    )
    keys = st.from_regex("[a-z_]{1,5}", fullmatch=True)
    return json.dumps(draw(st.dictionaries(keys, plain, max_size=3)), ensure_ascii=False)


def _reads(text: str) -> bool:
    try:
        return not isinstance(json.loads(text), str)
    except ValueError:
        return False


@st.composite
def written(draw: st.DrawFn, tools: str, reasoning: str) -> Written:
    """Draws a reply with calls and reasoning in these formats; "none": without them."""
    inside = tools in ("qwen3-coder", "seed")
    made = [
        ToolCall(draw(names), _plain_arguments(draw) if inside else draw(arguments()))
        for _ in range(draw(st.integers(0, 3)))
    ]
    calls = () if tools == "none" else tuple(made)
    before, after = draw(texts), draw(texts.filter(lambda text: text[:1] not in tuple(";,]")))
    if tools == "llama3" and calls:  # which stand at the beginning
        before = ""
    gap = draw(spaces) if before else ""
    thought = draw(raw_texts.filter(without_tags)).strip(SPACE) if reasoning != "none" else ""
    prompt, text = "Q: ", ""
    if reasoning != "none" and (thought or draw(st.booleans())):
        opening, closing = REASONING[reasoning]
        edge = draw(spaces)
        if draw(st.booleans()):
            prompt, text = f"Q: {opening}{draw(spaces)}", draw(st.sampled_from(["", opening]))
        else:
            text = draw(spaces) + opening
        text += edge + thought + edge + closing + draw(spaces)
    content = before
    body = before + gap + (WRITERS[tools](draw, calls) if calls else "")
    if not calls:
        body = content = before
    elif after:
        content = before + gap + after if before else after
        body += draw(spaces) + after
    if reasoning in AROUND and draw(st.booleans()):
        body = body.join(AROUND[reasoning])
    return Written(prompt, text + body, Reply(content, thought, calls))


@st.composite
def written_in_harmony(draw: st.DrawFn) -> Written:
    """Draws a reply in harmony, with messages in the order in which gpt-oss writes them."""
    thought, preamble, final = draw(texts), draw(texts), draw(texts)
    calls = tuple(ToolCall(draw(names), draw(arguments())) for _ in range(draw(st.integers(0, 2))))
    messages = [
        *([f"<|channel|>analysis<|message|>{thought}<|end|>"] if thought else []),
        *([f"<|channel|>commentary<|message|>{preamble}{draw(spaces)}<|end|>"] if preamble else []),
        *([harmony(draw, calls)] if calls else []),
        *([f"<|channel|>final<|message|>{final}" + draw(st.sampled_from(["", "<|return|>"]))] if final else []),
    ]
    content = "\n".join(filter(None, (preamble, final)))
    return Written("<|start|>assistant", "<|start|>assistant".join(messages), Reply(content, thought, calls))


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    """Draws places at which the text is cut, and returns the pieces."""
    if draw(st.booleans()):
        return list(text)
    places = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
