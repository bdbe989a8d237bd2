"""Structured outputs: the masks of tokens that keep an answer inside a grammar.

Owns: an answer's position in a grammar, and the cache of grammars. A small structure is compiled at once; a large one
is tried in another process first. Refuses to know: tokenizers (a vocabulary is bytes), logits.
Specs: SAMPLE-28 to SAMPLE-30, SAMPLE-35. Next: `ferrum.text.chat`.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import InvalidParameter, ModelError, Unsupported
from ferrum.sample.grammars.grammar_library import (
    MOST_STATES,
    advance,
    make_matcher,
    make_tokenizer,
    mask,
    source,
)
from ferrum.sample.grammars.grammar_trial import try_out
from ferrum.sample.grammars.refusals import CannotFollow
from ferrum.sampling_params import StructuredOutputs

REMEMBERED = 256 << 20
"""Bytes of the cached grammars, at most; the least recently used ones are dropped."""
QUICK = 2048
"""Characters of a structure that is compiled at once, if it has no part that is known to be expensive."""
QUICK_FUEL, FUEL = 25_000, 200_000
"""Limits of such a structure: fuel to compile its regular expressions, and in all while answers use it."""
QUICK_SIZE = 4 << 20
"""Bytes of such a structure, at most."""
STATE_SIZE = 512
_EXPENSIVE = re.compile(r"multipleOf|%json|\d{16}|\d\.?[eE][-+]?\d")
"""Expensive parts: divisibility, for which the library tries every remainder, also in schemas inside grammars; and
numbers beyond 64 bits, among which it searches until its stack is full."""
_OUT_OF_FUEL = re.compile("too big|fuel|limit")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A tokenizer, as grammars use it. `tokens` returns the bytes of every id; `special_ids`: tokens without text;
    `eos_token_ids`: tokens that end a text; `encode`: text to ids."""

    tokens: Callable[[], Sequence[bytes]]
    special_ids: Collection[int]
    eos_token_ids: Sequence[int]
    encode: Callable[[str], list[int]]


class MatcherGrammar:
    """The position of one answer in a grammar."""

    def __init__(self, matcher: Any, allowed: NDArray[np.bool_], failed: Callable[[], None]) -> None:
        """`allowed`: the mask of first tokens; `failed` is called when the library cannot continue."""
        self._matcher = matcher
        self._allowed = allowed
        self._failed = failed

    def allowed(self) -> NDArray[np.bool_]:
        """bool [vocab], read-only: the tokens that may come next."""
        return self._allowed

    def accept(self, token: int) -> None:
        """Advances by one token. Raises ModelError for a token that is not allowed, or if the grammar becomes too
        complex. The next mask is computed here, so that such an error ends this answer alone and not a whole batch."""
        try:
            advance(self._matcher, token)
            if not self.is_complete:
                self._allowed = _allowed_tokens(self._matcher, len(self._allowed))
        except CannotFollow as error:
            self._failed()
            raise ModelError(f"the grammar cannot go on: {error}") from None

    @property
    def is_complete(self) -> bool:
        return bool(self._matcher.is_stopped())

    @property
    def accepts(self) -> bool:
        """True if the text is complete, even if it can be continued."""
        return bool(self._matcher.is_accepting())


def _allowed_tokens(matcher: Any, vocab_size: int) -> NDArray[np.bool_]:
    """bool [vocab]: the tokens that may come next. Raises CannotFollow if there is none."""
    bits = np.frombuffer(mask(matcher), np.uint8)
    allowed = np.unpackbits(bits, bitorder="little")[:vocab_size].view(np.bool_)
    if not allowed.any():
        raise CannotFollow("no token of the vocabulary fits")
    return np.pad(allowed, (0, vocab_size - len(allowed)))


@dataclass(frozen=True, eq=False)
class _Compiled:
    """A compiled grammar: its matcher at the beginning, the mask of first tokens, and its size in bytes."""

    matcher: Any
    allowed: NDArray[np.bool_]
    size: int


