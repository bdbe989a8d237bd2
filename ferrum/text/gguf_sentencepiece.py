"""SentencePiece in GGUF metadata: its two algorithms for tokens with scores.

"llama" merges: of all neighbours that together are a token, the pair with the highest score becomes one token, until no
such pair is left. "t5" is a unigram model: scores are log-probabilities, and the tokens with the highest sum are taken.
Both write a space as "▁" and a character that is not in the vocabulary as bytes ("<0x0A>").

A space goes in front of a text and of what follows a special token, as in llama.cpp. Of two tokens with the same score
the one with the smaller id is merged first; SentencePiece would merge the one that comes first in the text.

Owns: normalisation, merges from scores, the two models. Refuses to know: special tokens, BOS and end.
Sources: https://github.com/google/sentencepiece (`bpe_model.cc`, `unigram_model.cc`, `normalizer.cc`), llama.cpp's
`src/llama-vocab.cpp` for keys and defaults.
Specs: TEXT-30 to TEXT-36. Next: `ferrum.text.gguf_wordpiece`.
"""

from __future__ import annotations

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ferrum.errors import TokenizerError, Unsupported, quoted
from ferrum.fields import Fields
from ferrum.text.character_rules import growth_of_rules
from ferrum.text.gguf_tokens import TokenType, require, token_id, token_scores, token_texts, token_types, vocabulary
from ferrum.text.native import ask
from ferrum.text.sentencepiece_text import SentencePieceText
from ferrum.text.token_bytes import SENTENCEPIECE_SPACE
from ferrum.text.tokenizer_steps import check_unigram

RULES = "precompiled_charsmap"
# The library recognises a byte token by its text. A cut behind the "<" keeps such a text in a prompt from becoming one.
_LOOKS_LIKE_A_BYTE = r"(?<=<)0x[0-9A-F]{2}>"


def sentencepiece_tokens(fields: Fields) -> list[str]:
    """The texts of all tokens, by id. In user-defined tokens, "▁" becomes a space, because they are matched in the text
    as written; some files write "▁" there, others a space. Raises `TokenizerError` where texts or types are missing."""
    tokens = token_texts(fields)
    require(fields, "token_type")  # the texts do not distinguish a byte token from a text that looks like one
    types = token_types(fields, len(tokens))
    if len(types) != len(tokens):
        raise TokenizerError(f"the GGUF tokenizer has {len(types)} token types for {len(tokens)} tokens")
    for index in np.flatnonzero(types == TokenType.USER_DEFINED).tolist():
        tokens[index] = tokens[index].replace(SENTENCEPIECE_SPACE, " ")
    return tokens


def sentencepiece_bpe(fields: Fields, tokens: list[str], text: SentencePieceText | None) -> tokenizers.Tokenizer:
    """The tokenizer of the model "llama", without special tokens; `text` is what `sentencepiece_text` gives.

    Raises `TokenizerError` for metadata that contradicts itself, `Unsupported` where merges lead to an unused token.
    """
    ids = vocabulary(tokens)
    unknown = _unknown(fields, tokens)
    merges = derive_merges(tokens, token_types(fields, len(tokens)), token_scores(fields, len(tokens)))
    model = ask(
        _does_not_fit,
        models.BPE,
        vocab=ids,
        merges=merges,
        unk_token=None if unknown is None else tokens[unknown],
        fuse_unk=True,
        byte_fallback=True,
    )
    return _with_spaces(tokenizers.Tokenizer(model), fields, text)


def sentencepiece_unigram(fields: Fields, tokens: list[str], text: SentencePieceText | None) -> tokenizers.Tokenizer:
    """The tokenizer of the model "t5", without special tokens. Raises `TokenizerError` for contradictory metadata."""
    vocabulary(tokens)  # raises if two tokens have the same text
    check_unigram(map(len, tokens))
    unknown = _unknown(fields, tokens)
    if unknown is None:
        raise TokenizerError("the GGUF file names no unknown token, which its unigram tokenizer needs")
    scores = token_scores(fields, len(tokens))
    types = token_types(fields, len(tokens))
    normal = types == TokenType.NORMAL
    # The library gives a character outside the vocabulary a score a little below the lowest of all. Only normal tokens
    # should decide that score, so all others get the lowest score of a normal one.
    scores = np.where(normal, scores, scores[normal].min(initial=0.0))
    pieces = list(zip(tokens, scores.tolist(), strict=True))
    model = ask(_does_not_fit, models.Unigram, vocab=pieces, unk_id=unknown, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    if TokenType.BYTE in types:
        backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(_LOOKS_LIKE_A_BYTE), "merged_with_next")
    return _with_spaces(backend, fields, text)


