"""The logits of a step, by sequence.

Owns: the index of each row: the row of each sequence's newest token, those of its drafts, those of scored prompts.
Refuses to know: what the rows are used for. Specs: ENGINE-42, DRAFT-01. Next: `ferrum.engine.engine`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from ferrum.sched.plan import Chunk, StepPlan
from ferrum.sched.sequence import TokenSequence
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor


class StepLogits:
    """The logits [rows, vocab] of a plan."""

    def __init__(self, ops: TensorOps, plan: StepPlan, logits: Tensor) -> None:
        self._ops = ops
        self._logits = logits
        self._next: dict[TokenSequence, int] = {}
        self._scored: list[tuple[Chunk, range]] = []
        end = 0
        for chunk in plan.chunks:
            start, end = end, end + chunk.rows + len(chunk.drafts)
            if chunk.is_sampled:
                self._next[chunk.sequence] = end - len(chunk.drafts) - 1
            if chunk.sequence.scores_prompt and chunk.start < chunk.sequence.prompt_length - 1:
                self._scored.append((chunk, range(start, start + chunk.rows)))

    def next(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """-> [sequences, vocab]: for each sequence the row from which its next token is sampled. The next call gives
        the row of its first draft, and so on."""
        rows = [self._next[sequence] for sequence in sequences]
        for sequence in sequences:
            self._next[sequence] += 1
        return self._rows(rows)

    def of_prompts(self) -> Iterator[tuple[Chunk, NDArray[Any]]]:
        """The chunks of scored prompts, each with its rows on the host, to which all come in one transfer."""
        if self._scored:
            rows = self._ops.to_numpy(self._rows([row for _, chunk_rows in self._scored for row in chunk_rows]))
            for chunk, _ in self._scored:
                chunk_rows, rows = rows[: chunk.rows], rows[chunk.rows :]
                yield chunk, chunk_rows

    def _rows(self, rows: Sequence[int]) -> Tensor:
        if len(rows) == self._logits.shape[0]:  # no row is asked for twice, and rows come in order
            return self._logits
        return self._ops.take(self._logits, self._ops.asarray(list(rows), "int64"))
