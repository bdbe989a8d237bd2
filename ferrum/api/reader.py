"""The choices of an answer while they come: text split into parts, with the log probabilities of its tokens.

Owns: `ChoiceReader`, which reads every chat, streamed or not, so that both give the same. Refuses to know: JSON, and
how models write calls (`ferrum.replies`).
Specs: API-06, API-14, API-31, API-33. Next: `ferrum.api.answers`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from ferrum.replies.reply import CallArguments, CallBegins, Part, ReplyParser
from ferrum.types import FinishReason, Logprobs, StreamChunk


@dataclass(frozen=True)
class News:
    """The content of a chunk: parts of the reply, the token with its log probabilities, the end."""

    parts: list[Part]
    token_id: int | None
    logprobs: Logprobs | None
    finish: str | None


@dataclass
class ChoiceReader:
    """One choice. `ends`: tokens that end an answer and are not a part of its text. `most_calls`: further calls are
    dropped (1 with `parallel_tool_calls: false`)."""

    parser: ReplyParser
    ends: Collection[int]
    most_calls: int | None = None
    calls: int = field(default=0, init=False)

    def push(self, chunk: StreamChunk) -> News:
        """The news of this chunk."""
        parts = self.parser.push(chunk.text)
        if chunk.finish_reason is not None:
            parts = [*parts, *self.parser.finish(cut=chunk.finish_reason is not FinishReason.STOP)]
        kept_parts = [part for part in parts if self._keeps(part)]
        is_end = chunk.finish_reason is FinishReason.STOP and chunk.token_id in self.ends
        reason = None if chunk.finish_reason is None else self._finish(chunk.finish_reason)
        return News(kept_parts, chunk.token_id, None if is_end else chunk.logprobs, reason)

    def close(self, reason: FinishReason) -> News:
        """The end of a choice that did not finish by itself."""
        return News(
            [part for part in self.parser.finish(cut=True) if self._keeps(part)], None, None, self._finish(reason)
        )

    def _keeps(self, part: Part) -> bool:
        if isinstance(part, CallBegins):
            self.calls = part.index + 1
        return not (
            isinstance(part, CallBegins | CallArguments)
            and self.most_calls is not None
            and part.index >= self.most_calls
        )

    def _finish(self, reason: FinishReason) -> str:
        return "tool_calls" if reason is FinishReason.STOP and self.calls else str(reason)
