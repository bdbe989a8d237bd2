"""The text of a stream of tokens: whole characters only, without stop strings.

A token may end in the middle of a character, and a stop string may begin in the middle of one token and end in
another. Both classes hold back only the bytes or characters that may become part of a character or a stop string.

Owns: `IncrementalDetokenizer` (ids to text), `StopStrings` (text to text). Refuses to know: sampling, end-of-sequence
tokens, requests. Specs: TEXT-13 to TEXT-16. Next: `ferrum.replies.reply`.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ferrum.errors import InvalidParameter
from ferrum.text.tokenizer import Tokenizer

_new_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class IncrementalDetokenizer:
    """Decodes one sequence token by token; the results of `push` and `finish`, joined, are `Tokenizer.decode` of it. If
    the sequence continues a prompt that ends with a whole character, they are what it adds to the decoded prompt."""

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True, prompt_ids: Iterable[int] = ()) -> None:
        """`prompt_ids`: the tokens before the sequence. Encoding put a space in front of the whole text; if the prompt
        has text, that space is in the prompt, and a space at the start of the sequence belongs to its text."""
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset[int]()
        self._utf8 = _new_utf8_decoder(errors="replace")
        self._strips_space = tokenizer.spelling.strips_leading_space and not any(
            tokenizer.token_bytes(token) for token in prompt_ids if token not in self._skipped
        )

    def push(self, token_id: int) -> str:
        """The text this token completes; empty while a character lacks bytes. Raises as `Tokenizer.token_bytes`."""
        if token_id in self._skipped:
            return ""
        return self._without_leading_space(self._utf8.decode(self._tokenizer.token_bytes(token_id)))

    def finish(self) -> str:
        """The end of the text: U+FFFD if the last character is incomplete, else nothing."""
        return self._without_leading_space(self._utf8.decode(b"", final=True))

    def _without_leading_space(self, text: str) -> str:
        if not text or not self._strips_space:
            return text
        self._strips_space = False
        return text.removeprefix(" ")


class StopStrings:
    """Ends a text at its first complete stop string, however the text is cut into pieces.

    The text is read character by character. The stop string that is complete first wins; of several that are complete
    at the same character, the longest. So generation need not go on to see whether a longer one follows, and a text
    ends at the same place however it is cut into tokens.
    """

    def __init__(self, stop: Sequence[str], include: bool) -> None:
        """`include`: the stop string itself belongs to the text. Raises `InvalidParameter` for an empty one."""
        if not all(stop):
            raise InvalidParameter("stop", "must hold non-empty strings, not ''")
        self._search = _search(tuple(stop))
        self._include = include
        self._place = 0
        self._pending = ""  # the longest end of the text so far that begins a stop string
        self._stopped = False

    def push(self, text: str) -> tuple[str, bool]:
        """The text that can be shown now, and whether a stop string is complete; afterwards no text is shown."""
        if self._stopped:
            return "", True
        search, place, before = self._search, self._place, len(self._pending)
        if not search.longest:
            return text, False
        text = self._pending + text
        for end in range(before + 1, len(text) + 1):
            place = search.step(place, text[end - 1])
            complete = search.complete[place]
            if complete:
                self._pending, self._stopped = "", True
                return text[: end if self._include else end - complete], True
        shown = len(text) - search.begun[place]
        self._place, self._pending = place, text[shown:]
        return text[:shown], False

    def finish(self) -> str:
        """The text that was held back because it could have become a stop string."""
        pending, self._pending, self._place = self._pending, "", 0
        return pending


class _Search:
    """A search for several strings at once (Aho and Corasick, CACM 18, 1975): the time per character depends neither on
    the number of strings nor on their lengths. A place stands for the longest suffix of the text that is a prefix of a
    string. `begun`: its length; `complete`: the length of the longest string that ends here, or 0."""

    def __init__(self, strings: Sequence[str]) -> None:
        self.longest = max(map(len, strings), default=0)
        self._next: list[dict[str, int]] = [{}]
        self._shorter = [0]  # the place of the next shorter such suffix
        self.begun, self.complete = [0], [0]
        for string in strings:
            self.complete[self._add(string)] = len(string)
        places = list(self._next[0].values())
        for place in places:  # shorter ones first
            self.complete[place] = self.complete[place] or self.complete[self._shorter[place]]
            for char, longer in self._next[place].items():
                self._shorter[longer] = self.step(self._shorter[place], char)
                places.append(longer)

    def _add(self, string: str) -> int:
        """Adds the places of a string -> the place of the whole string."""
        place = 0
        for length, char in enumerate(string, start=1):
            if char not in self._next[place]:
                self._next[place][char] = len(self._next)
                self._next.append({})
                self._shorter.append(0)
                self.begun.append(length)
                self.complete.append(0)
            place = self._next[place][char]
        return place

    def step(self, place: int, char: str) -> int:
        """The place after one more character."""
        while (following := self._next[place].get(char)) is None:
            if not place:
                return 0
            place = self._shorter[place]
        return following


_search = lru_cache(4)(_Search)  # all choices of a prompt share one search
