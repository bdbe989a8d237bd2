"""A prompt in the engine, and its n continuations.

Owns: what belongs together: the sequences of one prompt, the text made of each, the events a stream hands on.
Refuses to know: scheduling and sampling.
Specs: ENGINE-10. Next: `ferrum.engine.observer`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ferrum.engine.output import OutputText
from ferrum.engine.timing import Stopwatch
from ferrum.errors import FerrumError
from ferrum.sched.sequence import TokenSequence
from ferrum.types import Choice, Completion, FinishReason, StreamChunk, Usage


@dataclass(eq=False)
class Generation:
    """One continuation of a prompt. `chunks`: everything it has said so far; `last_token`: when it last did."""

    sequence: TokenSequence
    output: OutputText
    chunks: list[StreamChunk]
    finish_reason: FinishReason | None = None
    last_token: float | None = None

    def choice(self, index: int) -> Choice:
        text = "".join(chunk.text for chunk in self.chunks)
        reason = FinishReason.CANCELLED if self.finish_reason is None else self.finish_reason
        return Choice(index, text, tuple(self.sequence.output_ids), reason, self.sequence.seed)


class Request:
    """A prompt with as many generations as its parameters ask for."""

    def __init__(self, generations: list[Generation], stopwatch: Stopwatch) -> None:
        self.generations = generations
        self.stopwatch = stopwatch
        self.error: FerrumError | None = None
        """Why it ended early, if its generations ended with "error"."""

    @property
    def finished(self) -> bool:
        return all(generation.finish_reason is not None for generation in self.generations)

    def completion(self) -> Completion:
        """The answer as far as it has come; a generation that was not let finish counts as cancelled."""
        sequences = [generation.sequence for generation in self.generations]
        first = sequences[0]
        prompt = first.token_ids[: first.prompt_length]
        generated = sum(len(sequence.output_ids) for sequence in sequences)
        return Completion(
            choices=tuple(generation.choice(index) for index, generation in enumerate(self.generations)),
            prompt_token_ids=tuple(prompt),
            usage=Usage(len(prompt), generated, min(first.cached, len(prompt))),
            timings=self.stopwatch.timings(len(prompt)),
        )
