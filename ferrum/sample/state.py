"""What the choice of the next token depends on, besides its logits: one state for each generation.

Owns: what changes from token to token (history, mirostat's limit, the place in a grammar), and what follows from it for
the next one. Refuses to know: logits.
Specs: SAMPLE-17 to SAMPLE-21, SAMPLE-23, SAMPLE-28. Paper: Mirostat 2007.14966. Next: `ferrum.sample.definition`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ferrum.sample.history import TokenHistory
from ferrum.sampling_params import SamplingParams


class Grammar(Protocol):
    """Which tokens may come next; `ferrum.sample.grammars.grammar` makes them."""

    def allowed(self) -> NDArray[np.bool_]:
        """bool [vocab]: tokens with which what has come so far can still become a sentence; tokens that end a text only
        where it is one."""
        ...

    def accept(self, token: int) -> None:
        """The next token has come."""
        ...

    @property
    def is_complete(self) -> bool:
        """Is what has come a sentence that nothing can be added to?"""
        ...

    @property
    def accepts(self) -> bool:
        """Is what has come a sentence, whether or not something can be added?"""
        ...


Ids = NDArray[np.int64]
NO_IDS: Ids = np.zeros(0, np.int64)


@lru_cache(4)
def _ascending(tokens: frozenset[int]) -> Ids:
    """As an array. All choices of a prompt share it, since there may be many of both."""
    return np.array(sorted(tokens), np.int64)


@lru_cache(2)
def _bias(params: SamplingParams) -> tuple[Ids, NDArray[np.float64]]:
    """The tokens that logit_bias names, and what is added to the logit of each."""
    bias = params.logit_bias
    return np.fromiter(bias, np.int64, len(bias)), np.fromiter(bias.values(), np.float64, len(bias))


class SamplingState:
    """One generation as the sampler sees it. Nothing changes but by `accept`."""

    def __init__(
        self,
        params: SamplingParams,
        seed: int,
        prompt_ids: Sequence[int],
        ending_ids: Collection[int] = (),
        grammar: Grammar | None = None,
    ) -> None:
        """`ending_ids`: the tokens that end the text."""
        self.params = params
        self.seed = seed
        self.ending_ids = frozenset(ending_ids)
        self.history = TokenHistory(prompt_ids, self.ending_ids)
        self.grammar = grammar
        self.bias = _bias(params) if params.logit_bias else (NO_IDS, np.zeros(0))
        """Tokens, and what is added to the logit of each."""
        self.most_surprise = 2 * params.mirostat_tau if params.mirostat else math.inf
        """Bits of surprise above which mirostat lets no token through; it begins at twice the target."""
        self.filters = params.filters
        """The names of the filters that are switched on."""
        self._has_edits = bool(params.edits)

    @property
    def position(self) -> int:
        """Where the next token will stand, which is part of the key of its random number."""
        return self.history.length

    @property
    def edits_logits(self) -> bool:
        """True if a penalty, a bias, a grammar or min_tokens may change the logits of the next token."""
        return self._has_edits or self.grammar is not None or self.history.generated < self.params.min_tokens

    def setting(self, name: str) -> float:
        """The number that the filter of that name gets for the next token."""
        value: float = self.most_surprise if name == "mirostat" else getattr(self.params, name)
        return value

    @property
    def is_complete(self) -> bool:
        """Does the grammar let nothing come after what there is?"""
        return self.grammar is not None and self.grammar.is_complete

    def banned(self, vocab_size: int) -> Ids:
        """Tokens that min_tokens forbids for now."""
        return self._ends(vocab_size) if self.history.generated < self.params.min_tokens else NO_IDS

    def allowed(self) -> NDArray[np.bool_] | None:
        """bool [vocab], not to be written to: what the grammar lets come next, but for tokens that would end the text
        in its middle. None without a grammar."""
        if self.grammar is None:
            return None
        allowed = self.grammar.allowed()
        if not self.ending_ids or self.grammar.accepts:
            return allowed
        allowed = allowed.copy()
        allowed[self._ends(len(allowed))] = False
        return allowed

    def _ends(self, vocab_size: int) -> Ids:
        """The tokens that end the text and have a logit: a model may name others."""
        ends = _ascending(self.ending_ids)
        return ends[ends.searchsorted(0) : ends.searchsorted(vocab_size)]

    def accept(self, token: int, surprise: float | None = None) -> None:
        """The next token has come. `surprise`: its bits, among what mirostat let through."""
        self.history.push(token)
        if surprise is not None:
            self.most_surprise -= self.params.mirostat_eta * (surprise - self.params.mirostat_tau)
        if self.grammar is not None:
            self.grammar.accept(token)
