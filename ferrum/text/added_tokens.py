"""Added tokens: texts that become one token each, wherever they stand in a text.

Owns: the form of an added token, and adding tokens to those of a tokenizer.json. Refuses to know: which files name
them. Specs: TEXT-50. Source: Hugging Face tokenizers (`AddedToken`). Next: `ferrum.text.token_bytes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tokenizers

from ferrum.errors import TokenizerError, quoted, warn
from ferrum.text.native import ask


@dataclass(frozen=True)
class AddedText:
    """An added token."""

    content: str
    special: bool = False  # decoding leaves it out
    normalized: bool = False  # it is matched in the normalized text, not in the text as written
    lstrip: bool = False  # white space before it belongs to it
    rstrip: bool = False  # white space behind it belongs to it
    single_word: bool = False  # it is not matched inside a word
    file_id: int | None = None  # its id by the file; the library gives it the next free id, which should be the same


def add_tokens(backend: tokenizers.Tokenizer, added: Sequence[AddedText], where: str) -> None:
    """Adds the tokens that `backend` does not have, in this order, after all others, and changes the options of those
    that it has. Warns if an id differs from that of the file `where`."""
    ask(_not_addable, backend.add_tokens, [
        tokenizers.AddedToken(token.content, single_word=token.single_word, lstrip=token.lstrip, rstrip=token.rstrip,
                              normalized=token.normalized, special=token.special)
        for token in added
    ])  # fmt: skip
    for token in added:
        token_id = backend.token_to_id(token.content) if token.file_id is not None else None
        if token_id not in (None, token.file_id):
            shown = f"{quoted(token.content)} becomes token {token_id}, not {token.file_id}"
            warn(f"{where}: {shown}, which is not the next free id")


def _not_addable(reason: str) -> TokenizerError:
    return TokenizerError(f"the tokens that the model's files add to its tokenizer cannot be added: {reason}")
