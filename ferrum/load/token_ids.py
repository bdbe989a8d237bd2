"""The ids that begin and end a text, as a model's files give them.

Owns: the values that mean "none" in files. Ids outside the vocabulary are ignored, because they can never come. Refuses
to know: the tokens (`ferrum.text`).
Specs: LOAD-26, LOAD-80. Source: transformers' config.json and generation_config.json; the GGUF format document, section
on tokenizers. Next: `ferrum.load.layout`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ferrum.errors import quoted, warn
from ferrum.fields import Fields
from ferrum.text.gguf_tokens import NO_TOKEN


@dataclass(frozen=True)
class TokenIds:
    """Each of `eos_token_ids` ends an answer."""

    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()


NO_IDS = TokenIds()


def json_token_ids(files: Iterable[Fields]) -> TokenIds:
    """From config.json and generation_config.json, in this order: the first gives the beginning, both give ends."""
    beginnings: list[int] = []
    ends: list[int] = []
    size: int | None = None
    for fields in files:
        size = _size(fields.get("vocab_size")) or size
        beginnings += _ids(fields, "bos_token_id", size, limit=1)
        ends += _ids(fields, "eos_token_id", size)
    return TokenIds(beginnings[0] if beginnings else None, tuple(dict.fromkeys(ends)))


def gguf_token_ids(fields: Fields) -> TokenIds:
    """From GGUF metadata. The ends of the sequence, of a turn and of a message all end an answer."""
    size = len(fields.texts("tokenizer.ggml.tokens")) if "tokenizer.ggml.tokens" in fields else None
    beginnings = _ids(fields, "tokenizer.ggml.bos_token_id", size, limit=1)
    ends = [token for name in ("eos", "eot", "eom") for token in _ids(fields, f"tokenizer.ggml.{name}_token_id", size)]
    return TokenIds(beginnings[0] if beginnings else None, tuple(dict.fromkeys(ends)))


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _ids(fields: Fields, key: str, size: int | None, limit: int | None = None) -> list[int]:
    """None, one or several token ids; `size` is the size of the vocabulary, None if it is unknown."""
    value = fields.get(key)
    values = value if isinstance(value, list) and limit is None else [] if value is None else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in values):
        raise fields.wrong(key, "a token id" if limit else "a token id or a list of token ids")
    tokens = [token for token in values if token not in NO_TOKEN]
    valid = [token for token in tokens if 0 <= token < (size or token + 1)]
    for token in dict.fromkeys(tokens):
        if token not in valid:
            warn(f"{fields.where}: {fields.prefix}{key} names token {quoted(token)}, which the model does not have")
    return valid
