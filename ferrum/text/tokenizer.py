"""The tokenizer: text to token ids and back.

Encoding is Hugging Face's `tokenizers` library; decoding is ours, on bytes, so that a whole text and a stream of
tokens decode by one rule (`stream` relies on it).

Owns: `Tokenizer` and reading tokenizer.json. Refuses to know: chat templates, models, GGUF (`gguf_tokenizer`).
Specs: TEXT-01 to TEXT-08, TEXT-40, TEXT-46, TEXT-50, TEXT-51. Next: `ferrum.text.tokenizer_json`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from ferrum.errors import FerrumError, RequestValidation, TokenizerError, quoted, warn
from ferrum.text.added_tokens import AddedText, add_tokens
from ferrum.text.native import ask
from ferrum.text.sentencepiece_text import SentencePieceText
from ferrum.text.token_bytes import spelling_of
from ferrum.text.tokenizer_json import TokenizerFile
from ferrum.text.tokenizer_steps import Growth, check_unigram, growth_of, growth_of_function, ids_around

_IDS = 1 << 32  # the library's ids have 32 bits
_LONG = 16 << 10  # characters of a text that takes so long that other threads should run meanwhile
_LONGEST_AFFIX = 64  # characters, which the library copies for each character of a text
_LONGEST_WORD = 256  # characters; the time of WordPiece grows with the third power
_TAKES_TOO_LONG = "retry-limit"


class Tokenizer:
    """A vocabulary with the rules that cut text into it."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        bos_token_id: int | None = None,
        eos_token_ids: Iterable[int] = (),
        text: SentencePieceText | None = None,
    ) -> None:
        """Wraps a Hugging Face tokenizer and changes its settings; the caller must not use it further. `text`: its
        normalizer, if that is a function of ours.

        `bos_token_id` and `eos_token_ids` come from the model's files; a tokenizer.json has neither. An id without a
        token causes a warning, and can still end an answer. Raises `Unsupported` for a decoder that is not byte-level,
        SentencePiece or WordPiece, `TokenizerError` for a negative id.
        """
        self._backend = backend
        # A tokenizer.json may carry the settings of its last batch; either would change what a prompt encodes to.
        backend.no_truncation()
        backend.no_padding()
        if isinstance(backend.model, tokenizers.models.BPE):
            backend.model.dropout = None  # a setting for training: a text would have different tokens each time
        self.spelling = spelling_of(_state(backend.decoder))
        added = backend.get_added_tokens_decoder()
        self._growth = _checked(backend, added.values(), text)
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        self.bos_token_id = bos_token_id
        self.eos_token_ids = tuple(dict.fromkeys(eos_token_ids))
        for role, token_id in (("beginning", bos_token_id), *(("end", end) for end in self.eos_token_ids)):
            if token_id is not None and not self._has(token_id):
                warn(f"the model's files name token {token_id} as {role} of a text; its tokenizer has no such token")
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        # SentencePiece vocabularies write "▁" even in their added tokens; special tokens are always plain text.
        plain = added if self.spelling.byte_level else self.special_ids
        self._bytes = {token_id: added[token_id].content.encode() for token_id in plain}

    @classmethod
    def from_json(
        cls,
        source: str | Path | TokenizerFile,
        *,
        bos_token_id: int | None = None,
        eos_token_ids: Iterable[int] = (),
        eos_token: str | None = None,
        added: Sequence[AddedText] = (),
        splits_special: bool = False,
    ) -> Tokenizer:
        """Reads a tokenizer.json: a path, or its text (a string that starts with a brace).

        `added`: tokens that other files add to it. `eos_token`: the text of one more end token. `splits_special`: a
        special token's text in a prompt is ordinary text. Raises `NotFound` for a missing file, `TokenizerError` for a
        malformed one, `Unsupported` as the constructor.
        """
        file = source if isinstance(source, TokenizerFile) else TokenizerFile(source)
        backend = ask(
            lambda reason: TokenizerError(f"{file.name} is not a valid tokenizer.json: {reason}"),
            tokenizers.Tokenizer.from_str,
            file.checked(added),
        )
        if isinstance(backend.model, tokenizers.models.Unigram):
            check_unigram(map(len, backend.get_vocab(with_added_tokens=False)))
        special = frozenset(token_id for token_id, token in backend.get_added_tokens_decoder().items() if token.special)
        add_tokens(backend, added, file.name)
        backend.encode_special_tokens = splits_special
        end = None if eos_token is None or not _is_unicode(eos_token) else backend.token_to_id(eos_token)
        ends = (*eos_token_ids, *(() if end is None else (end,)))
        tokenizer = cls(backend, bos_token_id=bos_token_id, eos_token_ids=ends)
        tokenizer.special_ids |= special  # a special token stays special, as in Hugging Face's library
        return tokenizer

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The token ids of `text`. A special token written out in the text becomes its id.

        `add_special_tokens` adds what the model expects around a raw prompt (often a BOS); a rendered chat template
        already holds it. As in Hugging Face's library, a byte that the vocabulary cannot write is dropped. Raises
        `RequestValidation` for text that is not valid Unicode, is too long or takes too long, `TokenizerError` for a
        tokenizer that cannot encode it.
        """
        if not isinstance(text, str) or not _is_unicode(text):
            problem = "holds a lone surrogate, which is not a character" if isinstance(text, str) else "must be a str"
            raise RequestValidation(f"the text {problem}")
        self._growth.check(text)
        if len(text) * self._growth.normalized < _LONG:
            return ask(_not_encoded, self._backend.encode, text, add_special_tokens=add_special_tokens).ids
        # The library releases Python's lock only while it encodes a batch, which also takes less memory.
        batch = ask(_not_encoded, self._backend.encode_batch_fast, [text], add_special_tokens=add_special_tokens)
        return batch[0].ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `ids`: their bytes joined and read as UTF-8, with U+FFFD for bytes that are not UTF-8."""
        skipped = self.special_ids if skip_special_tokens else frozenset()
        text = b"".join(self.token_bytes(token_id) for token_id in ids if token_id not in skipped).decode(
            errors="replace"
        )
        return text.removeprefix(" ") if self.spelling.strips_leading_space else text

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for; for a special token, the UTF-8 of its text.

        An id without a token stands for no bytes: models pad their vocabulary to a round size, and such a row can be
        sampled. Raises `TokenizerError` for a negative id.
        """
        octets = self._bytes.get(token_id)
        if octets is None:
            token = self._backend.id_to_token(token_id) if self._has(token_id) else None
            octets = b"" if token is None else self.spelling.token_bytes(token)
            self._bytes[token_id] = octets
        return octets

    def _has(self, token_id: int) -> bool:
        """True if there is such a token. Raises `TokenizerError` for a negative id."""
        if token_id < 0:
            raise TokenizerError(f"a token id is a whole number of at least 0, not {token_id}")
        return token_id < _IDS and self._backend.id_to_token(token_id) is not None

    def token_text(self, token_id: int) -> str:
        """A token as text by itself: its bytes read as UTF-8, with U+FFFD for an incomplete character."""
        return self.token_bytes(token_id).decode(errors="replace")

    def token_id(self, token: str) -> int | None:
        """The id of a token by its text in the vocabulary, such as "<|im_end|>"; None where there is none."""
        return self._backend.token_to_id(token) if _is_unicode(token) else None

    @property
    def bos_token(self) -> str | None:
        """The text of the beginning-of-sequence token, as a chat template wants it."""
        return None if self.bos_token_id is None else self.token_bytes(self.bos_token_id).decode(errors="replace")

    @property
    def eos_token(self) -> str | None:
        """The text of the first end-of-sequence token, as a chat template wants it."""
        return self.token_bytes(self.eos_token_ids[0]).decode(errors="replace") if self.eos_token_ids else None


def _is_unicode(text: str) -> bool:
    """True for a text without half of a surrogate pair, which a JSON escape such as "\\ud800" makes."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _not_encoded(reason: str) -> FerrumError:
    if _TAKES_TOO_LONG in reason:
        return RequestValidation("the text has a part that takes too long to cut into tokens")
    return TokenizerError(f"the tokenizer cannot encode this text: {reason}")


