"""What an engine tells whoever wants to know: hooks for metrics.

Owns: the moments that can be heard of. Every method does nothing here: override those of interest. They are called in
the engine's thread, in the middle of a step: they must be quick and must not call the engine.
Refuses to know: what becomes of it. Specs: ENGINE-30. Next: `ferrum.engine.metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ferrum.sample.state import SamplingState
from ferrum.sched.plan import StepPlan
from ferrum.sched.sequence import TokenSequence
from ferrum.tensor.ops import Tensor
from ferrum.types import FinishReason


class EngineObserver:
    """Hears nothing."""

    def step_planned(self, plan: StepPlan) -> None:
        """The plan of a step is final, with its drafts; the model has not run yet. No step follows an empty plan, which
        may have preempted sequences all the same."""

    def request_started(self, queue_s: float) -> None:
        """A request runs for the first time, after `queue_s` seconds of waiting."""

    def tokens_sampling(
        self, sequences: Sequence[TokenSequence], logits: Tensor, states: Sequence[SamplingState]
    ) -> None:
        """The next tokens are about to be sampled. `logits`: [sequences, vocab], one row for each sequence, as the
        model made them; `states[i]` has the parameters and the history of `sequences[i]`. A step with drafts samples
        several times. The observer must not change any of these."""

    def first_token(self, ttft_s: float) -> None:
        """A generation has its first token, `ttft_s` seconds after its request was submitted."""

    def next_token(self, latency_s: float) -> None:
        """A generation has another token, `latency_s` seconds after the last one."""

    def generation_finished(self, reason: FinishReason, latency_s: float, prompt_tokens: int, tokens: int) -> None:
        """A generation has ended, `latency_s` seconds after its request was submitted, with so many tokens."""

    def sequence_finished(self, sequence: TokenSequence, reason: FinishReason) -> None:
        """The same generation, as the scheduler knew it. Its blocks are given back."""

    def step_finished(self, plan: StepPlan, duration_s: float) -> None:
        """A step has been computed and sampled."""
