"""The computation of vectors of texts, in steps of bounded size.

Owns: which tokens a step computes, the blocks that a text holds meanwhile, and pooling: the vectors of a text's tokens
behind the final norm become one. Texts of several jobs share a step. A long text takes several steps, except with an
encoder, whose attention needs the whole text at once. Refuses to know: requests for tokens, except whether one waits;
threads.
Specs: ENGINE-70 to ENGINE-74. Paper: Sentence-BERT 1908.10084. Next: `ferrum.engine.embedding_ticket`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ferrum.engine.embedding import EmbeddingJob
from ferrum.engine.runner import Executor
from ferrum.errors import FerrumError, ModelError, ResourceExhausted
from ferrum.sampling_params import SamplingParams
from ferrum.sched.plan import Chunk, StepPlan
from ferrum.sched.scheduler import Scheduler
from ferrum.sched.sequence import NO_BLOCKS, TokenSequence
from ferrum.types import Pooling


class _Text:
    """One text of a job. The sum of its tokens' vectors is float64: in float32 its error would grow with the length."""

    def __init__(self, job: EmbeddingJob, place: int) -> None:
        self.job, self.place = job, place
        self.sequence = TokenSequence(job.texts[place], SamplingParams(), seed=0)
        self.sum: NDArray[np.float64] | None = None

    def chunk(self, count: int) -> Chunk:
        """The next `count` tokens; its `rows` is the number of tokens, at the end of the chunk, that pooling uses."""
        start, end = self.sequence.computed, self.sequence.computed + count
        match self.job.options.pooling:
            case Pooling.MEAN:
                rows = count
            case Pooling.LAST:
                rows = int(end == self.sequence.length)
            case Pooling.CLS:
                rows = 0 if start else count
        return Chunk(self.sequence, start, count, rows)

    def add(self, count: int, rows: NDArray[np.float64]) -> None:
        """Adds the result of a chunk of `count` tokens: rows [rows, hidden] for pooling."""
        pooling, length = self.job.options.pooling, self.sequence.length
        self.sequence.computed += count
        self.sum = np.zeros(rows.shape[1]) if self.sum is None else self.sum
        for row in rows[:1] if pooling is Pooling.CLS else rows:  # one by one: the sum does not depend on chunks
            self.sum += row
        if not np.isfinite(self.sum).all():
            self.job.error = ModelError("a vector is not all finite: damaged weights, or numbers out of range")
        elif self.sequence.computed == length:
            self.job.pooled[self.place] = self.sum / length if pooling is Pooling.MEAN else self.sum

    def restart(self) -> None:
        """Begins again: nothing is computed."""
        self.sequence.computed, self.sequence.table, self.sum = 0, NO_BLOCKS, None


def compute(job: EmbeddingJob, embedder: Embedder, in_turn: Callable[[Callable[[], bool]], bool]) -> None:
    """Computes one job, one step in each turn, and frees its blocks also after an error. Raises ResourceExhausted if
    requests hold the blocks that a text needs, and the errors of the backend."""
    full = ResourceExhausted("other requests hold the blocks that a text needs")
    embedder.add(job)
    try:
        while not job.finished:
            if not in_turn(embedder.step):
                raise full
    finally:
        in_turn(lambda: embedder.cancel([job], full))


class Embedder:
    """Computes jobs in the order in which they are added. Its methods are called in turns of the engine with which it
    shares the memory."""

    def __init__(self, executor: Executor, scheduler: Scheduler) -> None:
        """A step has as many tokens as the scheduler's limits allow, or one text of an encoder, which may be longer.
        The scheduler is only read."""
        self._executor, self._scheduler, self._manager = executor, scheduler, scheduler.manager
        self._step_tokens = scheduler.limits.max_num_batched_tokens
        self._texts: list[_Text] = []  # only the first may be partly computed
        self._resets = scheduler.manager.resets

    def add(self, job: EmbeddingJob) -> None:
        """Queues a job."""
        self._texts += [_Text(job, place) for place in range(len(job.texts))]

    def cancel(self, jobs: Iterable[EmbeddingJob], error: FerrumError) -> bool:
        """Ends jobs with an error and gives back the blocks of their texts -> True if one was not
        finished."""
        open_jobs = [job for job in jobs if not job.finished]
        for job in open_jobs:
            job.error = error
        self._drop_finished()
        return bool(open_jobs)

    def step(self) -> bool:
        """Computes one step. -> False if nothing was computed: there is no text, or no room for the first one. Raises
        the errors of the backend."""
        if self._manager.resets != self._resets:  # all tables were dropped when the engine started over
            self._resets = self._manager.resets
            for text in self._texts:
                text.restart()
        planned = self._plan()
        if planned:
            self._compute(planned)
            self._drop_finished()
        return bool(planned)

    def _plan(self) -> list[tuple[_Text, Chunk]]:
        planned: list[tuple[_Text, Chunk]] = []
        budget = self._step_tokens
        for text in self._texts:
            pending = text.sequence.pending
            count = pending if self._executor.encodes else min(pending, budget)
            if not budget or (planned and count > budget):
                break
            if planned and count < pending and self._scheduler.waiting:
                break  # a request waits: between two long texts all memory must be free for it
            if not self._reserved(text):
                break
            planned.append((text, text.chunk(count)))
            budget -= min(count, budget)
        return planned

    def _reserved(self, text: _Text) -> bool:
        """True if the text has its blocks, or gets all of them now."""
        if text.sequence.table is not NO_BLOCKS:
            return True
        table = self._manager.new_table()
        try:
            self._manager.reserve(table, 0, text.sequence.length)
        except ResourceExhausted:
            return False
        text.sequence.table = table
        return True

    def _compute(self, planned: Sequence[tuple[_Text, Chunk]]) -> None:
        plan = StepPlan(tuple(chunk for _, chunk in planned))
        vectors = self._executor.ops.to_numpy(self._executor.vectors(plan))
        for text, chunk in planned:
            part, vectors = vectors[: chunk.rows], vectors[chunk.rows :]
            text.add(chunk.count, np.asarray(part, np.float64))

    def _drop_finished(self) -> None:
        """Removes texts that are computed or whose job has failed, and frees their blocks."""
        unfinished = []
        for text in self._texts:
            if text.job.error is None and text.sequence.pending:
                unfinished.append(text)
            elif text.sequence.table is not NO_BLOCKS and self._manager.resets == self._resets:
                self._manager.close(text.sequence.table)
        self._texts = unfinished
