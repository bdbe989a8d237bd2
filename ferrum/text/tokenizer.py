"""The tokenizer: text to token ids and back.

Encoding is Hugging Face's `tokenizers` library; decoding is ours, on bytes, so that a whole text and a stream of
tokens decode by one rule (`stream` relies on it).

Owns: `Tokenizer` and reading tokenizer.json. Refuses to know: chat templates, models, GGUF (`gguf_tokenizer`).
Specs: TEXT-01 to TEXT-08. Next: `ferrum.text.token_bytes`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from ferrum.errors import NotFound, RequestValidation, TokenizerError
from ferrum.text.token_bytes import spelling_of


class Tokenizer:
    """A vocabulary with the rules that cut text into it."""

    def __init__(
        self, backend: tokenizers.Tokenizer, *, bos_token_id: int | None = None, eos_token_ids: Iterable[int] = ()
    ) -> None:
        """Wraps a Hugging Face tokenizer, of which it takes possession.

        `bos_token_id` and `eos_token_ids` are what the model's files say; a tokenizer.json says neither. Raises
        `Unsupported` for a decoder that is neither byte-level nor of SentencePiece's kind, `TokenizerError` for a
        token id outside the vocabulary.
        """
        self._backend = backend
        # A tokenizer.json may carry the settings of its last batch; either would change what a prompt encodes to.
        backend.no_truncation()
        backend.no_padding()
        # The typed decoder object does not tell its settings; its pickled state is its JSON.
        state: Any = None if backend.decoder is None else json.loads(backend.decoder.__getstate__())
        self.spelling = spelling_of(state)
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        self.bos_token_id = bos_token_id
        self.eos_token_ids = tuple(dict.fromkeys(eos_token_ids))
        for token_id in (*self.eos_token_ids, *(() if bos_token_id is None else (bos_token_id,))):
            if not 0 <= token_id < 1 << 32 or backend.id_to_token(token_id) is None:
                raise TokenizerError(f"the tokenizer names token {token_id}, which its vocabulary does not have")
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        # SentencePiece vocabularies write "▁" even in their added tokens; special tokens are always plain text.
        plain = added if self.spelling.byte_level else self.special_ids
        self._bytes = {token_id: added[token_id].content.encode() for token_id in plain}

    @classmethod
    def from_json(
        cls, source: str | Path, *, bos_token_id: int | None = None, eos_token_ids: Iterable[int] = ()
    ) -> Tokenizer:
        """Reads a tokenizer.json: a path, or its text (a string that starts with a brace).

        Raises `NotFound` for a missing file, `TokenizerError` for a malformed one, `Unsupported` as the constructor.
        """
        name, text = _read(source)
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            reason = " ".join(str(error).split())
            raise TokenizerError(f"{name} is not a valid tokenizer.json: {reason}") from error
        return cls(backend, bos_token_id=bos_token_id, eos_token_ids=eos_token_ids)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The token ids of `text`. A special token written out in the text becomes its id.

        `add_special_tokens` adds what the model expects around a raw prompt (often a BOS); a rendered chat template
        already holds it. As in Hugging Face's library, a byte that the vocabulary cannot write is dropped. Raises
        `RequestValidation` for text that is not valid Unicode.
        """
        try:
            return self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        except TypeError as error:  # a lone surrogate, which a JSON escape such as "\ud800" can smuggle in
            raise RequestValidation("the text holds a lone surrogate, which is not a character") from error

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `ids`: their bytes, joined and read as UTF-8, U+FFFD for whatever is not UTF-8."""
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
        known = self._bytes.get(token_id)
        if known is None:
            if token_id < 0:
                raise TokenizerError(f"a token id is a whole number of at least 0, not {token_id}")
            token = self._backend.id_to_token(token_id)
            known = b"" if token is None else self.spelling.token_bytes(token)
            self._bytes[token_id] = known
        return known

    def token_text(self, token_id: int) -> str:
        """What a token looks like by itself: its bytes read as UTF-8, U+FFFD for what is only part of a character."""
        return self.token_bytes(token_id).decode(errors="replace")

    def token_id(self, token: str) -> int | None:
        """The id of a token by its text in the vocabulary, such as "<|im_end|>"; None where there is none."""
        return self._backend.token_to_id(token)

    @property
    def bos_token(self) -> str | None:
        """The text of the beginning-of-sequence token, as a chat template wants it."""
        return None if self.bos_token_id is None else self.token_bytes(self.bos_token_id).decode(errors="replace")

    @property
    def eos_token(self) -> str | None:
        """The text of the first end-of-sequence token, as a chat template wants it."""
        return self.token_bytes(self.eos_token_ids[0]).decode(errors="replace") if self.eos_token_ids else None


def _read(source: str | Path) -> tuple[str, str]:
    """The name an error should use, and the JSON text."""
    if isinstance(source, str) and source.lstrip().startswith("{"):
        return "the given text", source
    path = Path(source)
    try:
        return str(path), path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist; a tokenizer.json is needed") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path} cannot be read as a tokenizer.json: {error}") from error
