"""An observer that writes down every step of an engine.

Owns: `Recorder`: one entry for each step, in the form of `docs/trace-format.md`, and the numbers by which a trace knows
sequences and requests. It reads scheduler, memory and logits; the engine does not know of it.
Refuses to know: models and files. Specs: TRACE-01, TRACE-03, TRACE-10, TRACE-11. Next: `ferrum.trace.recording`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from time import perf_counter
from typing import Any

from ferrum.engine.engine import Engine
from ferrum.engine.observer import EngineObserver
from ferrum.sample.state import SamplingState
from ferrum.sched.plan import StepPlan
from ferrum.sched.sequence import TokenSequence
from ferrum.tensor.ops import Tensor
from ferrum.trace.attention import sampled_queries
from ferrum.trace.backend import TracedOps
from ferrum.trace.distribution import MOST_LIKELY, explain
from ferrum.trace.memory import Event, Moment, changes
from ferrum.trace.sequences import SequenceBook, params_as_json, text_of
from ferrum.types import FinishReason

Step = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """A token that is about to be sampled. The token itself is known when the step has ended."""

    sequence: TokenSequence
    position: int  # where the token will stand
    row: int  # the packed token of the step whose logits it is sampled from
    explanation: dict[str, Any]  # the fields `definition` to `stages`; empty where they are not recorded


class Recorder(EngineObserver):
    """Keeps the steps that an engine has done since this object was made. Any thread may call `recorded`."""

    def __init__(
        self,
        engine: Engine,
        traced: TracedOps | None = None,
        most_steps: int | None = None,
        most_numbers: int | None = None,
        explains: bool = True,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """To be made between two steps. `traced`: the backend of the engine during the recording, if operations and
        attention are recorded. `most_steps`: only the last steps are kept, so many; fewer if they have more than
        `most_numbers` (see `numbers_in`). None keeps all."""
        self._engine, self._traced, self._clock = engine, traced, clock
        self.explains = explains
        """True if the distribution of each token is recorded. May be changed at any time."""
        self._began = clock()
        self._lock = Lock()
        self._book = SequenceBook()
        self._steps: deque[Step] = deque()
        self._most_steps, self._most_numbers = most_steps, most_numbers
        self._numbers = 0  # of the kept steps
        self._count = 0
        self._before = Moment.of(engine.scheduler)  # the end of the last step
        self._latest = self._before  # the last moment that was looked at
        self._is_outdated = False  # True if a sequence has ended since, between two steps
        self._events: list[Event] = []  # since the end of the last step
        self._book.begin_all(self._latest.places)
        self._step: Step | None = None  # the step that runs
        self._rows: dict[TokenSequence, int] = {}  # see _first_rows
        self._choices: list[Choice] = []  # of the step that runs
        self._hooks_s = 0.0  # seconds that hooks took in the step that runs

    # ---- results
    @property
    def steps(self) -> int:
        """How many steps have ended."""
        return self._count

    def recorded(self, spell: Callable[[int], bytes], after: int = 0) -> dict[str, Any]:
        """The fields `texts` to `steps` of a trace; only steps whose number is greater than `after`. `spell`: the bytes
        of a token."""
        with self._lock:  # the engine waits for it: everything slow is done afterwards
            steps = [step for step in self._steps if step["step"] > after]
            requests, sequences = self._book.as_json()
        for request in requests:
            request["params"] = params_as_json(request["params"])
        for sequence in sequences:
            sequence["text"] = text_of(sequence["tokens"], spell)
        tokens = {token for sequence in sequences for token in sequence["tokens"]}
        for step in steps:
            tokens.update(token for chunk in step["chunks"] for token in chunk["drafts"])
            stages = [stage for choice in step["choices"] for stage in choice.get("stages", ())]
            tokens.update(token for stage in stages for token, _, _ in stage["top"])
        texts = {str(token): spelled(spell(token)) for token in sorted(tokens)}
        return {"texts": texts, "requests": requests, "sequences": sequences, "steps": steps}

    def end(self) -> dict[str, Any]:
        """The field `end` of a trace: the moment after the last step. Not to be called during a step."""
        with self._lock:
            if self._catch_up() or self._is_outdated:
                self._look()
            return {**self._latest.as_json(self._book.number), "events": list(self._events)}

    @property
    def dropped(self) -> int:
        """How many of the first steps are not kept."""
        return self._count - len(self._steps)

    # ---- hooks
    def step_planned(self, plan: StepPlan) -> None:
        began = self._clock()
        with self._lock:
            self._begin(plan, began)
        if self._traced is not None:
            self._traced.begin(plan)
        self._hooks_s = self._clock() - began

    def tokens_sampling(
        self, sequences: Sequence[TokenSequence], logits: Tensor, states: Sequence[SamplingState]
    ) -> None:
        began = self._clock()
        if self._step is None:
            return
        explanations: list[dict[str, Any]] = [{} for _ in sequences]
        if self.explains:
            explanations = list(map(explain, self._engine.executor.ops.to_numpy(logits), states))
        for sequence, state, explanation in zip(sequences, states, explanations, strict=True):
            accepted = sum(choice.sequence is sequence for choice in self._choices)  # drafts, in this step
            self._choices.append(Choice(sequence, state.position, self._rows[sequence] + accepted, explanation))
        self._hooks_s += self._clock() - began

    def sequence_finished(self, sequence: TokenSequence, reason: FinishReason) -> None:
        with self._lock:
            if self._book.end(sequence, reason):
                self._events.append(
                    {"kind": "finished", "sequence": self._book.number(sequence), "reason": reason.value}
                )
            self._is_outdated = self._is_outdated or self._step is None

    def step_finished(self, plan: StepPlan, duration_s: float) -> None:
        if self._step is None:  # the recording began during this step
            return
        began = self._clock()
        with self._lock:
            self._end(duration_s)
            self._before = self._look()
            if self.dropped:
                self._book.keep_from(self._steps[0]["step"])
        # so that start_s does not count the time of the recording
        self._began += self._recording_s() + self._clock() - began

    # ---- parts of hooks
    def _look(self) -> Moment:
        """The moment now. A sequence that has no number yet gets one, and an event."""
        self._latest, self._is_outdated = Moment.of(self._engine.scheduler, self._latest), False
        for sequence in self._book.begin_all(self._latest.places):
            self._events.append({"kind": "arrived", "sequence": self._book.number(sequence)})
        return self._latest

    def _begin(self, plan: StepPlan, now: float) -> None:
        """The step of `plan` begins, unless the plan is empty."""
        self._catch_up()
        moment = self._look()
        self._events += changes(self._before, moment, self._engine.scheduler, self._book.number)
        self._before, self._step, self._choices = moment, None, []
        if not plan.chunks:
            return
        events, self._events = self._events, []
        self._book.name_all(moment.places, self._count + 1)
        self._rows = dict(zip(plan.sampled, _first_rows(plan), strict=True))
        self._step = {
            "step": self._count + 1,
            "start_s": round(now - self._began, 6),
            "seconds": 0.0,
            **moment.as_json(self._book.number),
            "chunks": [
                {
                    "sequence": self._book.number(chunk.sequence),
                    "start": chunk.start,
                    "count": chunk.count,
                    "rows": chunk.rows,
                    "drafts": list(chunk.drafts),
                    "slots": chunk.sequence.table.slots(chunk.start, chunk.count + len(chunk.drafts)).tolist(),
                }
                for chunk in plan.chunks
            ],
            "events": events,
        }

    def _catch_up(self) -> bool:
        """Takes in what happened since the last step without a hook: a step that raised an error, or a reset of the
        engine. True if there was any of these."""
        resets = self._engine.scheduler.manager.resets
        if self._step is None and resets == self._before.resets:
            return False
        if self._step is not None:  # the model raised an error in that step, but its plan was carried out
            self._events = self._step["events"] + self._events
            self._step = None
        if resets != self._before.resets:
            self._events += self._end_all()
            self._before = Moment.nothing(resets)
        return True

    def _end_all(self) -> list[Event]:
        """The events of a reset of the engine: all sequences have ended."""
        numbers = [self._book.number(sequence) for sequence in self._before.places]
        for sequence in self._before.places:
            self._book.end(sequence, FinishReason.ERROR)
        return [{"kind": "finished", "sequence": number, "reason": "error"} for number in numbers]

    def _end(self, duration_s: float) -> None:
        """The step ends: its entry is completed and kept."""
        step, traced = self._step, self._traced
        assert step is not None
        step["seconds"] = round(max(0.0, duration_s - self._recording_s()), 6)
        step["choices"] = [self._chosen(choice) for choice in self._choices]
        sampled = [choice for choice in step["choices"] if choice["token"] is not None]
        step["events"] += [
            {"kind": "sampled", "sequence": choice["sequence"], "position": choice["position"]} for choice in sampled
        ]
        step["events"] += self._events
        if traced is not None:
            step["launches"] = traced.launches.take()
        self._count += 1
        self._keep(step)
        self._step, self._events = None, []

    def _keep(self, step: Step) -> None:
        """One more step is kept; the oldest ones are forgotten where there are too many."""
        self._steps.append(step)
        self._numbers += numbers_in(step)
        while len(self._steps) > 1 and (
            _exceeds(len(self._steps), self._most_steps) or _exceeds(self._numbers, self._most_numbers)
        ):
            self._numbers -= numbers_in(self._steps.popleft())

    def _recording_s(self) -> float:
        """Seconds of the step that the recording took, without `step_finished`."""
        return self._hooks_s + (0.0 if self._traced is None else self._traced.recording_s)

    def _chosen(self, choice: Choice) -> dict[str, Any]:
        sequence, position = choice.sequence, choice.position
        token = sequence.token_ids[position] if position < sequence.length else None
        attention = None if self._traced is None else self._traced.attended(choice.row)
        return {
            "sequence": self._book.number(sequence),
            "position": position,
            "token": token,
            **choice.explanation,
            **({} if attention is None else {"attention": attention}),
        }


def _first_rows(plan: StepPlan) -> list[int]:
    """For each sequence of plan.sampled the packed token from whose logits its next token comes."""
    rows: list[int] = []
    queries = iter(sampled_queries(plan))
    for chunk in plan.chunks:
        if chunk.is_sampled:
            rows.append(next(queries).row)
            for _ in chunk.drafts:
                next(queries)
    return rows


def numbers_in(step: Step) -> int:
    """About how many numbers a step has, which says how much memory it takes: those of blocks, tables, queues, slots
    and distributions."""
    tables = (*step["tables"].values(), *step["host_tables"].values(), *(chunk["slots"] for chunk in step["chunks"]))
    lists = (step["waiting"], step["running"], step["device"], step["host"], *tables)
    stages = sum(len(choice.get("stages", ())) for choice in step["choices"])
    return sum(map(len, lists)) + stages * 3 * MOST_LIKELY


def _exceeds(count: int, most: int | None) -> bool:
    return most is not None and count > most


def spelled(content: bytes) -> str:
    """A token's bytes as text. A byte that belongs to no whole character becomes a backslash, x and two digits."""
    return content.decode("utf-8", "backslashreplace")