def _state(part: Any) -> Any:
    """A part of a tokenizer as in a tokenizer.json. The object has no attributes for its settings; its pickled state is
    that JSON."""
    return None if part is None else json.loads(part.__getstate__())


def _checked(
    backend: tokenizers.Tokenizer, added: Collection[tokenizers.AddedToken], text: SentencePieceText | None
) -> Growth:
    """The bounds for encoding a text. Raises `TokenizerError` if the parts of the tokenizer contradict each other."""
    for token_id in ids_around(_state(backend.post_processor)):
        if backend.id_to_token(token_id) is None:
            raise TokenizerError(
                f"the tokenizer puts token {token_id} around texts, and its vocabulary does not have it"
            )
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if len(getattr(backend.model, name, None) or "") > _LONGEST_AFFIX:
            raise TokenizerError(f"the tokenizer's {name} has more than {_LONGEST_AFFIX} characters")
    if getattr(backend.model, "max_input_chars_per_word", 0) > _LONGEST_WORD:
        raise TokenizerError(f"the tokenizer's max_input_chars_per_word is above {_LONGEST_WORD}")
    normalizer = backend.normalizer
    for token in added:  # an empty token would match everywhere, without end
        if normalizer is not None and token.normalized and not ask(_failed, normalizer.normalize_str, token.content):
            raise TokenizerError(
                f"the tokenizer's normalizer leaves nothing of the added token {quoted(token.content)}"
            )
    shortest = min((len(token.content) for token in added), default=None)
    if text is not None:
        return growth_of_function(text.of, text.growth, _state(backend.pre_tokenizer), shortest)
    return growth_of(_state(normalizer), _state(backend.pre_tokenizer), shortest)


def _failed(reason: str) -> TokenizerError:
    return TokenizerError(f"the tokenizer's normalizer fails: {reason}")
