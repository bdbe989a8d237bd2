"""Proposals from a second, smaller model that reads the same text.

Owns: the second model's keys and values of each text, and its greedy continuation, for all texts of a step together.
Rejected proposals are overwritten; only accepted tokens go to its prefix cache. When its memory is full, it frees the
blocks of texts that are not in the step, and if that is not enough, it proposes nothing.
Refuses to know: the model that judges.
Specs: DRAFT-14, DRAFT-15. Paper: speculative decoding 2211.17192. Next: `ferrum.engine.speculation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ferrum.engine.runner import Executor
from ferrum.errors import DeviceError, ResourceExhausted
from ferrum.kv.manager import KvManager
from ferrum.sampling_params import SamplingParams
from ferrum.sched.plan import Chunk, StepPlan
from ferrum.sched.sequence import TokenSequence


@dataclass(eq=False)
class Text:
    """A text in the second model."""

    own: TokenSequence  # its tokens, its blocks, and how many tokens are computed
    known: int = 0  # the tokens before this index are sampled, those after it only proposed


class DraftProposer:
    """A second model with its own keys and values."""

    def __init__(
        self, executor: Executor, manager: KvManager, cost: float, max_model_len: int, most_tokens: int, words: int
    ) -> None:
        """`cost`: the time of one of its tokens, in steps of the model that judges. `most_tokens`: tokens in a step, at
        most. `words`: rows in the embedding table of the model that judges; such tables are often longer than the
        vocabulary, each by another number of rows."""
        self.cost = cost
        self._executor = executor
        self._manager = manager
        self._max_model_len = max_model_len
        self._most_tokens = most_tokens
        self._words = min(words, executor.vocab_size)
        self._texts: dict[TokenSequence, Text] = {}

    def propose(self, asked: Sequence[tuple[TokenSequence, int]]) -> list[list[int]]:
        texts = [self._read(sequence) for sequence, _ in asked]
        going = [
            (text, most)
            for text, (_, most) in zip(texts, asked, strict=True)
            if self._has_room(text, most, texts) and self._understands(text)
        ]
        for text, _ in going:
            self._catch_up(text, self._most_tokens // len(going))
        while going:
            self._continue([text for text, _ in going])
            going = [(text, most) for text, most in going if text.own.length < text.known + most]
        return [text.own.token_ids[text.known :] for text in texts]

    def forget(self, sequence: TokenSequence) -> None:
        text = self._texts.pop(sequence, None)
        if text is not None:
            self._manager.close(text.own.table)

    def reset(self) -> None:
        self._texts.clear()
        self._manager.reset()

    def _read(self, sequence: TokenSequence) -> Text:
        """The text with all tokens so far; proposals that were wrong no longer count as computed."""
        text = self._texts.get(sequence)
        if text is None:
            text = self._texts[sequence] = Text(TokenSequence((), SamplingParams(), 0))
            text.own.table = self._manager.new_table()
        own, start = text.own, text.known
        came, had = sequence.token_ids[start:], own.token_ids[start:]
        same = next((at for at, (one, other) in enumerate(zip(came, had, strict=False)) if one != other), len(had))
        own.token_ids[start:] = came
        own.computed = min(own.computed, start + same, own.length - 1)
        text.known = own.length
        if not own.table.blocks:
            own.computed = min(self._manager.open(own.table, own.token_ids), own.length - 1)
        return text

    def _understands(self, text: Text) -> bool:
        """True if all tokens that are not computed yet are in the second model's vocabulary."""
        return max(text.own.token_ids[text.own.computed :]) < self._executor.vocab_size

    def _has_room(self, text: Text, most: int, kept: Sequence[Text]) -> bool:
        """Reserves the blocks for `most` more tokens; True if that works. It may free the blocks of texts that are not
        in `kept`."""
        own, end = text.own, text.known + most
        if end > self._max_model_len:
            return False
        for _ in range(2):
            try:
                self._manager.reserve(own.table, own.computed, end)
                return True
            except (ResourceExhausted, DeviceError):
                for other in self._texts.values():
                    if other not in kept:
                        self._manager.close(other.own.table)
                        other.own.computed = 0
        return False

    def _catch_up(self, text: Text, most_tokens: int) -> None:
        """Computes tokens until the rest fits in one step of `most_tokens`."""
        own = text.own
        while own.pending > max(1, most_tokens):
            count = min(self._most_tokens, own.pending - 1)
            self._executor.run(StepPlan((Chunk(own, own.computed, count, 0),)))
            own.computed += count

    def _continue(self, texts: Sequence[Text]) -> None:
        """Computes one more token for each of the texts."""
        owns = [text.own for text in texts]
        logits = self._executor.run(StepPlan(tuple(Chunk(own, own.computed, own.pending, 1) for own in owns)))
        ops = self._executor.ops
        known, _ = ops.split(logits, (self._words, logits.shape[-1] - self._words), -1)
        for text, token in zip(texts, ops.to_numpy(ops.argmax(known, -1)).tolist(), strict=True):
            own = text.own
            own.computed = own.length
            if own.length == text.known:
                self._manager.record(own.table, own.token_ids, text.known)
            own.token_ids.append(token)
