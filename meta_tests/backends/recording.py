"""Faults in recorded steps: what of a later batch a replay does not see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.backends.recorded_steps import is_decode
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.compositions import Step
from ferrum.tensor.ops import Tensor
from ferrum.types import DecodeSteps
from meta_tests.backends.fault import caught_by, permitted

FIELDS = ("token_ids", "positions", "slots", "seq_starts", "context_lens", "block_tables", "logit_rows")


@permitted("it is right: a step on a copy of the batch is the step", "test_two_models_have_recordings_of_their_own")
class ReplayOps(NumpyOps):
    """Keeps a batch of its own for each shape of a step, fills it, and runs the step on that."""

    updated: tuple[str, ...] = FIELDS

    def __init__(self, float_dtype: str = "float32", deterministic: bool = False) -> None:
        super().__init__(float_dtype, deterministic)
        self._known: WeakKeyDictionary[Any, dict[Any, StepBatch]] = WeakKeyDictionary()
        self._counts: WeakKeyDictionary[Any, DecodeSteps] = WeakKeyDictionary()

    def key(self, batch: StepBatch) -> Any:
        return batch.block_tables.shape

    def host_numbers(self, own: StepBatch, batch: StepBatch) -> StepBatch:
        return replace(own, starts=batch.starts, contexts=batch.contexts)

    def handed(self, result: Tensor) -> Tensor:
        return result.copy()

    def run_step(self, step: Step, batch: StepBatch) -> Tensor:
        if not is_decode(batch):
            return step(self, batch)
        known = self._known.setdefault(step, {})
        copied = {name: np.array(getattr(batch, name)) for name in FIELDS}
        own = known.setdefault(self.key(batch), replace(batch, **copied))
        for name in self.updated:
            self.fill(getattr(own, name), getattr(batch, name))
        self._counts[step] = self._counts.get(step, DecodeSteps()).and_one(replayed=True)
        return self.handed(step(self, self.host_numbers(own, batch)))

    def fill(self, own: np.ndarray, new: np.ndarray) -> None:
        own[...] = new

    def decode_steps(self, step: Step) -> DecodeSteps:
        return self._counts.get(step, DecodeSteps())


def all_but(field: str) -> tuple[str, ...]:
    return tuple(name for name in FIELDS if name != field)


@caught_by("test_a_replay_has_the_bits_of_the_step", name="dense")
class StaleTables(ReplayOps):
    """Reads the block tables of the first batch of a shape."""

    updated = all_but("block_tables")


@caught_by("test_a_replay_has_the_bits_of_the_step", name="dense")
class StalePositions(ReplayOps):
    """Rotates by the positions of the first batch of a shape."""

    updated = all_but("positions")


@caught_by("test_a_replay_has_the_bits_of_the_step", name="dense")
class StaleSlots(ReplayOps):
    """Writes to the slots of the first batch of a shape."""

    updated = all_but("slots")


@caught_by("test_a_replay_has_the_bits_of_the_step", name="dense")
class StaleTokens(ReplayOps):
    """Embeds the tokens of the first batch of a shape."""

    updated = all_but("token_ids")


@caught_by("test_a_replay_has_the_bits_of_the_step", name="dense")
class StaleContexts(ReplayOps):
    """Holds the lengths of contexts as numbers of the launch: those of the first batch of a shape."""

    def host_numbers(self, own: StepBatch, batch: StepBatch) -> StepBatch:
        return own


@caught_by("test_a_replay_has_the_bits_of_the_step", name="dense")
class CutsWideTables(ReplayOps):
    """Has a table as wide as the first batch's, and cuts later ones (as in nano-vllm #190)."""

    def key(self, batch: StepBatch) -> Any:
        return len(batch.token_ids)

    def fill(self, own: np.ndarray, new: np.ndarray) -> None:
        if own.ndim > 1:
            width = min(own.shape[1], new.shape[1])
            own[:, :width] = new[:, :width]
        else:
            own[...] = new


@caught_by("test_a_replay_has_the_bits_of_the_step", name="dense")
class ResultOfTheNext(ReplayOps):
    """Gives its own memory away: the next replay writes over a result."""

    def handed(self, result: Tensor) -> Tensor:
        kept = vars(self).setdefault("kept", {}).setdefault(result.shape, np.empty_like(result))
        kept[...] = result
        return kept


@caught_by("test_two_models_have_recordings_of_their_own")
class ReplaysAnotherModel(ReplayOps):
    """Knows a step by its code: two models whose steps are one function share a recording."""

    def run_step(self, step: Step, batch: StepBatch) -> Tensor:
        steps = vars(self).setdefault("steps", {})
        return super().run_step(steps.setdefault(getattr(step, "__code__", type(step)), step), batch)
