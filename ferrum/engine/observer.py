"""What an engine reports while it works: hooks for metrics and recordings, and listeners of single requests.

Owns: the moments at which a hook is called. Each method does nothing here; subclasses override those that they need. A
hook runs in the engine's thread, in the middle of a step: it must be quick and must not call the engine. Its exceptions
are logged and end no request. Refuses to know: what a hook does.
Specs: ENGINE-30, ENGINE-33, ENGINE-34. Next: `ferrum.engine.metrics`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ferrum.sample.state import SamplingState
from ferrum.sched.plan import StepPlan
from ferrum.sched.sequence import TokenSequence
from ferrum.tensor.ops import Tensor
from ferrum.types import FinishReason

logger = logging.getLogger(__name__)

Listener = Callable[[], None]
"""Called by an engine's thread when one request has news."""


def tell(hook: Callable[..., None] | None, *facts: object) -> None:
    """Calls a hook, if there is one. Its exception is logged, since it must not end the step."""
    if hook is not None:
        try:
            hook(*facts)
        except Exception:
            logger.exception("an observer failed")


class EngineObserver:
    """Does nothing at each hook."""

    def step_planned(self, plan: StepPlan) -> None:
        """The plan of a step is final, with its drafts; the model has not run yet. No step follows an empty plan, which
        may have preempted sequences all the same."""

    def request_started(self, queue_s: float) -> None:
        """A request runs for the first time; it waited `queue_s` seconds."""

    def tokens_sampling(
        self, sequences: Sequence[TokenSequence], logits: Tensor, states: Sequence[SamplingState]
    ) -> None:
        """The next tokens are about to be sampled. `logits`: [sequences, vocab], one row for each sequence, as the
        model made them; `states[i]` has the parameters and the history of `sequences[i]`. A step with drafts samples
        several times. The observer must not change any of these."""

    def first_token(self, ttft_s: float) -> None:
        """A generation has its first token, `ttft_s` seconds after its request was submitted."""

    def next_token(self, latency_s: float) -> None:
        """A generation has another token, `latency_s` seconds after the one before."""

    def generation_finished(self, reason: FinishReason, latency_s: float, prompt_tokens: int, tokens: int) -> None:
        """A generation has ended, `latency_s` seconds after its request was submitted, with so many tokens."""

    def sequence_finished(self, sequence: TokenSequence, reason: FinishReason) -> None:
        """The same generation, as the scheduler knew it. Its blocks are given back."""

    def step_finished(self, plan: StepPlan, duration_s: float) -> None:
        """A step has been computed, sampled and committed in `duration_s` seconds."""
