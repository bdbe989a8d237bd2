"""llama.cpp's tests of what models answer: reasoning, text and calls, told apart in the format of a template.

Owns: how `tests/test-chat.cpp` writes its cases, and which of them ask for something else than is done here.
Refuses to know: how C++ is read, how any format is parsed. Specs: SUITE-21. Next: `benchmarks/suites/grammars.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from ferrum.errors import FerrumError
from ferrum.replies.calls import Tool
from ferrum.replies.formats import NONE, ReplyFormats, find_formats
from ferrum.replies.reply import Reply, ToolCall, joined
from ferrum.text.chat import ChatTemplate

from .cpp import NotUnderstood, Reader
from .fetch import LLAMA_CPP, Source
from .verdict import Verdict

SOURCE = Source(LLAMA_CPP, "the answers of models that llama.cpp parses")
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
QUESTION = [{"role": "user", "content": "Hey there!"}]
_TESTER = re.compile(r"auto (tst\w*) = peg_tester\((?:\"(?P<path>[^\"]+)\"|\w+)")
_VARIABLE = re.compile(
    r"^[ ]*(?:static )?(?:const )?(?:auto|char \*|std::string|common_chat_msg|common_chat_tool) ?(\w+) *[={]",
    re.MULTILINE,
)
_FILLED_LATER = re.compile(r"^[ ]*common_chat_msg (\w+);", re.MULTILINE)


def run(data: Path) -> Iterator[Verdict]:
    folder = SOURCE.within(data) / "vendor/llama.cpp"
    read = 0
    source = (folder / "tests/test-chat.cpp").read_text(encoding="utf-8")
    for path, number, case in cases(source):
        read += 1
        name = f"{Path(path or '').stem or 'several'}/{number}"
        if path is None:
            yield Verdict(name, "refused", "a case for several templates")
        else:
            yield _verdict(name, (folder / path).read_text(encoding="utf-8"), case)
    written = len(re.findall(r"^\s+tst\w*\.test\(", source, re.MULTILINE))
    if read != written:
        raise NotUnderstood(f"{read} cases were read, but {written} are written")


def cases(source: str) -> Iterator[tuple[str | None, int, Mapping[str, Any]]]:
    """The path of a template, None where there are several; a number; what each method of the case is given."""
    known: dict[str, Any] = {name: name for name in re.findall(r"\bCOMMON_\w+", source)}
    _reader(source, known)
    begins = list(_TESTER.finditer(source))
    paths: dict[str, str | None] = {}
    for number, begin in enumerate(begins):
        paths[begin[1]] = begin["path"]
        end = begins[number + 1].start() if number + 1 < len(begins) else len(source)
        part = source[begin.end() : end]
        reader = _reader(part, dict(known))
        for name, path in paths.items():
            for place, chain in enumerate(reader.chains(name, "test", "run")):
                yield (
                    path,
                    100 * number + place,
                    {method: given[0] if given else True for method, given in chain.items()},
                )


def _reader(source: str, known: dict[str, Any]) -> Reader:
    """Of a file, or a part of one. Those of its variables become known that can be read; a case that needs another is
    an error."""
    reader = Reader(source, known, _FUNCTIONS)
    known |= dict.fromkeys(_FILLED_LATER.findall(source))
    for name in dict.fromkeys(_VARIABLE.findall(source)):
        with suppress(NotUnderstood, TypeError):
            values = reader.values(name)
            known.pop(name, None)  # one of a part hides one of the file
            if all(value == values[0] for value in values):  # of two in blocks of their own, none is known
                known[name] = values[0]
    return reader


def _verdict(case: str, source: str, given: Mapping[str, Any]) -> Verdict:
    if given.get("continue_final_message"):
        return Verdict(case, "refused", "an answer that goes on with a message, parsed together with it")
    tools = [Tool(name, json.loads(parameters)) for name, _, parameters in given.get("tools", ())]
    plain = given.get("reasoning_format", "COMMON_REASONING_FORMAT_NONE") == "COMMON_REASONING_FORMAT_NONE"
    formats = find_formats(source, reasoning_parser=NONE) if plain else find_formats(source)
    if tools and formats.tools is None:
        return Verdict(case, "refused", "calls in a format that is not known")
    try:
        prompt = _prompt(source, given)
    except FerrumError:
        return Verdict(case, "refused", "a template that does not render the question")
    parser = formats.parser(prompt, bool(tools), tools)
    parts = [part for character in given["test"] for part in parser.push(character)]
    found = joined([*parts, *parser.finish(cut=given.get("is_partial", False))])
    wanted = _wanted(given)
    if _comparable(found) == _comparable(wanted):
        return Verdict(case, "equal")
    if find_formats(source) == ReplyFormats(None, None):
        return Verdict(case, "refused", "an answer in a format that is not known")
    return Verdict(case, "different", f"{given['test']!r}: {wanted} expected, here {found}")


def _prompt(source: str, given: Mapping[str, Any]) -> str:
    tools = [
        {"type": "function", "function": {"name": name, "description": about, "parameters": json.loads(parameters)}}
        for name, about, parameters in given.get("tools", ())
    ]
    thinking = given.get("enable_thinking", True)
    return _template(source).render(QUESTION, tools=tools or None, enable_thinking=thinking, thinking=thinking)


@cache
def _template(source: str) -> ChatTemplate:
    return ChatTemplate(source, **TOKENS)


def _wanted(given: Mapping[str, Any]) -> Reply:
    whole = given.get("expect", Reply("", "", ()))
    calls = tuple(ToolCall(*call[:2]) for call in given.get("expect_tool_calls", ())) or whole.tool_calls
    return Reply(given.get("expect_content", whole.content), given.get("expect_reasoning", whole.reasoning), calls)


def _comparable(reply: Reply) -> Any:
    """Arguments are compared as the JSON that they are; white space around texts is each parser's own affair."""
    calls = []
    for call in reply.tool_calls:
        with suppress(ValueError):
            call = ToolCall(call.name, json.dumps(json.loads(call.arguments or "{}")))
        calls.append(call)
    return reply.content.strip(), reply.reasoning.strip(), calls


def _message(content: str, reasoning: str = "", name: str = "", arguments: str = "", number: str = "") -> Reply:
    return Reply(content, reasoning, (ToolCall(name, arguments),) if name or number else ())


_FUNCTIONS = {
    "simple_assist_msg": _message,
    "std::string": str,
    "message_with_tool_calls": lambda name, arguments: _message("", "", name, arguments),
    "message_with_tool_calls_and_reasoning": lambda name, arguments, thought: _message("", thought, name, arguments),
    "message_with_reasoning_content_and_multiple_tool_calls": lambda thought, content, calls: Reply(
        content, thought, tuple(ToolCall(*call) for call in calls)
    ),
    "message_with_content_and_tool_call": lambda content, name, arguments: _message(content, "", name, arguments),
    "message_with_reasoning_and_tool_call": lambda thought, name, arguments: _message("", thought, name, arguments),
}
