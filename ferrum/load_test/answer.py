"""One answer while it arrives.

Owns: which chunks hold text and which only say something about it (the role, the reason for the end, the usage), the
server's count of tokens, and whether the answer is whole. Refuses to know: connections and clocks; it is told the time.
Source: OpenAI's API reference, "Streaming events" of chat and completions.
Specs: BENCH-10 to BENCH-12. Next: `ferrum.load_test.timeline`.
"""

from __future__ import annotations

import json
from typing import Any

from ferrum.errors import SHOWN, quoted
from ferrum.load_test.events import Events
from ferrum.load_test.timeline import BROKEN, NO_TEXT, TOLD, Failure, Usage

TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
"""Fields of a delta that hold text of the model; servers have two names for its reasoning."""


class Answer:
    """Takes bytes with the time at which they came, until it has `ended`: at the time when the server said so."""

    def __init__(self) -> None:
        self.texts: list[float] = []
        self.usage: Usage | None = None
        self.ended: float | None = None
        self._failure: Failure | None = None
        self._finished = False
        self._events = Events()

    def take(self, piece: bytes, now: float) -> None:
        for data in self._events.take(piece):
            self._hear(data, now)

    def end(self, now: float) -> None:
        """The connection has ended."""
        for data in self._events.end():
            self._hear(data, now)
        if self.ended is None:
            self.ended = now
            if not self._finished:
                self._failure = Failure(BROKEN, "the stream ended before the answer did")

    @property
    def failure(self) -> Failure | None:
        """Why the answer is incomplete or empty; None for a complete answer with text."""
        if self._failure is None and not self.texts:
            return Failure(NO_TEXT, "the answer has no text")
        return self._failure

    def _hear(self, data: bytes, now: float) -> None:
        if self.ended is not None:
            return
        if data.strip() == b"[DONE]":
            self.ended = now
            return
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            chunk = None
        if not isinstance(chunk, dict):
            self._failure = Failure(BROKEN, f"an event is not a JSON object: {quoted(data)}")
        elif chunk.get("error"):
            self._failure = Failure(TOLD, error_message(chunk))
        else:
            self._read(chunk, now)
        if self._failure is not None:
            self.ended = now

    def _read(self, chunk: dict[str, Any], now: float) -> None:
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        if has_text(choice):
            self.texts.append(now)
        self._finished = self._finished or choice.get("finish_reason") is not None
        self.usage = counted(chunk.get("usage")) or self.usage


def has_text(choice: dict[str, Any]) -> bool:
    """True if a choice of a chunk (of a chat or a text completion) holds text of the model."""
    delta = choice.get("delta")
    pieces = [delta.get(name) for name in TEXTS] if isinstance(delta, dict) else [choice.get("text")]
    return any(isinstance(text, str) and text for text in pieces)


def counted(usage: Any) -> Usage | None:
    """The server's count; None where there is none that can be true of an answer."""
    if not isinstance(usage, dict):
        return None
    prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if isinstance(prompt, int) and isinstance(output, int) and prompt >= 0 and output > 0:
        return Usage(prompt, output)
    return None


def error_message(body: Any) -> str:
    """What an error says, in OpenAI's form or one of its relatives; else the body itself, in short."""
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message", error.get("detail")) if isinstance(error, dict) else error
    text = " ".join(message.split()) if isinstance(message, str) else quoted(body)
    return text if len(text) <= 4 * SHOWN else text[: 4 * SHOWN] + "..."
