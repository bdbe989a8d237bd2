"""The forms in which callers write prompts, conversations and parameters, each converted to a plain list.

Owns: telling one prompt from a list of prompts. Refuses to know: what is done with them.
Specs: ENGINE-19. Next: `ferrum.engine.conversations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from ferrum.errors import InvalidParameter, quoted
from ferrum.given import index, is_one, items, text
from ferrum.sampling_params import SamplingParams
from ferrum.text.template_data import Copier, is_object
from ferrum.types import Message, Priority

Prompt = str | Sequence[int]
Item = TypeVar("Item")


def as_prompts(prompts: Prompt | Sequence[Prompt], name: str = "prompts") -> list[str | list[int]]:
    """One prompt (a text, or token ids) or a sequence of prompts -> a list of prompts. An empty sequence gives an
    empty list. `name`: the parameter that an error names."""
    single = text(prompts)
    if single is not None:
        return [single]
    entries = items(name, prompts, "texts or token ids")
    ids = [index(item) for item in entries]
    if entries and None not in ids:
        return [[token for token in ids if token is not None]]
    return [as_prompt(name, item) for item in entries]


def as_prompt(name: str, prompt: object) -> str | list[int]:
    """A text, or token ids as plain integers; NumPy's integers are accepted."""
    single = text(prompt)
    if single is not None:
        return single
    token_ids = []
    for item in items(name, prompt, "token ids, or text"):
        token = index(item)
        if token is None:
            raise InvalidParameter(name, f"must be text or a list of token ids, and {quoted(item)} is no token id")
        token_ids.append(token)
    return token_ids


def as_conversations(messages: Sequence[Message] | Sequence[Sequence[Message]]) -> list[list[Message]]:
    """One conversation (a sequence of messages) or a sequence of conversations -> a list of conversations."""
    entries = items("messages", messages, "messages")
    conversations: list[Any] = [entries] if all(map(is_object, entries)) else entries
    return [_messages(conversation) for conversation in conversations]


def _messages(conversation: object) -> list[Message]:
    messages = [_message(message) for message in items("messages", conversation, "messages")]
    if not messages:
        raise InvalidParameter("messages", 'must be a list of messages such as {"role": "user", "content": "Hi"}')
    return messages


def _message(message: object) -> Message:
    if not is_object(message):
        example = 'mappings of names to values, such as {"role": "user", "content": "Hi"}'
        raise InvalidParameter("messages", f"must be {example}, not {quoted(message)}")
    copied: dict[str, Any] = Copier("messages")(message)
    for key in copied:
        if type(key) is not str:
            raise InvalidParameter("messages", f"have texts for keys, not {quoted(key)}")
    return copied


def as_params(params: SamplingParams | Sequence[SamplingParams] | None, count: int) -> list[SamplingParams]:
    """One set of parameters for all prompts, or one per prompt -> one per prompt. None is the default."""
    return _each("params", SamplingParams() if params is None else params, SamplingParams, count)


def as_priorities(priority: Priority | Sequence[Priority], count: int) -> list[Priority]:
    """One priority for all prompts, or one per prompt -> one per prompt."""
    return _each("priority", priority, Priority, count)


def _each(name: str, value: object, kind: type[Item], count: int) -> list[Item]:
    if type(value) is kind:
        return [value] * count
    values = items(name, value, f"{kind.__name__}, one for each prompt")
    if len(values) != count or not all(is_one(item, kind) for item in values):
        raise InvalidParameter(name, f"must be {kind.__name__} or a list of {count}, one per prompt")
    return values
