"""Structured outputs: which tokens keep an answer inside a grammar, as one more logits processor.

Owns: the binding to `llguidance`, a library that compiles JSON schemas, regular expressions and context-free grammars
against a vocabulary and tells after each token which ones may follow. It is imported when the first grammar is asked
for. Refuses to know: tokenizers (a vocabulary is bytes), logits.
Specs: SAMPLE-28 to SAMPLE-30. Source: https://github.com/guidance-ai/llguidance. Next: `ferrum.engine.timing`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import InvalidParameter, ModelError, Unsupported
from ferrum.sampling_params import StructuredOutputs

REMEMBERED = 64
"""Compiled grammars that are kept, those used last."""
_JSON_OPTIONS = {"whitespace_pattern": r"[ \t\r\n]{1,16}"}
"""White space between the parts of JSON, but not without end: small models like to go on with it."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A tokenizer as grammars see it. `tokens`: makes the bytes of every id; `special_ids`: tokens that are no text;
    `eos_token_ids`: those that end one; `encode`: text to ids."""

    tokens: Callable[[], Sequence[bytes]]
    special_ids: Collection[int]
    eos_token_ids: Sequence[int]
    encode: Callable[[str], list[int]]


class MatcherGrammar:
    """One answer's place in a grammar."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        """Raises ModelError where not even a first token can be found."""
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._allowed = self._compute()

    def allowed(self) -> NDArray[np.bool_]:
        """bool [vocab], not to be written to."""
        return self._allowed

    def accept(self, token: int) -> None:
        """Raises ModelError for a token that is not allowed, or where the grammar becomes too complex to go on. What
        may come next is computed here, so that such an error is met by this answer alone and not by a whole batch."""
        self._matcher.consume_token(token)
        self._check()
        if not self.is_complete:
            self._allowed = self._compute()

    @property
    def is_complete(self) -> bool:
        return bool(self._matcher.is_stopped())

    def _compute(self) -> NDArray[np.bool_]:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        known = np.unpackbits(bits, bitorder="little")[: self._vocab_size].view(np.bool_)
        if not known.any():
            raise ModelError("the grammar cannot go on: no token of the vocabulary fits")
        return np.pad(known, (0, self._vocab_size - len(known)))

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ModelError(f"the grammar cannot go on: {_reason(self._matcher.get_error())}")


class GrammarMaker:
    """Grammars for one vocabulary."""

    def __init__(self, vocabulary: Vocabulary, vocab_size: int) -> None:
        """`vocab_size`: how many logits there are; ids beyond the vocabulary are never allowed."""
        self._vocabulary = vocabulary
        self._vocab_size = vocab_size
        self._compiled = lru_cache(REMEMBERED)(self._compile)

    def __call__(self, structure: StructuredOutputs) -> MatcherGrammar:
        """A grammar at its beginning. Raises InvalidParameter for one that makes no sense, Unsupported without the
        library, or for a vocabulary without a token that ends a text."""
        return MatcherGrammar(self._compiled(structure.kind, structure.text).deep_copy(), self._vocab_size)

    def _compile(self, kind: str, text: str) -> Any:
        library = _library()
        try:
            if kind == "json":
                grammar = library.LLMatcher.grammar_from_json_schema(text, overrides=_JSON_OPTIONS)
            else:
                grammar = library.grammar_from(kind, text)
        except ValueError as error:
            raise InvalidParameter("structured_outputs", f"{kind}: {_reason(str(error))}") from error
        matcher = library.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise InvalidParameter("structured_outputs", f"{kind}: {_reason(matcher.get_error())}")
        return matcher

    @cached_property
    def _tokenizer(self) -> Any:
        vocabulary, library = self._vocabulary, _library()
        if not vocabulary.eos_token_ids:
            raise Unsupported("structured outputs need a token that ends a text, and this model names none")
        wrapper = library.TokenizerWrapper(_WrappedVocabulary(vocabulary))
        return library.LLTokenizer(wrapper, eos_token=list(vocabulary.eos_token_ids))


class _WrappedVocabulary:
    """A vocabulary under the names that the library looks for."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = list(vocabulary.tokens())
        self.special_token_ids = sorted(vocabulary.special_ids)
        self.eos_token_id = vocabulary.eos_token_ids[0]
        self.bos_token_id = None
        self._encode = vocabulary.encode

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text.decode(errors="replace") if isinstance(text, bytes) else text)


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise Unsupported(
            "structured outputs need the extra 'structured': pip install 'ferrum-ref[structured]'"
        ) from error
    return llguidance


def _reason(text: str) -> str:
    """A complaint of the library on one line, without its internal state."""
    return " ".join(text.partition("<state>")[0].split())
