"""The tokens of GGUF metadata: text, type and score of each, and the ids of tokens with a role.

Owns: reading `tokenizer.ggml.*` keys, and refusing keys that contradict each other. Refuses to know: how text becomes
tokens, and the file itself; `ferrum.load` hands over its metadata.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (tokenizer), and llama.cpp for the token types.
Specs: TEXT-06, TEXT-12, TEXT-45, TEXT-55. Next: `ferrum.text.pre_tokenizers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from ferrum.errors import TokenizerError, quoted, warn
from ferrum.fields import Fields

PREFIX = "tokenizer.ggml."
NO_TOKEN = (-1, 0xFFFFFFFF)
"""The values that stand for no token in files; the second is -1 as an unsigned number of 32 bits."""
LONGEST_TOKEN = 1024  # characters; tokens of published models have up to some two hundred


class TokenType(IntEnum):
    """Values of `tokenizer.ggml.token_type`, one per token."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def require(fields: Fields, key: str) -> None:
    """Raises `TokenizerError` where the file does not have the key."""
    if key not in fields:
        raise TokenizerError(f"the GGUF file has no {fields.prefix}{key}, which its tokenizer needs")


def token_texts(fields: Fields) -> list[str]:
    """The text of every token, by id; an empty text becomes "[EMPTY_id]", as in llama.cpp. Raises `TokenizerError` for
    a file without tokens and for a token of more than `LONGEST_TOKEN` characters."""
    require(fields, "tokens")
    tokens = [text or f"[EMPTY_{index}]" for index, text in enumerate(fields.texts("tokens"))]
    if max(map(len, tokens), default=0) > LONGEST_TOKEN:  # matching takes time quadratic in the length
        raise TokenizerError(f"the GGUF tokenizer has a token of more than {LONGEST_TOKEN} characters")
    return tokens


def token_id(fields: Fields, key: str, vocab_size: int, default: int | None = None) -> int | None:
    """The id under `key`, else `default`, else None. An id that no token has counts as absent; unless it is one of
    `NO_TOKEN`, a warning says so. Raises `InvalidFormat` for a value that is not a whole number."""
    value = fields.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise fields.wrong(key, "a whole number")
    if value is not None and 0 <= value < vocab_size:
        return value
    if value not in (None, *NO_TOKEN):
        warn(f"{fields.where}: {fields.prefix}{key} names token {quoted(value)}, which the model does not have")
    return default if default is not None and default < vocab_size else None


def token_types(fields: Fields, vocab_size: int) -> np.ndarray:
    """The type of every token, integers [tokens]; empty for a file without types. Raises `TokenizerError` if there are
    more or fewer types than tokens."""
    types = fields.integers("token_type") if "token_type" in fields else np.zeros(0, np.int64)
    if len(types) not in (0, vocab_size):
        raise TokenizerError(f"the GGUF tokenizer has {len(types)} token types for {vocab_size} tokens")
    return types


def token_scores(fields: Fields, vocab_size: int) -> np.ndarray:
    """The score of every token, numbers [tokens]. Raises `TokenizerError` if there are more or fewer scores than
    tokens, or a score is not finite."""
    require(fields, "scores")
    scores = fields.numbers("scores")
    if len(scores) != vocab_size:
        raise TokenizerError(f"the GGUF tokenizer has {len(scores)} scores for {vocab_size} tokens")
    if not np.isfinite(scores).all():
        raise TokenizerError(f"the GGUF tokenizer has a score that is not a finite number ({fields.prefix}scores)")
    return scores


def vocabulary(tokens: Sequence[str]) -> dict[str, int]:
    """Ids by text. Raises `TokenizerError` where two tokens have the same text."""
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(ids) != len(tokens):
        raise TokenizerError("the GGUF tokenizer lists the same token twice (tokenizer.ggml.tokens)")
    return ids
