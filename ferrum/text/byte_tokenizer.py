"""A tokenizer without a vocabulary to load: a token is a byte.

Owns: a tokenizer for tests and demonstrations. Refuses to know: models. Next: `ferrum.text.native`.
"""

from __future__ import annotations

from ferrum.errors import RequestValidation
from ferrum.text.token_bytes import TokenSpelling
from ferrum.text.tokenizer import Tokenizer

BYTES = 256
EOS = 256
"""The end-of-sequence token of `ByteTokenizer`, its only special one."""


class ByteTokenizer(Tokenizer):
    """Token i is byte i, up to 255; token 256 is `EOS`, written "<eos>"."""

    def __init__(self) -> None:
        self.spelling = TokenSpelling()
        self.vocab_size = BYTES + 1
        self.bos_token_id = None
        self.eos_token_ids = (EOS,)
        self.special_ids = frozenset({EOS})

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The UTF-8 bytes of a text. Raises RequestValidation for half of a surrogate pair."""
        try:
            return list(text.encode())
        except UnicodeEncodeError:
            raise RequestValidation("the text holds a lone surrogate, which is not a character") from None

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < BYTES else b"<eos>"
