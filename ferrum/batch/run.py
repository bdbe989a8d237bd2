"""One run: from the files as they are to an answer for every line.

Owns: reading both files before anything is computed, which lines still need an answer, and that each answer is written
once. Refuses to know: how lines are answered, and how progress is shown. Specs: BATCH-10 to BATCH-19.
Next: `ferrum.batch.answering`.
Next: `ferrum.batch.answering`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from ferrum.batch.answer_file import AnswerFile
from ferrum.batch.ledger import Ledger
from ferrum.batch.lines import raw_lines
from ferrum.batch.request_line import RequestLine, read_line
from ferrum.batch.result_line import Result
from ferrum.errors import ConfigError, InvalidFormat, listed

MOST_MODELS = 8
"""Names of models in the answers that are there, of which a message tells."""


@dataclass
class Run:
    """What is to be done. `models`: those that have answered in earlier runs; `tokens`: of this run's answers;
    `watch`: called when there is something new to see."""

    requests: BinaryIO
    answers: AnswerFile
    ledger: Ledger
    seed: int
    watch: Callable[[], None] = lambda: None
    models: set[str] = field(default_factory=set)
    tokens: int = 0

    def take_stock(self, *, retry_errors: bool = False) -> None:
        """Reads both files. Raises InvalidFormat and ConfigError for what cannot go on together."""
        if self.answers.is_file(self.requests):
            raise ConfigError("requests and answers are the same file")
        self.requests.seek(0)
        for raw in raw_lines(self.requests):
            self.ledger.add(read_line(raw, self.seed))
        if retry_errors:
            self.answers.take_out(lambda written: written.failed and self.ledger.waits(written.id) is not None)
        for written in self.answers.written():
            self.ledger.found(written)
            if written.model is not None and len(self.models) < MOST_MODELS:
                self.models.add(written.model)

    def lines(self) -> Iterator[RequestLine]:
        """Those without an answer, read as they are asked for. Raises InvalidFormat where the file of requests is no
        longer what it was."""
        self.requests.seek(0)
        for raw in raw_lines(self.requests):
            line = read_line(raw, self.seed)
            waits = self.ledger.waits(line.id)
            if waits is None:
                raise _changed()
            if waits:
                yield line

    def keep(self, result: Result) -> bool:
        """Writes a result, if the line has none yet. -> whether it had none."""
        is_new = self.ledger.answer(result.id, failed=result.failed)
        if is_new:
            self.answers.append(result.text)
            self.tokens += result.tokens
            self.watch()
        return is_new

    @property
    def complete(self) -> bool:
        counts = self.ledger.counts
        return counts.answered == counts.lines

    def check_complete(self) -> None:
        """Raises InvalidFormat where lines have gone without having been answered."""
        if not self.complete:
            raise _changed()


def check_model(models: Collection[str], names: tuple[str, ...]) -> None:
    """Raises ConfigError where a model has answered before that is not the one with these names."""
    earlier = sorted(set(models).difference(names))
    if earlier:
        message = f"the answers that are there are those of {listed(earlier)}, and this is {listed(names)}"
        raise ConfigError(f"{message}: the rest belongs in a new file")


def _changed() -> InvalidFormat:
    return InvalidFormat("the file of requests has changed while its lines were answered")
