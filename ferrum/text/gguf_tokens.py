"""What GGUF metadata says of each token: its text, its type, its score, and the ids of those with a role.

Owns: reading `tokenizer.ggml.*` keys, and noticing that they contradict each other. Refuses to know: how text becomes
tokens, and the file itself; `ferrum.load` hands over its metadata.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (tokenizer), and llama.cpp for the token types.
Specs: TEXT-06, TEXT-12. Next: `ferrum.text.pre_tokenizers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from ferrum.errors import TokenizerError

PREFIX = "tokenizer.ggml."


class TokenType(IntEnum):
    """Values of `tokenizer.ggml.token_type`, one per token."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def require(metadata: Mapping[str, Any], key: str) -> Any:
    """The value of `tokenizer.ggml.<key>`. Raises `TokenizerError` where there is none."""
    try:
        return metadata[PREFIX + key]
    except KeyError:
        raise TokenizerError(f"the GGUF file has no {PREFIX + key}, which its tokenizer needs") from None


def token_id(metadata: Mapping[str, Any], key: str, vocab_size: int) -> int | None:
    """The id under `key`, if the file has one. Raises `TokenizerError` for one that no token has."""
    value = metadata.get(PREFIX + key)
    if value is None:
        return None
    if not 0 <= int(value) < vocab_size:
        raise TokenizerError(f"{PREFIX + key} is {value}, but the GGUF tokenizer has {vocab_size} tokens")
    return int(value)


def token_types(metadata: Mapping[str, Any], vocab_size: int) -> np.ndarray:
    """The type of every token; empty where the file names none. Raises `TokenizerError` for a wrong number of them."""
    types = np.asarray(metadata.get(PREFIX + "token_type", ()))
    if len(types) not in (0, vocab_size):
        raise TokenizerError(f"the GGUF tokenizer has {len(types)} token types for {vocab_size} tokens")
    return types


def token_scores(metadata: Mapping[str, Any], vocab_size: int) -> np.ndarray:
    """The score of every token. Raises `TokenizerError` where some have none, or one that cannot be compared."""
    scores = np.asarray(require(metadata, "scores"), np.float64)
    if len(scores) != vocab_size:
        raise TokenizerError(f"the GGUF tokenizer has {len(scores)} scores for {vocab_size} tokens")
    if not np.isfinite(scores).all():
        raise TokenizerError(f"the GGUF tokenizer has a score that is not a finite number ({PREFIX}scores)")
    return scores


def vocabulary(tokens: Sequence[str]) -> dict[str, int]:
    """Ids by text. Raises `TokenizerError` where two tokens have the same text."""
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(ids) != len(tokens):
        raise TokenizerError("the GGUF tokenizer lists the same token twice (tokenizer.ggml.tokens)")
    return ids
