"""From conversations to prompts: the choice of the chat template and its inputs besides the messages.

Owns: what may be said of a conversation beside its messages, in vLLM's names, and the form of contents that a template
takes. Refuses to know: what templates do, tokens.
Specs: ENGINE-60 to ENGINE-64. Next: `ferrum.engine.scoring`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ferrum.errors import InvalidParameter, TokenizerError, Unsupported, listed, quoted, warn
from ferrum.given import flag, pairs, text
from ferrum.text.chat import ChatTemplate
from ferrum.text.template_content import CONTENT, text_parts
from ferrum.text.template_data import plain_mapping, plain_objects
from ferrum.text.template_names import ChatTemplates
from ferrum.types import Message

_TAKEN = {
    **dict.fromkeys(["messages", "self"], "has a meaning of its own"),
    **dict.fromkeys(
        ["tools", "documents", "add_generation_prompt", "continue_final_message", "chat_template"],
        "is a parameter of its own",
    ),
    "tokenize": "has no meaning: a conversation always becomes tokens",
}
"""Names that a template's variable may not have, with the reason."""


@dataclass(frozen=True)
class ChatOptions:
    """The inputs of a chat template besides the messages."""

    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool | str = False
    chat_template: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)


def chat_options(
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool | str = False,
    chat_template: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> ChatOptions:
    """The arguments of a call as checked plain values. Raises InvalidParameter, which names the parameter."""
    name = None if chat_template is None else text(chat_template)
    if name is None and chat_template is not None:
        raise InvalidParameter("chat_template", f"must be Jinja or the name of a template, not {quoted(chat_template)}")
    begins = flag("add_generation_prompt", add_generation_prompt)
    field_name = text(continue_final_message)
    goes_on = flag("continue_final_message", continue_final_message) if field_name is None else field_name
    if begins and goes_on:
        raise InvalidParameter(
            "continue_final_message", "goes on with a message, add_generation_prompt begins another: set that to False"
        )
    return ChatOptions(
        plain_objects("tools", tools),
        plain_objects("documents", documents),
        begins,
        goes_on,
        name,
        {} if chat_template_kwargs is None else _variables(chat_template_kwargs),
    )


def _variables(values: Mapping[str, Any]) -> dict[str, Any]:
    variables = {}
    for key, value in pairs("chat_template_kwargs", values, "names to values"):
        name = text(key)
        if name is None:
            raise InvalidParameter("chat_template_kwargs", f"must have texts for keys, not {quoted(key)}")
        if name in _TAKEN:
            raise InvalidParameter("chat_template_kwargs", f"cannot have {quoted(name)}, which {_TAKEN[name]}")
        variables[name] = value
    return plain_mapping("chat_template_kwargs", variables)


def chat_prompt(
    templates: ChatTemplates, messages: Sequence[Message], options: ChatOptions, model: str = "the model"
) -> str:
    """The rendered text. `model`: the model's name for errors. Raises InvalidParameter for messages that cannot be
    rendered, TokenizerError if the template refuses them, Unsupported if there is no template."""
    template = _template(templates, options, model)
    if unread := _unread(template, options):
        warn(f"the chat template of {model} does not read {listed(unread)}: what is given for it changes nothing")
    chat = [_shaped(template, message) for message in messages]
    try:
        return template.render(
            chat,
            options.add_generation_prompt,
            options.tools,
            options.documents,
            options.continue_final_message,
            **options.variables,
        )
    except TokenizerError as error:
        for number, message in enumerate(chat, start=1):
            lacks = next((key for key in ("role", CONTENT) if message.get(key) is None), None)
            if lacks is not None:
                problem = f"are refused, and number {number} has no {lacks}: {error}"
                raise InvalidParameter("messages", problem) from error
        raise


def _template(templates: ChatTemplates, options: ChatOptions, model: str) -> ChatTemplate:
    if options.chat_template is not None:
        return templates.named(options.chat_template)
    template = templates.plain(with_tools=options.tools is not None)
    if template is None:
        raise Unsupported(f"{model} has no chat template: use generate() with a text prompt, or give a chat_template")
    return template


def _unread(template: ChatTemplate, options: ChatOptions) -> list[str]:
    """The names of given inputs that the template does not read."""
    inputs = [name for name in ("tools", "documents") if getattr(options, name)]
    inputs = ["messages", *inputs, *options.variables]
    return [name for name in inputs if not template.reads(name)]


def _shaped(template: ChatTemplate, message: Message) -> Message:
    """The message with its content in the form that the template expects: a list of parts, or one text in which each
    part is a line."""
    if not isinstance(message.get("role", ""), str | None):
        raise InvalidParameter("messages", f"must have text as role, not {quoted(message['role'])}")
    parts = text_parts(message.get(CONTENT))
    if parts is None:
        return message
    listed = [{"type": "text", "text": part} for part in parts] if template.takes_parts else "\n".join(parts)
    return {**message, CONTENT: listed}
