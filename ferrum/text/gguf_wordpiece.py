"""WordPiece in GGUF metadata: tokens that begin a word, and tokens that continue one.

The longest token that a word begins with is taken, then the longest that the rest begins with, and so on; a word of
which some part is no token is unknown as a whole. A GGUF file writes "▁" before tokens that begin a word, where a
tokenizer.json writes "##" before the others; control tokens are written plainly in both.

Owns: the spelling of the tokens, normalisation, the model. Refuses to know: special tokens, tokens around a text.
Sources: https://github.com/google-research/bert (`tokenization.py`), llama.cpp's `conversion/bert.py`.
Specs: TEXT-78. Next: `ferrum.text.stream`.
"""

from __future__ import annotations

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ferrum.errors import TokenizerError
from ferrum.fields import Fields
from ferrum.text.gguf_tokens import TokenType, require, token_id, token_texts, token_types, vocabulary
from ferrum.text.native import ask
from ferrum.text.token_bytes import SENTENCEPIECE_SPACE

_CONTINUATION = "##"
_UNKNOWN = 100
"""The unknown token where the file names none, as in llama.cpp."""
_LONGEST_WORD = 100  # characters; a longer one is unknown


def wordpiece_tokens(fields: Fields) -> list[str]:
    """The texts of all tokens, as a tokenizer.json has them. Raises `TokenizerError` where texts or types are
    missing."""
    tokens = token_texts(fields)
    require(fields, "token_type")  # the texts do not distinguish a control token from the inside of a word
    types = token_types(fields, len(tokens)).tolist()
    return [_plain(token, kind) for token, kind in zip(tokens, types, strict=True)]


def _plain(token: str, kind: int) -> str:
    """A token as tokenizer.json writes it; `kind` is its `TokenType`."""
    if kind == TokenType.CONTROL:
        return token
    if token.startswith(SENTENCEPIECE_SPACE):
        return token.removeprefix(SENTENCEPIECE_SPACE)
    return _CONTINUATION + token


def wordpiece(fields: Fields, tokens: list[str]) -> tokenizers.Tokenizer:
    """The tokenizer of the model "bert", without special tokens. Raises `TokenizerError` without an unknown token."""
    unknown = token_id(fields, "unknown_token_id", len(tokens), _UNKNOWN)
    if unknown is None:
        raise TokenizerError(f"the GGUF tokenizer names no unknown token ({fields.prefix}unknown_token_id)")
    model = ask(
        _does_not_fit,
        models.WordPiece,
        vocab=vocabulary(tokens),
        unk_token=tokens[unknown],
        max_input_chars_per_word=_LONGEST_WORD,
        continuing_subword_prefix=_CONTINUATION,
    )
    backend = tokenizers.Tokenizer(model)
    lowercase = fields.flag("normalizer.lowercase", True)
    accents = fields.flag("normalizer.strip_accents", lowercase)
    backend.normalizer = normalizers.BertNormalizer(strip_accents=accents, lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=_CONTINUATION)
    return backend


def _does_not_fit(reason: str) -> TokenizerError:
    return TokenizerError(f"the GGUF tokenizer's tokens make no WordPiece model: {reason}")
