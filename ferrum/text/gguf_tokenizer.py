"""The tokenizer that a GGUF file carries in its metadata.

Owns: the `tokenizer.ggml.*` keys. Refuses to know: the file itself; `ferrum.load` hands over its metadata.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (tokenizer), and llama.cpp for the token types.
Specs: TEXT-09 to TEXT-12. Next: `ferrum.text.pre_tokenizers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from ferrum.errors import TokenizerError, Unsupported
from ferrum.text.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from ferrum.text.tokenizer import Tokenizer

_PREFIX = "tokenizer.ggml."
_EOS_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")  # end of sequence, of turn, of message


class TokenType(IntEnum):
    """Values of `tokenizer.ggml.token_type`, one per token."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """Builds the tokenizer that GGUF metadata describes (byte-level BPE, `tokenizer.ggml.model` "gpt2").

    Control and unknown tokens and those named as BOS or end are special; user-defined tokens are matched in text but
    decode as ordinary text. Raises `Unsupported` for another tokenizer model or an unknown `tokenizer.ggml.pre`,
    `TokenizerError` for metadata that is incomplete or contradicts itself.
    """
    rules = _rules(metadata)
    tokens: list[str] = list(_require(metadata, "tokens"))
    bos = _token_id(metadata, "bos_token_id", len(tokens))
    found = (_token_id(metadata, key, len(tokens)) for key in _EOS_KEYS)
    eos = tuple(dict.fromkeys(token_id for token_id in found if token_id is not None))
    backend = tokenizers.Tokenizer(_merges(tokens, _require(metadata, "merges"), rules))
    if rules.normalizes_nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = build_pre_tokenizer(rules)
    backend.decoder = decoders.ByteLevel()
    named = {token_id for token_id in (bos, *eos) if token_id is not None}
    _add_tokens(backend, tokens, metadata.get(_PREFIX + "token_type", ()), named)
    first = _added(metadata, "add_bos_token", rules.adds_bos, bos)
    last = _added(metadata, "add_eos_token", False, eos[0] if eos else None)
    if first is not None or last is not None:
        backend.post_processor = _surround(tokens, first, last)
    return Tokenizer(backend, bos_token_id=bos, eos_token_ids=eos)


def build_pre_tokenizer(rules: PreTokenizer) -> pre_tokenizers.Sequence:
    """The cuts of `rules`, then each piece in the byte alphabet."""
    splits = [pre_tokenizers.Split(tokenizers.Regex(split), "isolated") for split in rules.splits]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _rules(metadata: Mapping[str, Any]) -> PreTokenizer:
    """The pre-tokenizer by name. Guessing one would change the token ids of some texts and leave no sign of it."""
    model = _require(metadata, "model")
    if model != "gpt2":
        raise Unsupported(f"the GGUF tokenizer model {model!r} is not supported; byte-level BPE ('gpt2') is")
    pre = metadata.get(_PREFIX + "pre")
    if pre is None:
        raise Unsupported("the GGUF file does not name its pre-tokenizer (tokenizer.ggml.pre); convert the model again")
    if pre not in PRE_TOKENIZERS:
        raise Unsupported(f"the GGUF pre-tokenizer {pre!r} is not supported")
    return PRE_TOKENIZERS[pre]


class _Pairs(Sequence[Any]):
    """Merges ("left right") as pairs, made while the library reads them: a list of all the halves would take as much
    time and memory as what becomes of them."""

    def __init__(self, merges: Sequence[str]) -> None:
        self._merges = merges

    def __len__(self) -> int:
        return len(self._merges)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return map(self._pair, self._merges)

    def __getitem__(self, index: Any) -> tuple[str, ...]:
        return self._pair(self._merges[index])

    @staticmethod
    def _pair(merge: str) -> tuple[str, ...]:
        return tuple(merge.split(" "))  # no byte-level token holds a space, so the one space separates the halves


def _merges(tokens: list[str], merges: Sequence[str], rules: PreTokenizer) -> models.BPE:
    """The BPE model of `tokens` (by id) and `merges` ("left right", best first)."""
    vocabulary = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(vocabulary) != len(tokens):
        raise TokenizerError("the GGUF tokenizer lists the same token twice (tokenizer.ggml.tokens)")
    pairs: Any = _Pairs(merges)  # the stubs ask for a list, the library for a sequence
    try:
        return models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=rules.ignore_merges)
    except Exception as error:  # the library raises bare Exception
        odd = next((" ".join(pair) for pair in pairs if len(pair) != 2), None)
        reason = str(error) if odd is None else f"{odd!r} is not two tokens and a space"
        raise TokenizerError(f"the GGUF tokenizer's merges do not fit its tokens: {reason}") from error


def _add_tokens(
    backend: tokenizers.Tokenizer, tokens: list[str], types: Sequence[int] | np.ndarray, named: set[int]
) -> None:
    """Marks the tokens that are matched in text before any splitting; `named` ones are special whatever their type."""
    if len(types) not in (0, len(tokens)):
        raise TokenizerError(f"the GGUF tokenizer has {len(types)} token types for {len(tokens)} tokens")
    kinds = np.asarray(types)
    special = named | set(np.flatnonzero(np.isin(kinds, (TokenType.CONTROL, TokenType.UNKNOWN))).tolist())
    ordinary = np.flatnonzero(kinds == TokenType.USER_DEFINED).tolist()
    backend.add_special_tokens(
        [tokenizers.AddedToken(tokens[token_id], special=True, normalized=False) for token_id in sorted(special)]
    )
    plain = [token_id for token_id in ordinary if token_id not in special]
    backend.add_tokens([tokenizers.AddedToken(tokens[token_id], normalized=False) for token_id in plain])


def _added(metadata: Mapping[str, Any], key: str, default: bool, token_id: int | None) -> int | None:
    """The token that goes around a raw prompt, if the file (or else its family) wants one."""
    wanted = metadata.get(_PREFIX + key)
    if wanted and token_id is None:
        raise TokenizerError(f"the GGUF file sets {_PREFIX + key} but names no such token")
    return token_id if (default if wanted is None else wanted) else None


def _surround(tokens: list[str], first: int | None, last: int | None) -> processors.TemplateProcessing:
    """Adds BOS before and EOS after a text that is encoded with special tokens."""
    # The library's template syntax gives ":" and " " a meaning, so tokens go by a name of ours, not by their text.
    named = {"BOS": first, "EOS": last}
    special: list[Any] = [
        {"id": name, "ids": [token_id], "tokens": [tokens[token_id]]}
        for name, token_id in named.items()
        if token_id is not None
    ]
    single = [*(["BOS"] if first is not None else []), "$A", *(["EOS"] if last is not None else [])]
    return processors.TemplateProcessing(single=single, pair=[*single, "$B:1"], special_tokens=special)


def _require(metadata: Mapping[str, Any], key: str) -> Any:
    try:
        return metadata[_PREFIX + key]
    except KeyError:
        raise TokenizerError(f"the GGUF file has no {_PREFIX + key}, which its tokenizer needs") from None


def _token_id(metadata: Mapping[str, Any], key: str, vocab_size: int) -> int | None:
    """The id under `key`, if the file has one."""
    value = metadata.get(_PREFIX + key)
    if value is None:
        return None
    if not 0 <= int(value) < vocab_size:
        raise TokenizerError(f"{_PREFIX + key} is {value}, but the GGUF tokenizer has {vocab_size} tokens")
    return int(value)
