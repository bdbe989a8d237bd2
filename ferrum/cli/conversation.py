"""A conversation: its messages, its system message and its parameters.

Owns: the state of a chat, and its file. A conversation is immutable: each method returns a new one, so that a failure
leaves the old one unchanged. Refuses to know: terminals, engines. Specs: CLI-60, CLI-61, FILES-02.
Next: `ferrum.cli.parameters`.
Next: `ferrum.cli.parameters`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from ferrum.cli.parameters import as_json, from_json
from ferrum.errors import InvalidFormat, InvalidParameter, NotFound, quoted
from ferrum.files import read_text, replacing
from ferrum.sampling_params import SamplingParams
from ferrum.types import Message

MOST_BYTES = 64 << 20
"""Bytes of a file that is read as a conversation."""
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"


@dataclass(frozen=True)
class Turn:
    """A message and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """`unanswered`: the last message, if its answer failed or was stopped before the first word; the next message
    replaces it. `begun`: the beginning of its answer, which the model continues."""

    params: SamplingParams
    system: str | None = None
    turns: tuple[Turn, ...] = ()
    unanswered: str | None = None
    begun: str | None = None

    def messages(self) -> list[Message]:
        """All messages, in the form that chat templates take."""
        said = [] if self.system is None else [(SYSTEM, self.system)]
        for turn in self.turns:
            said += [(USER, turn.question), (ASSISTANT, turn.answer)]
        if self.unanswered is not None:
            said.append((USER, self.unanswered))
        if self.begun is not None:
            said.append((ASSISTANT, self.begun))
        return [{"role": role, "content": text} for role, text in said]

    def asked(self, text: str) -> Conversation:
        """The conversation with a new message, not answered yet."""
        return replace(self, unanswered=text)

    def asked_again(self) -> Conversation:
        """The conversation without the last answer. Raises NotFound if there is no message."""
        if self.unanswered is not None:
            return self
        if not self.turns:
            raise NotFound("there is no message yet that could be answered again")
        return replace(self, turns=self.turns[:-1], unanswered=self.turns[-1].question)

    def continued(self) -> Conversation:
        """The conversation whose last answer is to be continued. Raises NotFound if there is no answer."""
        if self.unanswered is not None or not self.turns:
            raise NotFound("the last message has no answer yet that could be continued")
        last = self.turns[-1]
        return replace(self, turns=self.turns[:-1], unanswered=last.question, begun=last.answer)

    def answered(self, text: str) -> Conversation:
        """The conversation with an answer to its last message."""
        if self.unanswered is None:
            raise ValueError("no message waits for an answer")
        turn = Turn(self.unanswered, (self.begun or "") + text)
        return replace(self, turns=(*self.turns, turn), unanswered=None, begun=None)

    def cleared(self) -> Conversation:
        """The conversation without messages, except for the system message."""
        return replace(self, turns=(), unanswered=None)


def save(conversation: Conversation, path: Path, model: str) -> None:
    """Writes a file for `load`, and replaces an older one. Raises InvalidParameter if the file holds something else,
    OSError if it cannot be written; then the older file is unchanged."""
    if path.is_file() and path.stat().st_size:
        try:
            load(path, conversation.params)
        except InvalidFormat:
            raise InvalidParameter("file", f"{path} is not a conversation: it is not written over") from None
    content = {"model": model, "messages": conversation.messages(), "params": as_json(conversation.params)}
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))  # half of a surrogate pair becomes a JSON escape


def load(path: Path, params: SamplingParams) -> Conversation:
    """The conversation that `save` wrote; `params` are used if the file has none. Raises InvalidFormat for any other
    content and if it is not a regular file, NotFound if there is no file."""
    text = read_text(path, MOST_BYTES)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidFormat(f"{path} is not JSON: {error}") from None
    try:
        fields = _mapping(content, "a conversation")
        unknown = [name for name in fields if name not in ("model", "messages", "params")]
        if unknown:
            raise InvalidFormat(f"{quoted(unknown[0])} has no meaning in a conversation")
        if fields.get("params") is not None:
            loaded = from_json(_mapping(fields["params"], '"params"'))
            params = replace(loaded, structured_outputs=params.structured_outputs)  # a file does not hold them
        return _conversation(fields.get("messages"), params)
    except (InvalidFormat, InvalidParameter) as error:
        raise InvalidFormat(f"{path}: {error}") from None


def _conversation(messages: Any, params: SamplingParams) -> Conversation:
    """The messages of a file: a system message or none, then user and assistant by turns."""
    if not isinstance(messages, list):
        raise InvalidFormat('a conversation has a list of "messages"')
    conversation = Conversation(params)
    for number, message in enumerate(messages, start=1):
        fields = _mapping(message, f"message {number}")
        role, text = fields.get("role"), fields.get("content")
        if set(fields) != {"role", "content"} or not is_text(text):
            raise InvalidFormat(f'message {number} must have a "role" and a text as "content", and nothing else')
        if role == SYSTEM and number == 1:
            conversation = replace(conversation, system=text)
        elif role == USER and conversation.unanswered is None:
            conversation = conversation.asked(text)
        elif role == ASSISTANT and conversation.unanswered is not None:
            conversation = conversation.answered(text)
        else:
            raise InvalidFormat(
                f"message {number} is out of turn: user and assistant alternate, after one of the system"
            )
    return conversation


def is_text(value: object) -> TypeGuard[str]:
    """True for text that a file in UTF-8 can hold. Half of a surrogate pair, which Python makes of a byte that is no
    UTF-8, is not."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidFormat(f"{name} must be a JSON object")
    return value
