"""Text out of a stream of tokens: whole characters only, and nothing of a stop string.

A token may end in the middle of a character, and a stop string may begin in the middle of one token and end in
another. Both classes hold back the few bytes or characters that could still become something else, and no more.

Owns: `IncrementalDetokenizer` (ids to text), `StopStrings` (text to text). Refuses to know: sampling, end-of-sequence
tokens, requests. Specs: TEXT-13 to TEXT-16. Next: `ferrum.sched.scheduler`.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from ferrum.errors import InvalidParameter
from ferrum.text.tokenizer import Tokenizer

_new_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class IncrementalDetokenizer:
    """Decodes one sequence token by token; what `push` and `finish` return, joined, is `Tokenizer.decode` of it."""

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset[int]()
        self._utf8 = _new_utf8_decoder(errors="replace")
        self._strips_space = tokenizer.spelling.strips_leading_space

    def push(self, token_id: int) -> str:
        """The text this token completes; empty while a character lacks bytes. Raises as `Tokenizer.token_bytes`."""
        if token_id in self._skipped:
            return ""
        return self._without_leading_space(self._utf8.decode(self._tokenizer.token_bytes(token_id)))

    def finish(self) -> str:
        """The end of the text: U+FFFD if the last character never got its bytes, else nothing."""
        return self._without_leading_space(self._utf8.decode(b"", final=True))

    def _without_leading_space(self, text: str) -> str:
        if not text or not self._strips_space:
            return text
        self._strips_space = False
        return text.removeprefix(" ")


class StopStrings:
    """Ends a text at the first stop string to be complete in it, however the text is cut into pieces.

    Reading character by character, the first stop string that is complete wins, and of several complete at the same
    character the longest. So a generation need not run on to see whether a longer one follows, and the same text ends
    in the same place whatever its tokens are.
    """

    def __init__(self, stop: Sequence[str], include: bool) -> None:
        """`include`: the stop string itself belongs to the text. Raises `InvalidParameter` for an empty one."""
        if not all(stop):
            raise InvalidParameter("stop", "must hold non-empty strings, not ''")
        self._stop = tuple(stop)
        self._include = include
        self._held = ""  # the longest end of the text so far that begins a stop string
        self._stopped = False

    def push(self, text: str) -> tuple[str, bool]:
        """What can be shown after this text, and whether a stop string has been met; after that, nothing more is."""
        if self._stopped:
            return "", True
        text = self._held + text
        found = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        if found:
            end, start = min(found)
            self._held, self._stopped = "", True
            return text[: end if self._include else start], True
        shown = len(text) - self._longest_begun(text)
        self._held = text[shown:]
        return text[:shown], False

    def finish(self) -> str:
        """What was held back for a stop string that did not come."""
        held, self._held = self._held, ""
        return held

    def _longest_begun(self, text: str) -> int:
        """Characters at the end of `text` that are the beginning of a stop string, at most."""
        longest = min(len(text), max(map(len, self._stop), default=0) - 1)
        return next(
            (size for size in range(longest, 0, -1) if any(stop.startswith(text[-size:]) for stop in self._stop)), 0
        )
