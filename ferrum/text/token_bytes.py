"""The bytes of a token, in the three spellings of vocabularies.

A byte-level vocabulary (GPT-2) writes every byte as one printable character. A SentencePiece vocabulary writes text
plainly, a space as "▁" and a byte without a token of its own as "<0x0A>". WordPiece (BERT) writes the beginning of a
word plainly and its other pieces with "##" in front; spaces are lost, and decoding puts one before each word. Once
every token is a string of bytes, decoding joins them: all at once, or token by token.

Owns: these spellings, and recognising them in a tokenizer.json decoder. Refuses to know: encoding, special tokens.
Sources: https://github.com/openai/gpt-2 (`bytes_to_unicode`), Hugging Face tokenizers (decoders).
Specs: TEXT-03, TEXT-04, TEXT-05. Next: `ferrum.text.gguf_tokenizer`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ferrum.errors import Unsupported

SENTENCEPIECE_SPACE = "▁"
_TIDY = {" .": ".", " ?": "?", " !": "!", " ,": ",", " ' ": "'", " n't": "n't", " 'm": "'m", " do not": " don't",
         " 's": "'s", " 've": "'ve", " 're": "'re"}  # fmt: skip
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_alphabet() -> tuple[str, ...]:
    """The printable character of each byte 0 to 255: itself where Latin-1 prints it, else the next one from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    substitutes = iter(range(0x100, 0x200))
    return tuple(chr(byte) if byte in printable else chr(next(substitutes)) for byte in range(256))


BYTE_ALPHABET = byte_alphabet()
_NOT_LATIN_1 = 0xFFFF
# Each symbol of the alphabet becomes the Latin-1 character of its byte; the characters below U+0100 that are not in
# the alphabet become one that Latin-1 cannot encode, as those above already are.
_TO_LATIN_1 = dict.fromkeys(range(0x100), _NOT_LATIN_1) | {
    ord(symbol): byte for byte, symbol in enumerate(BYTE_ALPHABET)
}


@dataclass(frozen=True)
class TokenSpelling:
    """How a vocabulary writes bytes as text."""

    byte_level: bool = False  # each byte is one character of `BYTE_ALPHABET`
    replaces_space: bool = False  # "▁" stands for a space
    byte_fallback: bool = False  # "<0x0A>" stands for a byte
    strips_leading_space: bool = False  # decoding removes one space from the start, because encoding put one there
    continuation: str | None = None  # WordPiece: the prefix of pieces that continue a word ("##")

    def token_bytes(self, token: str) -> bytes:
        """The bytes of one vocabulary entry. A byte-level entry with a character outside the alphabet is plain text
        (an added token), as in Hugging Face's decoder."""
        if self.byte_level:
            try:
                return token.translate(_TO_LATIN_1).encode("latin-1")
            except UnicodeEncodeError:
                return token.encode()
        if self.byte_fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes.fromhex(match[1])
        if self.continuation is not None:
            inside = token.startswith(self.continuation)
            return (token.removeprefix(self.continuation) if inside else _tidied(f" {token}")).encode()
        return (token.replace(SENTENCEPIECE_SPACE, " ") if self.replaces_space else token).encode()


def _tidied(word: str) -> str:
    """A word of WordPiece with the space before it; the space is removed before punctuation."""
    for spaced, tidy in _TIDY.items():
        word = word.replace(spaced, tidy)
    return word


def spelling_of(decoder: Mapping[str, Any] | None) -> TokenSpelling:
    """The spelling that the `decoder` object of a tokenizer.json undoes.

    Raises `Unsupported` for any other decoder (CTC, …): a guess would garble text without a sign.
    """
    steps = list(_steps(decoder))
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return TokenSpelling(byte_level=True)
    if kinds == ["WordPiece"] and steps[0].get("cleanup", True):
        return TokenSpelling(strips_leading_space=True, continuation=steps[0].get("prefix", "##"))
    strips = False
    for position, step in enumerate(steps):
        match step:
            case {"type": "Replace", "pattern": {"String": "▁"}, "content": " "} | {"type": "ByteFallback" | "Fuse"}:
                continue
            case {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme}:
                strips = strips or scheme != "never"
            # Before Fuse, Strip would act on every token instead of the whole text.
            case {"type": "Strip", "content": " ", "start": 0 | 1 as start, "stop": 0} if "Fuse" in kinds[:position]:
                strips = strips or start == 1
            case _:
                raise Unsupported(f"the tokenizer's decoder {step['type']!r} is not supported in this place")
    if not steps:
        raise Unsupported("a tokenizer without a decoder is not supported")
    return TokenSpelling(
        replaces_space="Replace" in kinds or "Metaspace" in kinds,
        byte_fallback="ByteFallback" in kinds,
        strips_leading_space=strips,
    )


def _steps(decoder: Mapping[str, Any] | None) -> Iterable[Mapping[str, Any]]:
    """The decoder's steps in order, with nested sequences opened."""
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for inner in decoder["decoders"]:
            yield from _steps(inner)
    else:
        yield decoder
