"""A prompt in the engine, and its n continuations.

Owns: all parts of one request: the sequences of its prompt, the text of each, the chunks for a stream.
Refuses to know: scheduling and sampling.
Specs: ENGINE-10, ENGINE-43, ENGINE-45. Next: `ferrum.engine.admission`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ferrum.engine.output import OutputText
from ferrum.engine.prompt_scores import PromptScores
from ferrum.engine.timing import Stopwatch
from ferrum.errors import FerrumError
from ferrum.sample.logprobs import Ranked
from ferrum.sample.sampler import Sampled
from ferrum.sample.state import SamplingState
from ferrum.sched.sequence import TokenSequence
from ferrum.types import Choice, Completion, FinishReason, Logprob, Logprobs, StreamChunk, Usage


@dataclass(eq=False)
class Generation:
    """One continuation of a prompt."""

    sequence: TokenSequence
    state: SamplingState
    output: OutputText
    spell: Callable[[int], str]  # token id -> text
    chunks: list[StreamChunk]  # all output so far
    finish_reason: FinishReason | None = None  # None: not finished
    last_token: float | None = None  # time of the newest token, in seconds of the engine's clock

    def push(self, sampled: Sampled) -> FinishReason | None:
        """Adds a token -> the reason if the generation ends with it. Raises an error if the token has no text."""
        self.state.accept(sampled.token, sampled.surprise)
        text, reason = self.output.push(sampled.token, complete=self.state.is_complete)
        logprobs = None if sampled.logprobs is None else spelled(sampled.logprobs, self.spell)
        self.chunks.append(StreamChunk(text, sampled.token, reason, logprobs))
        return reason

    def choice(self, index: int) -> Choice:
        text = "".join(chunk.text for chunk in self.chunks)
        reason = FinishReason.CANCELLED if self.finish_reason is None else self.finish_reason
        logprobs = None
        if self.sequence.params.logprobs is not None:
            logprobs = tuple(chunk.logprobs for chunk in self.chunks if chunk.logprobs is not None)
        return Choice(index, text, tuple(self.sequence.output_ids), reason, self.sequence.seed, logprobs)


class Request:
    """A prompt with as many generations as its parameters ask for."""

    def __init__(self, generations: list[Generation], stopwatch: Stopwatch) -> None:
        self.generations = generations
        self.stopwatch = stopwatch
        first = generations[0].sequence
        count = first.params.prompt_logprobs
        self.prompt_scores = None if count is None else PromptScores(first.token_ids[: first.prompt_length], count)
        self.error: FerrumError | None = None
        """The error because of which generations ended with "error"."""

    @property
    def finished(self) -> bool:
        return all(generation.finish_reason is not None for generation in self.generations)

    def completion(self) -> Completion:
        """The answer so far; a generation that is not finished counts as cancelled."""
        sequences = [generation.sequence for generation in self.generations]
        first = sequences[0]
        prompt = first.token_ids[: first.prompt_length]
        generated = sum(len(sequence.output_ids) for sequence in sequences)
        return Completion(
            choices=tuple(generation.choice(index) for index, generation in enumerate(self.generations)),
            prompt_token_ids=tuple(prompt),
            usage=Usage(
                len(prompt),
                generated,
                min(first.cached, len(prompt)),
                sum(sequence.drafted for sequence in sequences),
                sum(sequence.accepted for sequence in sequences),
            ),
            timings=self.stopwatch.timings(len(prompt)),
            prompt_logprobs=self.prompt_logprobs(),
            error=self.error,
        )

    def prompt_logprobs(self) -> tuple[Logprobs | None, ...] | None:
        """Log probabilities of the prompt's tokens so far; complete once a token was generated."""
        if self.prompt_scores is None:
            return None
        spell = self.generations[0].spell
        return tuple(None if entry is None else spelled(entry, spell) for entry in self.prompt_scores.ranked)


def spelled(ranked: Ranked, spell: Callable[[int], str]) -> Logprobs:
    """Log probabilities and ranks, with the texts of the tokens."""
    return {token: Logprob(logprob, rank, spell(token)) for token, (logprob, rank) in ranked.items()}
