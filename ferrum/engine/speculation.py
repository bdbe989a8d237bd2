"""Drafts: which sequences of a step get them, and how many of them were right.

Owns: the proposers, the measured accuracy of each sequence's proposals, and the decision that follows from it: where
drafts do not pay, a proposal is made now and then and compared with the next token, without being computed.
Refuses to know: how tokens are sampled, and where blocks come from.
Specs: DRAFT-05, DRAFT-10, DRAFT-12, DRAFT-13. Paper: speculative decoding 2211.17192.
Next: `ferrum.engine.books`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ferrum.engine.draft_length import EXACT, Pace, Trust
from ferrum.engine.proposer import Proposer
from ferrum.errors import InvalidParameter
from ferrum.sampling_params import SamplingParams
from ferrum.sched.drafts import Drafts
from ferrum.sched.plan import StepPlan
from ferrum.sched.sequence import TokenSequence
from ferrum.speculation import OFF, Speculate, parse_speculate

TRIAL_STEPS = 16
"""Where drafts do not pay, a proposer with a cost makes a trial proposal once in so many steps."""


@dataclass
class Guess:
    """The proposals for one sequence."""

    proposer: Proposer
    most: int  # tokens proposed for a step, at most
    trust: Trust = field(default_factory=Trust)
    trial: tuple[int, ...] = ()  # proposed for the current step, and only compared with its token


class Speculation:
    """The drafts of all sequences of one engine."""

    def __init__(self, proposers: Mapping[str, Proposer], default: Speculate | None = None, pace: Pace = EXACT) -> None:
        """`proposers`: by source. `default`: for requests without `speculate`. `pace`: the model's step times."""
        self.drafted = self.accepted = 0
        """Numbers of drafts that the model has judged, and of those that were right."""
        self._proposers = proposers
        self._default = default
        self._pace = pace
        self._guesses: dict[TokenSequence, Guess] = {}
        self._check(default)

    def check(self, params: SamplingParams) -> None:
        """Raises InvalidParameter for a source that this engine does not have."""
        self._check(parse_speculate("speculate", params.speculate))

    def _check(self, speculate: Speculate | None) -> None:
        if speculate is not None and speculate.source not in (OFF, *self._proposers):
            raise InvalidParameter("speculate", f"is {speculate.source!r}, and this engine has no draft_model for it")

    def begin(self, sequence: TokenSequence) -> None:
        """Begins a sequence, whose parameters were checked."""
        speculate = parse_speculate("speculate", sequence.params.speculate) or self._default
        if speculate is not None and speculate.source != OFF:
            self._guesses[sequence] = Guess(self._proposers[speculate.source], speculate.most)

    def forget(self, sequence: TokenSequence) -> None:
        """Drops what is known of a sequence that has ended."""
        guess = self._guesses.pop(sequence, None)
        if guess is not None:
            guess.proposer.forget(sequence)

    def clear(self) -> None:
        """Drops what is known of all sequences."""
        self._guesses.clear()
        for proposer in self._proposers.values():
            proposer.reset()

    def drafts(self, plan: StepPlan) -> Drafts:
        """Drafts for the sequences of the plan that decode, as many as are expected to save time."""
        drafts: dict[TokenSequence, list[int]] = {}
        for proposer, counts in self._draft_counts(plan).items():
            try:
                proposals = proposer.propose([(sequence, max(1, count)) for sequence, count in counts.items()])
            except BaseException:  # also an interrupt may leave its state half written
                proposer.reset()
                raise
            for (sequence, count), tokens in zip(counts.items(), proposals, strict=True):
                if count:
                    drafts[sequence] = tokens
                else:
                    self._guesses[sequence].trial = tuple(tokens[:1])
        return drafts

    def _draft_counts(self, plan: StepPlan) -> dict[Proposer, dict[TokenSequence, int]]:
        """How many tokens each proposer is asked for, by sequence; 0 means one as a trial."""
        counts: dict[Proposer, dict[TokenSequence, int]] = {}
        if not self._guesses or not plan.sampled:
            return counts
        sequences = len(plan.sampled)
        for chunk in plan.chunks:
            sequence = chunk.sequence
            guess = self._guesses.get(sequence)
            if guess is None or chunk.count > 1 or chunk.start < sequence.prompt_length:
                continue
            guess.trial = ()
            cost = guess.proposer.cost
            count = guess.trust.length(self._pace, cost, sequences, guess.most)
            if count or not cost or sequence.length % TRIAL_STEPS == 0:
                counts.setdefault(guess.proposer, {})[sequence] = count
        return counts

    def learn(self, plan: StepPlan) -> None:
        """Compares the proposals of a finished step with the tokens that were sampled."""
        for chunk in plan.chunks:
            sequence = chunk.sequence
            guess = self._guesses.get(sequence)
            proposed = chunk.drafts or (() if guess is None else guess.trial)
            if not proposed:
                continue
            right = _common_prefix(proposed, sequence.token_ids[chunk.start + chunk.count :])
            if guess is not None:
                guess.trust.learn(right, right == len(proposed))
            if chunk.drafts:
                sequence.drafted += len(proposed)
                sequence.accepted += right
                self.drafted += len(proposed)
                self.accepted += right


def _common_prefix(proposed: Sequence[int], actual: Sequence[int]) -> int:
    """The length of the common prefix."""
    return next(
        (place for place, (one, other) in enumerate(zip(proposed, actual, strict=False)) if one != other),
        min(len(proposed), len(actual)),
    )
