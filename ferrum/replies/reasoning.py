"""Reasoning between two tags at the beginning of an answer.

Owns: a row for each pair of tags. If a prompt ends with the opening tag, the answer begins inside the reasoning. Some
models also put the answer between tags. Refuses to know: calls; the tag of a call inside reasoning is reasoning.
Specs: REPLY-10, REPLY-11. Source: the chat templates of these models. Next: `ferrum.replies.formats`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ferrum.replies.parts import Parts
from ferrum.replies.source import SPACE, Source, Steps


@dataclass(frozen=True)
class ReasoningFormat:
    """`answers`: pairs of tags around the answer, for models that write them."""

    name: str
    opening: str
    closing: str
    answers: tuple[tuple[str, str], ...] = ()

    @property
    def marks(self) -> tuple[str, ...]:
        return (self.opening, self.closing, *(tag for pair in self.answers for tag in pair))

    @property
    def written_reasoning(self) -> tuple[str, str, str]:
        """The texts before reasoning, at its end, and between it and a call."""
        return self.opening, self.closing, "\n\n"

    def begins_inside(self, prompt: str) -> bool:
        """True if the answer to this prompt begins inside the reasoning."""
        return prompt.rstrip(SPACE).endswith(self.opening)

    def read(self, source: Source, parts: Parts, inside: bool) -> Steps[tuple[str, ...]]:
        """Reads the text before the answer, which may be empty. Returns the tags that are not content from there on."""
        space = yield from source.space()
        if (yield from source.one_of(self.opening)) or inside:
            yield from self._read_reasoning(source, parts)
            space = yield from source.space()
        for opening, closing in self.answers:
            if (yield from source.one_of(opening)):
                parts.tag()
                return (closing,)
        parts.content(space)
        return ()

    def _read_reasoning(self, source: Source, parts: Parts) -> Steps[None]:
        parts.tag()
        while True:
            text, mark = source.before((self.closing,))
            parts.reasoning(text)
            if mark is not None or source.ended:
                break
            yield
        parts.tag()


THINK = ReasoningFormat("think", "<think>", "</think>")
SEED = ReasoningFormat("seed", "<seed:think>", "</seed:think>")
MAGISTRAL = ReasoningFormat("mistral", "[THINK]", "[/THINK]")
GRANITE = ReasoningFormat("granite", "<think>", "</think>", (("<response>", "</response>"),))
COMMAND_R = ReasoningFormat(
    "command-r",
    "<|START_THINKING|>",
    "<|END_THINKING|>",
    (("<|START_RESPONSE|>", "<|END_RESPONSE|>"), ("<|START_TEXT|>", "<|END_TEXT|>")),
)
