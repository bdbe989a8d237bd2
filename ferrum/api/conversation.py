"""From the messages of a request to a prompt.

Owns: the input of a chat template: roles that it knows, calls with their arguments as objects, tools, and a description
of the tools in the system message if the template has no place for them. Refuses to know: sampling.
Specs: API-12, API-32. Next: `ferrum.api.tools`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ferrum.api.errors import invalid
from ferrum.api.protocol.chat import ChatMessage
from ferrum.api.protocol.tools import PastCall, ToolSpec
from ferrum.api.served import Served
from ferrum.engine.conversations import chat_options, chat_prompt
from ferrum.errors import TokenizerError, Unsupported, quoted
from ferrum.text.chat import ChatTemplate

TOOLS_TOLD = """You can call functions. Each is described by one line of JSON:
<tools>
{tools}
</tools>
To call one, write its name and its arguments as JSON between tags, and nothing after them:
<tool_call>
{{"name": "the name", "arguments": {{"the name of an argument": "its value"}}}}
</tool_call>"""


def render(
    served: Served,
    messages: Sequence[ChatMessage],
    tools: Sequence[ToolSpec] = (),
    *,
    chat_template: str | None = None,
    variables: Mapping[str, Any] | None = None,
    reasoning_effort: str | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool | None = None,
    continue_final_message: bool | None = None,
) -> str:
    """The prompt. Raises ApiError for an input that the template does not read or refuses, and the other errors of
    `chat_prompt`."""
    if chat_template is not None and chat_template not in served.templates.sources:
        names = ", ".join(map(quoted, sorted(served.templates.sources))) or "none"
        raise invalid(
            f"chat_template must be the name of one of the model's: {names}", "chat_template", "invalid_value"
        )
    template = _template(served, chat_template, bool(tools))
    if documents:
        _check_read(template, "documents", "documents")
    if [message.role for message in messages[-2:]] == ["assistant", "assistant"]:
        raise invalid("messages end with two assistant messages: one of them is no answer", "messages", "invalid_value")
    takes_tools = template.reads("tools")
    chat = [_plain(message, template) for message in messages]
    described = [tool.model_dump(exclude_unset=True) for tool in tools]
    if not takes_tools:
        chat = _with_described_tools(chat, described)
    goes_on = bool(continue_final_message)
    options = chat_options(
        tools=described if described and takes_tools else None,
        documents=documents,
        add_generation_prompt=not goes_on if add_generation_prompt is None else add_generation_prompt,
        continue_final_message=goes_on,
        chat_template=chat_template,
        chat_template_kwargs=_variables(template, variables or {}, reasoning_effort),
    )
    try:
        return chat_prompt(served.templates, chat, options, served.names[0])
    except TokenizerError as error:  # such as "roles must alternate": the client can send another conversation
        raise invalid(str(error), "messages", "invalid_value") from error


def _template(served: Served, name: str | None, with_tools: bool) -> ChatTemplate:
    try:
        template = served.templates.plain(with_tools) if name is None else served.templates.named(name)
    except TokenizerError as error:  # several templates without a default
        raise invalid(str(error), "chat_template", "invalid_value") from error
    if template is None:
        raise Unsupported("this model has no chat template: use /v1/completions")
    return template


def _check_read(template: ChatTemplate, name: str, field: str) -> None:
    if not template.reads(name):
        problem = "is given, but the model's chat template does not read it"
        raise invalid(f"{field} {problem}", field, "unsupported_parameter")


def _variables(template: ChatTemplate, variables: Mapping[str, Any], effort: str | None) -> Mapping[str, Any]:
    """All variables of the template, the reasoning effort included."""
    for each in variables:
        _check_read(template, each, f"chat_template_kwargs.{each}")
    if effort is None:
        return variables
    name = "reasoning_effort"
    _check_read(template, name, name)
    if variables.get(name, effort) != effort:
        raise invalid(f"{name} and chat_template_kwargs.{name} differ: give one of them", name, "conflict")
    return {**variables, name: effort}


def _plain(message: ChatMessage, template: ChatTemplate) -> dict[str, Any]:
    """The message in the form that templates expect."""
    plain = message.model_dump(exclude_none=True, exclude={"tool_calls", "annotations"})
    if message.role == "developer" and "developer" not in template.source:
        plain["role"] = "system"
    if message.tool_calls:
        plain["tool_calls"] = [_call(call, number) for number, call in enumerate(message.tool_calls)]
    if message.role != "assistant" and message.content is None:
        raise invalid(f"messages have a {message.role} message without content", "messages", "invalid_value")
    if message.refusal is not None and message.content is None:
        plain["content"] = message.refusal
    if message.role == "assistant" and "content" not in plain:
        if not (message.tool_calls or message.reasoning_content or message.reasoning):
            problem = "messages have an assistant message without content and without tool_calls"
            raise invalid(problem, "messages", "invalid_value")
        plain["content"] = ""
    return plain


def _call(call: PastCall, number: int) -> dict[str, Any]:
    """Templates write the arguments as JSON themselves, and expect an object."""
    arguments = call.function.arguments
    if isinstance(arguments, str):
        try:
            read = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            read = None
        if not isinstance(read, dict):
            problem = f"messages have a call of {quoted(call.function.name)} whose arguments are no JSON object"
            raise invalid(problem, "messages", "invalid_value")
        arguments = read
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id or f"call_{number}", "type": "function", "function": function}


def _with_described_tools(chat: list[dict[str, Any]], tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation for a template without tools: the tools are described in the system message; calls and their
    results are written as text."""
    messages = [_spelled(message) for message in chat]
    if not tools:
        return messages
    description = TOOLS_TOLD.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    first = messages[0]
    if first["role"] == "system":
        before = first["content"] if isinstance(first["content"], str) else _joined(first["content"])
        return [{**first, "content": f"{before}\n\n{description}"}, *messages[1:]]
    return [{"role": "system", "content": description}, *messages]


def _spelled(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        content = message["content"] if isinstance(message["content"], str) else _joined(message["content"])
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    if calls := message.get("tool_calls"):
        content = message["content"] if isinstance(message["content"], str) else _joined(message["content"])
        written = [f"<tool_call>\n{json.dumps(call['function'], ensure_ascii=False)}\n</tool_call>" for call in calls]
        rest = {key: value for key, value in message.items() if key != "tool_calls"}
        return {**rest, "content": "\n".join([content, *written] if content else written)}
    return message


def _joined(parts: list[dict[str, Any]]) -> str:
    return "\n".join(part.get("text") or part.get("refusal") or "" for part in parts)