class GrammarMaker:
    """Makes grammars for one vocabulary. Any thread may call it."""

    def __init__(self, vocabulary: Vocabulary, vocab_size: int) -> None:
        """`vocab_size`: the number of logits; ids beyond the vocabulary are never allowed."""
        self._vocabulary = vocabulary
        self._vocab_size = vocab_size
        self._cache: OrderedDict[StructuredOutputs, _Compiled] = OrderedDict()
        self._changing = threading.Lock()
        self._trying = threading.Lock()  # at most one thread compiles a large structure at a time

    def __call__(self, structure: StructuredOutputs) -> MatcherGrammar:
        """A grammar at its beginning. Raises InvalidParameter for a structure that makes no sense or is too large,
        Unsupported without the library, or for a vocabulary without a token that ends a text."""
        compiled = self._cache.get(structure) or self._make(structure)
        self._keep(structure, compiled)
        return MatcherGrammar(compiled.matcher.deep_copy(), compiled.allowed, lambda: self._forget(structure, compiled))

    def _keep(self, structure: StructuredOutputs, compiled: _Compiled) -> None:
        """Adds a grammar to the cache as the most recently used; the least recently used ones are dropped for room."""
        with self._changing:
            self._cache[structure] = compiled
            self._cache.move_to_end(structure)
            total = sum(each.size for each in self._cache.values())
            while total > REMEMBERED:
                _, oldest = self._cache.popitem(last=False)
                total -= oldest.size

    def _forget(self, structure: StructuredOutputs, compiled: _Compiled) -> None:
        """Drops a grammar from the cache. All answers share the library's state of a grammar: if that has become too
        large, the next answer compiles the grammar again."""
        with self._changing:
            if self._cache.get(structure) is compiled:
                del self._cache[structure]

    def _make(self, structure: StructuredOutputs) -> _Compiled:
        if not self._vocabulary.eos_token_ids:
            raise Unsupported("structured outputs need a token that ends a text, and this model names none")
        kind, text = structure.kind, structure.text
        tokenizer = self._tokenizer
        try:
            matcher = None
            if len(text) <= QUICK and not _EXPENSIVE.search(text):
                matcher, size = self._compile_at_once(tokenizer, structure), QUICK_SIZE
            if matcher is not None:
                return _Compiled(matcher, _allowed_tokens(matcher, self._vocab_size), size)
            with self._trying:
                compiled = self._cache.get(structure) or self._compile_after_trial(tokenizer, structure)
                self._keep(structure, compiled)  # for threads that wait here for the same structure
                return compiled
        except CannotFollow as error:
            raise InvalidParameter("structured_outputs", f"{kind}: {error}") from None

    def _compile_after_trial(self, tokenizer: Any, structure: StructuredOutputs) -> _Compiled:
        vocabulary = self._vocabulary
        tried = try_out(self._tokens, sorted(vocabulary.special_ids), vocabulary.eos_token_ids, structure)
        matcher = make_matcher(tokenizer, tried.source)
        return _Compiled(matcher, _allowed_tokens(matcher, self._vocab_size), tried.size + MOST_STATES * STATE_SIZE)

    def _compile_at_once(self, tokenizer: Any, structure: StructuredOutputs) -> Any:
        """A matcher, or None for a structure that needs more fuel than is allowed without a trial."""
        grammar = source(structure)
        try:
            make_matcher(tokenizer, grammar, QUICK_FUEL)
        except CannotFollow as error:
            if _OUT_OF_FUEL.search(str(error)):
                return None
            raise
        return make_matcher(tokenizer, grammar, FUEL)

    @cached_property
    def _tokens(self) -> Sequence[bytes]:
        return list(self._vocabulary.tokens())

    @cached_property
    def _tokenizer(self) -> Any:
        vocabulary = self._vocabulary
        return make_tokenizer(
            self._tokens, sorted(vocabulary.special_ids), list(vocabulary.eos_token_ids), vocabulary.encode
        )