def derive_merges(tokens: list[str], types: np.ndarray, scores: np.ndarray) -> list[tuple[str, str]]:
    """Every pair of tokens that together are a normal token, the highest score first.

    Raises `Unsupported` if a pair makes an unused token: SentencePiece splits unused tokens again at the end, and the
    library cannot.
    """
    unused = {tokens[index] for index in np.flatnonzero(types == TokenType.UNUSED).tolist()}
    texts = np.flatnonzero(np.isin(types, (TokenType.NORMAL, TokenType.UNUSED)))
    by_score = [tokens[index] for index in texts[np.argsort(-scores[texts], kind="stable")].tolist()]
    parts = set(by_score)
    merges = [
        (left, right)
        for token in by_score
        for cut in range(1, len(token))
        if (left := token[:cut]) in parts and (right := token[cut:]) in parts
    ]
    if unused and (merged := next((left + right for left, right in merges if left + right in unused), None)):
        raise Unsupported(f"the GGUF tokenizer merges to {quoted(merged)}, a token that is not in use")
    return merges


def _unknown(fields: Fields, tokens: list[str]) -> int | None:
    """The id of the token for characters outside the vocabulary: the one that the metadata names, else the first of
    that type; None if there is neither."""
    declared = token_id(fields, "unknown_token_id", len(tokens))
    typed = np.flatnonzero(token_types(fields, len(tokens)) == TokenType.UNKNOWN).tolist()
    return declared if declared is not None else next(iter(typed), None)


def sentencepiece_text(fields: Fields) -> SentencePieceText | None:
    """The normalization of a file with character rules; None for a file without them, which the library's faster steps
    normalize. Raises `TokenizerError` for damaged rules."""
    rules = _character_rules(fields)
    if not rules:
        return None
    growth = growth_of_rules(rules, fields.prefix + RULES)
    return SentencePieceText(rules, growth, prefixed=_is_prefixed(fields), removes_spaces=_removes_spaces(fields))


def _is_prefixed(fields: Fields) -> bool:
    return fields.flag("add_space_prefix", True)


def _removes_spaces(fields: Fields) -> bool:
    return fields.flag("remove_extra_whitespaces", False)


def _with_spaces(backend: tokenizers.Tokenizer, fields: Fields, text: SentencePieceText | None) -> tokenizers.Tokenizer:
    """The same tokenizer with the normalizer and decoder that the metadata describes."""
    backend.normalizer = _spaces(fields) if text is None else normalizers.Normalizer.custom(text)
    steps = [decoders.Replace(SENTENCEPIECE_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if _is_prefixed(fields) else [])])
    return backend


def _spaces(fields: Fields) -> normalizers.Sequence:
    """SentencePiece's normalization for a file without character rules, in SentencePiece's order."""
    steps: list[normalizers.Normalizer] = []
    removes_spaces = _removes_spaces(fields)
    if removes_spaces:
        steps.append(normalizers.Replace(tokenizers.Regex(r"\A +"), ""))
        steps.append(normalizers.Replace(tokenizers.Regex(" {2,}"), " "))
    if _is_prefixed(fields):
        steps.append(normalizers.Prepend(SENTENCEPIECE_SPACE))
    steps.append(normalizers.Replace(" ", SENTENCEPIECE_SPACE))
    if removes_spaces:
        steps.append(normalizers.Replace(tokenizers.Regex(rf"{SENTENCEPIECE_SPACE}+\z"), ""))
    return normalizers.Sequence(steps)


def _character_rules(fields: Fields) -> bytes:
    """The character rules of the file; no bytes if it has none. Some files store signed bytes."""
    if RULES not in fields:
        return b""
    octets = fields.integers(RULES)
    if octets.dtype.itemsize > 1 and not ((octets >= -128) & (octets <= 255)).all():
        raise fields.wrong(RULES, "a list of bytes")
    return octets.astype(np.uint8).tobytes()


def _does_not_fit(reason: str) -> TokenizerError:
    return TokenizerError(f"the GGUF tokenizer's tokens do not fit together: {reason}")
