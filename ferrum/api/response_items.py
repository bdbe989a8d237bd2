"""The items of a response while they come: reasoning, messages, calls, one after the other.

Owns: which item is open, and the events of each item from its beginning to its end. The events together build exactly
the items of the whole response. Refuses to know: the response around them.
Specs: API-45. Next: `ferrum.api.responses`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

from ferrum.api.answers import call_id
from ferrum.api.protocol.chat import TokenLogprob
from ferrum.api.protocol.responses import CallItem, Item, MessageItem, OutputText, ReasoningItem, ReasoningText, Status
from ferrum.api.reader import News
from ferrum.replies.reply import CallArguments, CallBegins, Content, Part, Reasoning

Event = tuple[str, dict[str, Any]]
"""The type of an event, and its fields."""


class ResponseItems:
    """The `output` of a response."""

    def __init__(self, score: Callable[[News], TokenLogprob] | None) -> None:
        """`score` makes the log probabilities of a token, if they are requested."""
        self.items: list[Item] = []  # the complete items
        self.status: Status = "in_progress"
        self.reasoning_tokens = 0
        self._score = score
        self._open: type[Part] | None = None  # the kind of the open item
        self._id = self._text = self._name = self._call = ""
        self._logprobs: list[TokenLogprob] = []
        self._unsaid: list[TokenLogprob] = []  # of tokens whose text has not come yet

    def push(self, news: News) -> list[Event]:
        """The events of these news."""
        events: list[Event] = []
        if self._score is not None and news.logprobs is not None:
            self._unsaid.append(self._score(news))
        for part in news.parts:
            match part:
                case Reasoning() | Content():
                    events += self._say(type(part), part.text)
                case CallBegins():
                    events += self._begin_call(part)
                case CallArguments():
                    self._text += part.text
                    more = {"item_id": self._id, "output_index": len(self.items), "delta": part.text}
                    events.append(("response.function_call_arguments.delta", more))
        if self._open not in (None, Content):
            self._unsaid = []  # reasoning and calls have no log probabilities
        if self._open is Reasoning and news.token_id is not None:
            self.reasoning_tokens += 1
        if news.finish is not None:
            statuses: dict[str, Status] = {"length": "incomplete", "cancelled": "cancelled", "error": "failed"}
            self.status = statuses.get(news.finish, "completed")
            events += self._close()
        return events

    def _say(self, kind: type[Part], text: str) -> Iterator[Event]:
        if self._open is not kind:
            yield from self._close()
            yield from self._begin_text(kind)
        self._text += text
        place = {"item_id": self._id, "output_index": len(self.items), "content_index": 0}
        if kind is Reasoning:
            yield "response.reasoning_text.delta", {**place, "delta": text}
        else:
            scored, self._unsaid = self._unsaid, []
            self._logprobs += scored
            yield "response.output_text.delta", {**place, "delta": text, "logprobs": scored}

    def _begin_text(self, kind: type[Part]) -> Iterator[Event]:
        self._open, self._text, self._logprobs = kind, "", []
        self._id = f"{'rs' if kind is Reasoning else 'msg'}_{secrets.token_hex(16)}"
        index, item = len(self.items), self._item("in_progress")
        yield "response.output_item.added", {"output_index": index, "item": item.model_copy(update={"content": []})}
        place = {"item_id": self._id, "output_index": index, "content_index": 0}
        yield "response.content_part.added", {**place, "part": self._part()}

    def _begin_call(self, part: CallBegins) -> Iterator[Event]:
        yield from self._close()
        self._open, self._text, self._name, self._call = CallBegins, "", part.name, call_id()
        self._id = f"fc_{secrets.token_hex(16)}"
        yield "response.output_item.added", {"output_index": len(self.items), "item": self._item("in_progress")}

    def _close(self) -> Iterator[Event]:
        """The end of the open item, if one is open."""
        if self._open is None:
            return
        place: dict[str, Any] = {"item_id": self._id, "output_index": len(self.items)}
        if self._open is CallBegins:
            yield "response.function_call_arguments.done", {**place, "name": self._name, "arguments": self._text}
        else:
            inside = {**place, "content_index": 0}
            if self._open is Reasoning:
                yield "response.reasoning_text.done", {**inside, "text": self._text}
            else:
                yield "response.output_text.done", {**inside, "text": self._text, "logprobs": self._logprobs}
            yield "response.content_part.done", {**inside, "part": self._part()}
        item = self._item("completed" if self.status in ("in_progress", "completed") else "incomplete")
        yield "response.output_item.done", {"output_index": len(self.items), "item": item}
        self.items.append(item)
        self._open = None

    def _item(self, status: Status) -> Item:
        part = self._part()
        if isinstance(part, OutputText):
            return MessageItem(id=self._id, type="message", role="assistant", status=status, content=[part])
        if isinstance(part, ReasoningText):
            return ReasoningItem(id=self._id, type="reasoning", status=status, summary=[], content=[part])
        return CallItem(
            id=self._id, type="function_call", status=status, call_id=self._call, name=self._name, arguments=self._text
        )

    def _part(self) -> OutputText | ReasoningText | None:
        if self._open is Content:
            return OutputText(type="output_text", text=self._text, annotations=[], logprobs=self._logprobs)
        if self._open is Reasoning:
            return ReasoningText(type="reasoning_text", text=self._text)
        return None
