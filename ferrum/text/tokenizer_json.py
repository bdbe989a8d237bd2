"""Reading a tokenizer.json: its text, and the steps that are checked before the library reads them.

The library normalises the added tokens and compiles character rules and regular expressions while it reads the file, so
hostile steps have to be refused before.

Owns: the largest size of a file, and finding its parts without reading the vocabulary. Refuses to know: which steps are
harmful (`tokenizer_steps`). Specs: TEXT-06, TEXT-40 to TEXT-44, TEXT-47. Next: `ferrum.text.sentencepiece_text`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ferrum.errors import FerrumError, NotFound, TokenizerError, quoted
from ferrum.files import read_text
from ferrum.text.added_tokens import AddedText
from ferrum.text.tokenizer_steps import LARGEST_TEXT, Growth, growth_of

LARGEST = 64 << 20
"""Bytes of a file. The largest published ones have half as many; the library needs ten bytes of memory for each."""

_MODEL = '"model"'
_LOOKED_AT = ('"normalizer"', '"pre_tokenizer"', '"added_tokens"')
_ESCAPED_LETTERS = ("\\u005", "\\u006", "\\u007")  # a key written with such escapes is not found as plain text
_PREFIX = re.compile(r'"continuing_subword_prefix"\s*:(?!\s*(?:null|""))')


class TokenizerFile:
    """A tokenizer.json: a path, or its text (a string that starts with a brace). It is read on the first access."""

    def __init__(self, source: str | Path) -> None:
        is_text = isinstance(source, str) and source.lstrip().startswith("{")
        self.name = "the given text" if is_text else str(source)
        self._source = source
        self._is_text = is_text

    @cached_property
    def text(self) -> str:
        """The whole file. Raises `NotFound` for a missing file, `TokenizerError` for one that cannot be read."""
        if self._is_text:
            return str(self._source)
        try:
            return read_text(Path(self._source), LARGEST)
        except NotFound:
            raise NotFound(f"{self.name} does not exist; a tokenizer.json is needed") from None
        except FerrumError as error:
            raise TokenizerError(f"{self.name} cannot be read as a tokenizer.json: {error}") from None

    @cached_property
    def parts(self) -> Mapping[str, Any]:
        """The members of the file's object; "model" is None if reading it was not necessary. Raises as `text` does."""
        try:
            return _parts(self.text)
        except TokenizerError as error:
            raise TokenizerError(f"{self.name}: {error}") from None
        except (ValueError, RecursionError) as error:  # malformed JSON, numbers of thousands of digits, deep nesting
            raise TokenizerError(f"{self.name} is not a valid tokenizer.json: {error}") from None

    def checked(self, added: Sequence[AddedText] = ()) -> str:
        """The text of the file, once its steps are checked, together with the tokens `added` that other files name.
        Raises as `text` does, and `TokenizerError` for steps that are refused."""
        parts = self.parts
        try:
            growth = growth_of(parts.get("normalizer"), parts.get("pre_tokenizer"))
            _check_added([*self._added, *({"content": token.content} for token in added)], growth)
            _check_model(parts.get("model"))
        except TokenizerError as error:
            raise TokenizerError(f"{self.name}: {error}") from None
        return self.text

    # ---- parts that readers of other files ask for
    @property
    def _added(self) -> list[Any]:
        tokens = self.parts.get("added_tokens")
        return tokens if isinstance(tokens, list) else []

    @property
    def added_tokens(self) -> list[AddedText]:
        """The added tokens that are well-formed; the library refuses a file with others."""
        return [_added_text(token) for token in self._added if _is_added(token)]

    @property
    def pad_token(self) -> str | None:
        """The text of the padding token; None if there is none."""
        padding = self.parts.get("padding")
        token = padding.get("pad_token") if isinstance(padding, dict) else None
        return token if isinstance(token, str) else None

    @property
    def is_byte_level(self) -> bool:
        """True if the vocabulary writes bytes in the alphabet of GPT-2."""
        return '"ByteLevel"' in self.text


def _parts(text: str) -> Mapping[str, Any]:
    """The members of the file's object. A "model" that comes last and has no prefix, as nearly always, becomes None: to
    parse the vocabulary here as well would make loading take half as long again."""
    head, model_key, tail = text.partition(_MODEL)
    if model_key and not any(word in tail for word in (*_LOOKED_AT, *_ESCAPED_LETTERS)) and not _PREFIX.search(tail):
        try:
            return _object(head + '"model": null}')
        except ValueError:
            pass  # what was found is not the key of the outer object
    return _object(text)


def _check_added(tokens: Any, growth: Growth) -> None:
    """Raises `TokenizerError` for added tokens that become too large when the library normalises them."""
    texts = (token.get("content") for token in tokens if isinstance(token, dict)) if isinstance(tokens, list) else ()
    if sum(len(text) for text in texts if isinstance(text, str)) * growth.normalized > LARGEST_TEXT:
        raise TokenizerError(f"its added tokens can become more than {LARGEST_TEXT} characters")


def _check_model(model: Any) -> None:
    """Raises `TokenizerError` for a BPE model with a prefix: the library removes as many bytes as the prefix has from
    tokens of merges, may cut a character in two, and then ends the process when it reports an error."""
    if isinstance(model, dict) and model.get("type") != "WordPiece" and model.get("continuing_subword_prefix"):
        raise TokenizerError("a BPE model with a continuing_subword_prefix is not supported")


def _is_added(token: Any) -> bool:
    return isinstance(token, dict) and isinstance(token.get("id"), int) and isinstance(token.get("content"), str)


def _added_text(token: Mapping[str, Any]) -> AddedText:
    names = ("special", "normalized", "lstrip", "rstrip", "single_word")
    return AddedText(token["content"], **{name: token.get(name) is True for name in names}, file_id=token["id"])


def _object(text: str) -> Mapping[str, Any]:
    parts = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(parts, dict):
        raise TokenizerError("it must hold a JSON object")
    return parts


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members as a dict. Raises `TokenizerError` for a key that stands twice: the checks would see one of the
    values, and the library might use the other."""
    values = dict(members)
    if len(values) != len(members):
        keys = [key for key, _ in members]
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise TokenizerError(f"an object in it has the key {quoted(twice)} twice")
    return values
