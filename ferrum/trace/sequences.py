"""The sequences and requests of a trace, and their numbers.

Owns: `SequenceBook`: numbers in the order of arrival, and the entries of `requests` and `sequences`.
Refuses to know: steps. Specs: TRACE-10. Next: `ferrum.trace.recorder`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from typing import Any

from ferrum.sampling_params import SamplingParams
from ferrum.sched.sequence import TokenSequence
from ferrum.types import FinishReason


class SequenceBook:
    """The sequences that a recorder knows, until they have ended and no kept step names them."""

    def __init__(self) -> None:
        self._numbers: dict[TokenSequence, int] = {}
        self._requests: dict[TokenSequence, int] = {}  # by the first continuation of a prompt
        self._reasons: dict[TokenSequence, FinishReason] = {}
        self._last_steps: dict[TokenSequence, int] = {}  # the number of the last step that names a sequence
        self._next_sequence = self._next_request = 0

    def begin_all(self, sequences: Iterable[TokenSequence]) -> list[TokenSequence]:
        """These wait or run, and have numbers from now on -> those that had none, in the order of arrival."""
        new = sorted((each for each in sequences if each not in self._numbers), key=lambda each: each.arrival)
        for sequence in new:
            self._numbers[sequence], self._next_sequence = self._next_sequence, self._next_sequence + 1
            first = sequence.siblings[0]
            if first not in self._requests:
                self._requests[first], self._next_request = self._next_request, self._next_request + 1
        return new

    def end(self, sequence: TokenSequence, reason: FinishReason) -> bool:
        """The sequence has ended. False for one that has no number: it ended before a step saw it."""
        if sequence not in self._numbers:
            return False
        self._reasons[sequence] = reason
        return True

    def number(self, sequence: TokenSequence) -> int:
        return self._numbers[sequence]

    def name_all(self, sequences: Iterable[TokenSequence], step: int) -> None:
        """The step with this number names these sequences."""
        self._last_steps.update(dict.fromkeys(sequences, step))

    def keep_from(self, step: int) -> None:
        """Forgets sequences that have ended and that no step from this one on names."""
        forgotten = [each for each in self._reasons if self._last_steps.get(each, 0) < step]
        for sequence in forgotten:
            del self._numbers[sequence], self._reasons[sequence]
            self._last_steps.pop(sequence, None)
        if forgotten:
            firsts = {sequence.siblings[0] for sequence in self._numbers}
            self._requests = {first: number for first, number in self._requests.items() if first in firsts}

    def as_json(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The fields `requests` and `sequences` of a trace, but for what is slow: `params` are still to be given to
        `params_as_json`, and the text of a sequence is missing (see `text_of`)."""
        requests = [
            {
                "id": number,
                "params": first.params,
                "sequences": [self._numbers[each] for each in first.siblings if each in self._numbers],
            }
            for first, number in self._requests.items()
        ]
        return requests, [self._sequence(sequence) for sequence in self._numbers]

    def _sequence(self, sequence: TokenSequence) -> dict[str, Any]:
        reason = self._reasons.get(sequence)
        return {
            "id": self._numbers[sequence],
            "request": self._requests[sequence.siblings[0]],
            "seed": sequence.seed,
            "tokens": list(sequence.token_ids),
            "prompt_length": sequence.prompt_length,
            "cached": sequence.cached,
            "finish_reason": None if reason is None else reason.value,
        }


def text_of(tokens: Iterable[int], spell: Callable[[int], bytes]) -> str:
    """All tokens decoded, as one text. `spell`: the bytes of a token."""
    return b"".join(map(spell, tokens)).decode("utf-8", "replace")


def params_as_json(params: SamplingParams) -> dict[str, Any]:
    """The parameters that differ from their defaults."""
    default = SamplingParams()
    given = {field.name: getattr(params, field.name) for field in fields(params)}
    return {name: _plain(value) for name, value in given.items() if value != getattr(default, name)}


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(each) for name, each in asdict(value).items() if each is not None}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    return value
