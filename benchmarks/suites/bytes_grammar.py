"""Structured outputs of a model whose tokens are bytes: which texts may be an answer.

Owns: feeding a text to a grammar, and what is said of a structure that is refused, without the place.
Refuses to know: suites. Specs: SUITE-21. Next: `benchmarks/suites/grammars.py`.
"""

from __future__ import annotations

import re
from functools import cache

from ferrum.errors import ModelError
from ferrum.sample.grammars.grammar import GrammarMaker, Vocabulary
from ferrum.sampling_params import StructuredOutputs
from ferrum.text.byte_tokenizer import EOS, ByteTokenizer


@cache
def maker() -> GrammarMaker:
    tokenizer = ByteTokenizer()
    tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
    vocabulary = Vocabulary(
        lambda: tokens, tokenizer.special_ids, (EOS,), lambda text: tokenizer.encode(text, add_special_tokens=False)
    )
    return GrammarMaker(vocabulary, tokenizer.vocab_size)


def accepts(structure: StructuredOutputs, text: str) -> bool:
    """True if the whole answer may be this text. Raises InvalidParameter for a structure that cannot be followed."""
    own = maker()(structure)
    try:
        for token in text.encode():
            if own.is_complete or not own.allowed()[token]:
                return False
            own.accept(token)
    except ModelError:
        return False
    return own.is_complete or bool(own.allowed()[EOS])


def kind(error: Exception) -> str:
    """What is refused, in a few words: without the place where it stands and the names in it."""
    text = str(error).removeprefix("structured_outputs ")
    keyword = re.search(r"'([$\w]+)' at #", text)
    if keyword:
        return f"{keyword[1]}, malformed" if "must be" in text else keyword[1]
    return re.sub(r"line \d+, column \d+: |#\S* ", "", re.split(r": [\^/]|: what|: \d", text)[0])


def allows_nothing(error: Exception) -> bool:
    """True if a schema is refused because no answer fits it."""
    return re.search(r"allows nothing|no text fits", str(error)) is not None
