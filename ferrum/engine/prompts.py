"""The forms in which callers write prompts, conversations and parameters, each made a plain list.

Owns: telling one prompt from a list of prompts. Refuses to know: what is done with them.
Specs: ENGINE-19. Next: `ferrum.engine.scoring`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsIndex, TypeVar

from ferrum.errors import InvalidParameter
from ferrum.sampling_params import SamplingParams
from ferrum.types import Message, Priority

Prompt = str | Sequence[int]
Item = TypeVar("Item")


def as_prompts(prompts: Prompt | Sequence[Prompt]) -> list[str | list[int]]:
    """One prompt (a text, or token ids) or a sequence of prompts -> a list of prompts. An empty sequence has none."""
    if isinstance(prompts, str):
        return [prompts]
    items = _items("prompts", prompts)
    if items and all(isinstance(item, SupportsIndex) for item in items):
        return [_ids(items)]
    return [item if isinstance(item, str) else _ids(_items("prompts", item)) for item in items]


def as_conversations(messages: Sequence[Message] | Sequence[Sequence[Message]]) -> list[list[Message]]:
    """One conversation (a sequence of messages) or a sequence of conversations -> a list of conversations."""
    items = _items("messages", messages)
    conversations = [items] if all(isinstance(item, Mapping) for item in items) else items
    found = [_items("messages", conversation) for conversation in conversations]
    for conversation in found:
        if not conversation or not all(isinstance(message, Mapping) for message in conversation):
            raise InvalidParameter("messages", 'must be a list of messages such as {"role": "user", "content": "Hi"}')
    return found


def as_params(params: SamplingParams | Sequence[SamplingParams] | None, count: int) -> list[SamplingParams]:
    """One set of parameters for all prompts, or one per prompt -> one per prompt. None is the default."""
    return _each("params", SamplingParams() if params is None else params, SamplingParams, count)


def as_priorities(priority: Priority | Sequence[Priority], count: int) -> list[Priority]:
    """One priority for all prompts, or one per prompt -> one per prompt."""
    return _each("priority", priority, Priority, count)


def _each(name: str, given: Item | Sequence[Item], kind: type[Item], count: int) -> list[Item]:
    if isinstance(given, kind):
        return [given] * count
    items = list(given) if isinstance(given, Iterable) else []
    if len(items) != count or not all(isinstance(item, kind) for item in items):
        raise InvalidParameter(name, f"must be {kind.__name__} or a list of {count}, one per prompt")
    return items


def _items(name: str, values: Any) -> list[Any]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidParameter(name, f"cannot be {values!r}")
    return list(values)


def _ids(items: list[Any]) -> list[int]:
    """Token ids as plain integers, whatever integers they are: NumPy's, for one."""
    try:
        return [operator.index(item) for item in items]
    except TypeError as error:
        raise InvalidParameter("prompts", f"must be text or a list of token ids: {error}") from error
