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

    draft: TokenSequence  # its tokens, its blocks, and how many tokens are computed
    sampled_length: int = 0  # the tokens before this index are sampled, those after it only proposed


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

    def propose(self, limits: Sequence[tuple[TokenSequence, int]]) -> list[list[int]]:
        texts = [self._read(sequence) for sequence, _ in limits]
        unfinished = [
            (text, limit)
            for text, (_, limit) in zip(texts, limits, strict=True)
            if self._has_room(text, limit, texts) and self._understands(text)
        ]
        for text, _ in unfinished:
            self._catch_up(text, self._most_tokens // len(unfinished))
        while unfinished:
            self._continue([text for text, _ in unfinished])
            unfinished = [
                (text, limit) for text, limit in unfinished if text.draft.length < text.sampled_length + limit
            ]
        return [text.draft.token_ids[text.sampled_length :] for text in texts]

    def forget(self, sequence: TokenSequence) -> None:
        text = self._texts.pop(sequence, None)
        if text is not None:
            self._manager.close(text.draft.table)

    def reset(self) -> None:
        self._texts.clear()
        self._manager.reset()

    def _read(self, sequence: TokenSequence) -> Text:
        """The text with all tokens so far; proposals that were wrong no longer count as computed."""
        text = self._texts.get(sequence)
        if text is None:
            text = self._texts[sequence] = Text(TokenSequence((), SamplingParams(), 0))
            text.draft.table = self._manager.new_table()
        draft, start = text.draft, text.sampled_length
        tokens, draft_tokens = sequence.token_ids[start:], draft.token_ids[start:]
        common = next(
            (at for at, (one, other) in enumerate(zip(tokens, draft_tokens, strict=False)) if one != other),
            len(draft_tokens),
        )
        draft.token_ids[start:] = tokens
        draft.computed = min(draft.computed, start + common, draft.length - 1)
        text.sampled_length = draft.length
        if not draft.table.blocks:
            draft.computed = min(self._manager.open(draft.table, draft.token_ids), draft.length - 1)
        return text

    def _understands(self, text: Text) -> bool:
        """True if all tokens that are not computed yet are in the second model's vocabulary."""
        return max(text.draft.token_ids[text.draft.computed :]) < self._executor.vocab_size

    def _has_room(self, text: Text, count: int, protected: Sequence[Text]) -> bool:
        """Reserves the blocks for `count` more tokens; True if that works. It may free the blocks of texts that are not
        in `protected`."""
        draft, end = text.draft, text.sampled_length + count
        if end > self._max_model_len:
            return False
        for _ in range(2):
            try:
                self._manager.reserve(draft.table, draft.computed, end)
                return True
            except (ResourceExhausted, DeviceError):
                for other in self._texts.values():
                    if other not in protected:
                        self._manager.close(other.draft.table)
                        other.draft.computed = 0
        return False

    def _catch_up(self, text: Text, most_tokens: int) -> None:
        """Computes tokens until the rest fits in one step of `most_tokens`."""
        draft = text.draft
        while draft.pending > max(1, most_tokens):
            count = min(self._most_tokens, draft.pending - 1)
            self._executor.run(StepPlan((Chunk(draft, draft.computed, count, 0),)))
            draft.computed += count

    def _continue(self, texts: Sequence[Text]) -> None:
        """Computes one more token for each of the texts."""
        drafts = [text.draft for text in texts]
        logits = self._executor.run(StepPlan(tuple(Chunk(draft, draft.computed, draft.pending, 1) for draft in drafts)))
        ops = self._executor.ops
        shared_logits, _ = ops.split(logits, (self._words, logits.shape[-1] - self._words), -1)
        for text, token in zip(texts, ops.to_numpy(ops.argmax(shared_logits, -1)).tolist(), strict=True):
            draft = text.draft
            draft.computed = draft.length
            if draft.length == text.sampled_length:
                self._manager.record(draft.table, draft.token_ids, text.sampled_length)
            draft.token_ids.append(token)
