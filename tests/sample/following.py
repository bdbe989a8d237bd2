"""Grammars for a vocabulary of bytes, and random texts that match them."""

from __future__ import annotations

from random import Random

import numpy as np

from ferrum.sample.grammars.grammar import GrammarMaker, MatcherGrammar, Vocabulary
from ferrum.sampling_params import StructuredOutputs
from ferrum.text.byte_tokenizer import EOS, ByteTokenizer

SPACE = frozenset(b" \t\r\n")
CLOSING = frozenset(b'"}]')


def bytes_maker(rows: int = 0) -> GrammarMaker:
    """A maker of grammars for a vocabulary of bytes. `rows`: the number of logits beyond the vocabulary."""
    tokenizer = ByteTokenizer()
    tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
    vocabulary = Vocabulary(
        lambda: tokens, tokenizer.special_ids, (EOS,), lambda text: tokenizer.encode(text, add_special_tokens=False)
    )
    return GrammarMaker(vocabulary, tokenizer.vocab_size + rows)


MAKER = bytes_maker()


def say(own: MatcherGrammar, text: str) -> None:
    for token in text.encode():
        assert own.allowed()[token]
        own.accept(token)


def fits(structure: StructuredOutputs, text: str) -> bool:
    """True if the whole answer may be this text."""
    own = MAKER(structure)
    for token in text.encode():
        if own.is_complete or not own.allowed()[token]:
            return False
        own.accept(token)
    return own.is_complete or bool(own.allowed()[EOS])


def some_answer(structure: StructuredOutputs, rng: Random, longest: int = 300) -> str | None:
    """A random text that matches the structure; None if it becomes longer than `longest`."""
    own, said = MAKER(structure), bytearray()
    for step in range(longest):
        possible = np.flatnonzero(own.allowed()).tolist() if not own.is_complete else [EOS]
        if possible == [EOS] or (EOS in possible and rng.random() < 0.3):
            return said.decode()
        possible = [token for token in possible if token != EOS]
        for wanted in (CLOSING if step > 60 else frozenset(b'"}],:abc0123{[ntf'), frozenset(range(256)) - SPACE):
            possible = [token for token in possible if token in wanted] or possible
        token = rng.choice(possible)
        said.append(token)
        own.accept(token)
    return None
