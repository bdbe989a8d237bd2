"""The state of one generation's sampling: everything besides logits on which the next token depends.

Owns: the parts that change with each token (history, mirostat's limit, the position in a grammar), and what follows
from them for the next token. Refuses to know: logits.
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
    """The tokens that may come next. `ferrum.sample.grammars.grammar` has the implementation."""

    def allowed(self) -> NDArray[np.bool_]:
        """bool [vocab]: True for tokens after which the text can still become complete; for end tokens, only if it is
        complete."""
        ...

    def accept(self, token: int) -> None:
        """Advances by one token."""
        ...

    @property
    def is_complete(self) -> bool:
        """True if the text is complete and cannot be continued."""
        ...

    @property
    def accepts(self) -> bool:
        """True if the text is complete, even if it can be continued."""
        ...


Ids = NDArray[np.int64]
NO_IDS: Ids = np.zeros(0, np.int64)


@lru_cache(4)
def _ascending(tokens: frozenset[int]) -> Ids:
    """The tokens as a sorted array. All choices of a prompt share one, since both may be many."""
    return np.array(sorted(tokens), np.int64)


@lru_cache(2)
def _bias(params: SamplingParams) -> tuple[Ids, NDArray[np.float64]]:
    """The tokens that logit_bias names, and the number that is added to the logit of each."""
    bias = params.logit_bias
    return np.fromiter(bias, np.int64, len(bias)), np.fromiter(bias.values(), np.float64, len(bias))


class SamplingState:
    """The sampling state of one generation; only `accept` changes it."""

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
        """Tokens, and the number that is added to the logit of each."""
        self.most_surprise = 2 * params.mirostat_tau if params.mirostat else math.inf
        """The limit of mirostat, in bits: tokens with more surprise are removed. It begins at twice the target."""
        self.filters = params.filters
        """The names of the filters that are switched on."""
        self._has_edits = bool(params.edits)

    @property
    def position(self) -> int:
        """The position of the next token in the text, which is part of the key of its random number."""
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
        """True if the grammar allows nothing but an end token."""
        return self.grammar is not None and self.grammar.is_complete

    def banned(self, vocab_size: int) -> Ids:
        """The tokens that min_tokens excludes now: those that would end the text."""
        return self._ends(vocab_size) if self.history.generated < self.params.min_tokens else NO_IDS

    def allowed(self) -> NDArray[np.bool_] | None:
        """bool [vocab], read-only: the tokens that the grammar allows next, without those that would end an incomplete
        text. None without a grammar."""
        if self.grammar is None:
            return None
        allowed = self.grammar.allowed()
        if not self.ending_ids or self.grammar.accepts:
            return allowed
        allowed = allowed.copy()
        allowed[self._ends(len(allowed))] = False
        return allowed

    def _ends(self, vocab_size: int) -> Ids:
        """The tokens that end the text and are in the vocabulary; a model's files may name others."""
        ends = _ascending(self.ending_ids)
        return ends[ends.searchsorted(0) : ends.searchsorted(vocab_size)]

    def accept(self, token: int, surprise: float | None = None) -> None:
        """Advances by one token. `surprise`: its bits, with the probabilities of the tokens that mirostat kept."""
        self.history.push(token)
        if surprise is not None:
            self.most_surprise -= self.params.mirostat_eta * (surprise - self.params.mirostat_tau)
        if self.grammar is not None:
            self.grammar.accept(token)
