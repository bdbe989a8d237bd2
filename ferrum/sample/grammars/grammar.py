"""Structured outputs: which tokens keep an answer inside a grammar, as one more logits processor.

Owns: an answer's place in a grammar, and the grammars that are remembered. What is small is made at once; what is not
is tried out in another process first. Refuses to know: tokenizers (a vocabulary is bytes), logits.
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
"""Bytes that compiled grammars may take which are kept, those used last."""
QUICK = 2048
"""Characters of a structure that is made at once, if nothing in it is known to be expensive."""
QUICK_FUEL, FUEL = 25_000, 200_000
"""What its regular expressions may cost to be made, and in all, while answers are made of it."""
QUICK_SIZE = 4 << 20
"""Bytes that such a one takes, at most."""
STATE_SIZE = 512
_EXPENSIVE = re.compile(r"multipleOf|%json|\d{16}|\d\.?[eE][-+]?\d")
"""Divisibility, of which the library tries out every remainder, and schemas inside grammars, which can ask for it; and
numbers beyond 64 bits, between which it searches until its stack is full."""
_OUT_OF_FUEL = re.compile("too big|fuel|limit")


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

    def __init__(self, matcher: Any, allowed: NDArray[np.bool_], failed: Callable[[], None]) -> None:
        """`allowed`: what may come first; `failed` is called when the grammar cannot go on."""
        self._matcher = matcher
        self._allowed = allowed
        self._failed = failed

    def allowed(self) -> NDArray[np.bool_]:
        """bool [vocab], not to be written to."""
        return self._allowed

    def accept(self, token: int) -> None:
        """Raises ModelError for a token that is not allowed, or where the grammar becomes too complex to go on. What
        may come next is computed here, so that such an error is met by this answer alone and not by a whole batch."""
        try:
            advance(self._matcher, token)
            if not self.is_complete:
                self._allowed = _known(self._matcher, len(self._allowed))
        except CannotFollow as error:
            self._failed()
            raise ModelError(f"the grammar cannot go on: {error}") from None

    @property
    def is_complete(self) -> bool:
        return bool(self._matcher.is_stopped())

    @property
    def accepts(self) -> bool:
        """Is what has come a sentence, whether or not something can be added?"""
        return bool(self._matcher.is_accepting())


def _known(matcher: Any, vocab_size: int) -> NDArray[np.bool_]:
    """bool [vocab]: what may come next. Raises CannotFollow where nothing may."""
    bits = np.frombuffer(mask(matcher), np.uint8)
    known = np.unpackbits(bits, bitorder="little")[:vocab_size].view(np.bool_)
    if not known.any():
        raise CannotFollow("no token of the vocabulary fits")
    return np.pad(known, (0, vocab_size - len(known)))


@dataclass(frozen=True, eq=False)
class _Made:
    """A grammar at its beginning, what may come first, and how many bytes it takes."""

    matcher: Any
    allowed: NDArray[np.bool_]
    size: int


class GrammarMaker:
    """Grammars for one vocabulary. May be called by any thread."""

    def __init__(self, vocabulary: Vocabulary, vocab_size: int) -> None:
        """`vocab_size`: how many logits there are; ids beyond the vocabulary are never allowed."""
        self._vocabulary = vocabulary
        self._vocab_size = vocab_size
        self._kept: OrderedDict[StructuredOutputs, _Made] = OrderedDict()
        self._changing = threading.Lock()
        self._trying = threading.Lock()  # one structure at a time takes as much as a large one may

    def __call__(self, structure: StructuredOutputs) -> MatcherGrammar:
        """A grammar at its beginning. Raises InvalidParameter for one that makes no sense or is too much to make,
        Unsupported without the library, or for a vocabulary without a token that ends a text."""
        made = self._kept.get(structure) or self._make(structure)
        self._keep(structure, made)
        return MatcherGrammar(made.matcher.deep_copy(), made.allowed, lambda: self._forget(structure, made))

    def _keep(self, structure: StructuredOutputs, made: _Made) -> None:
        """As the one used last; those that were not used for longest make room."""
        with self._changing:
            self._kept[structure] = made
            self._kept.move_to_end(structure)
            total = sum(each.size for each in self._kept.values())
            while total > REMEMBERED:
                _, oldest = self._kept.popitem(last=False)
                total -= oldest.size

    def _forget(self, structure: StructuredOutputs, made: _Made) -> None:
        """All answers share what the library has learnt of a grammar: where that has become too much for it, the next
        answer begins anew."""
        with self._changing:
            if self._kept.get(structure) is made:
                del self._kept[structure]

    def _make(self, structure: StructuredOutputs) -> _Made:
        if not self._vocabulary.eos_token_ids:
            raise Unsupported("structured outputs need a token that ends a text, and this model names none")
        kind, text = structure.kind, structure.text
        tokenizer = self._tokenizer
        try:
            matcher = None
            if len(text) <= QUICK and not _EXPENSIVE.search(text):
                matcher, size = self._made_at_once(tokenizer, structure), QUICK_SIZE
            if matcher is not None:
                return _Made(matcher, _known(matcher, self._vocab_size), size)
            with self._trying:
                made = self._kept.get(structure) or self._made_after_trial(tokenizer, structure)
                self._keep(structure, made)  # for those that wait here for the same
                return made
        except CannotFollow as error:
            raise InvalidParameter("structured_outputs", f"{kind}: {error}") from None

    def _made_after_trial(self, tokenizer: Any, structure: StructuredOutputs) -> _Made:
        vocabulary = self._vocabulary
        tried = try_out(self._tokens, sorted(vocabulary.special_ids), vocabulary.eos_token_ids, structure)
        matcher = make_matcher(tokenizer, tried.source)
        return _Made(matcher, _known(matcher, self._vocab_size), tried.size + MOST_STATES * STATE_SIZE)

    def _made_at_once(self, tokenizer: Any, structure: StructuredOutputs) -> Any:
        """A matcher, or None for a structure that needs more fuel than is given away without a trial."""
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
