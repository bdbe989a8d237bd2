"""The parts of a reply, as the reader of a format adds them.

Owns: the numbers of calls, and white space. White space around a tag belongs to the tag and is dropped. Before a tag it
is held back until the next text is known. Refuses to know: tags.
Specs: REPLY-04. Next: `ferrum.replies.parser`.
"""

from __future__ import annotations

from ferrum.replies.reply import CallArguments, CallBegins, Content, Part, Reasoning
from ferrum.replies.source import SPACE


class Parts:
    """The parts that were added and not fetched yet."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._calls = 0
        self._held: list[str] = []  # white space
        self._drops = False  # True after a tag: white space is dropped
        self._behind_call = False
        self._has_content = False

    def fetched(self) -> list[Part]:
        """The parts since the last call."""
        parts, self._parts = self._parts, []
        return parts

    def content(self, text: str) -> None:
        text = self._stripped(text)
        if text:
            self._has_content, self._behind_call = True, False
            self._parts.append(Content(text))

    def reasoning(self, text: str) -> None:
        text = self._stripped(text)
        if text:
            self._parts.append(Reasoning(text))

    def _stripped(self, text: str) -> str:
        """The held-back white space and the text, without the white space at its end, which is held back."""
        if self._drops:
            text = text.lstrip(SPACE)
            self._drops = not text
        body = text.rstrip(SPACE)
        if not body:
            self._held.append(text)
            return ""
        held, self._held = "".join(self._held), [text[len(body) :]]
        return held + body

    def tag(self) -> None:
        """A tag of the format stands here."""
        self._held.clear()
        self._drops = True

    def new_line(self) -> None:
        """The next part begins a new line."""
        self._held = ["\n"]

    def call(self, name: str) -> None:
        """White space before a call is kept if content stands on both sides."""
        if not self._has_content:
            self._held.clear()
        self._drops = self._behind_call = True
        self._parts.append(CallBegins(self._calls, name))
        self._calls += 1

    def arguments(self, text: str) -> None:
        """More arguments of the last call."""
        if text:
            self._parts.append(CallArguments(self._calls - 1, text))

    def end(self) -> None:
        """The end of the answer. White space at the end is content, unless it stands beside a tag."""
        held = "".join(self._held)
        self._held.clear()
        if held and not self._behind_call:
            self._parts.append(Content(held))
