"""A model, a backend and a configuration put together: memory, runner, scheduler, engine.

Owns: the order in which that is done. Refuses to know: where a model comes from.
Specs: ENGINE-17, DRAFT-15. Next: `ferrum.engine.thread`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ferrum.config import EngineConfig
from ferrum.engine.drafting import build_speculation, check_speculation, shared
from ferrum.engine.engine import Engine
from ferrum.engine.metrics import EngineMetrics
from ferrum.engine.runner import Runner
from ferrum.engine.setup import (
    Model,
    build_grammars,
    build_runner,
    build_scheduler,
    capacity,
    check_backend,
    storage_dtype,
    swap_cost,
    with_device_memory,
)
from ferrum.tensor.compositions import TensorOps


@dataclass(frozen=True, eq=False)
class Assembled:
    """The parts that serve a model. `config`: with the model's own part of the memory."""

    config: EngineConfig
    max_model_len: int
    runner: Runner
    metrics: EngineMetrics
    engine: Engine


def assemble(loaded: Model, ops: TensorOps, config: EngineConfig, draft: Model | None = None) -> Assembled:
    """The parts for a model on a backend. `draft`: a second model that proposes tokens. Raises the errors of the parts,
    where possible before memory is allocated."""
    check_backend(ops, config)
    check_speculation(config, loaded, draft)
    config, draft_memory = shared(with_device_memory(ops, loaded.params, config), loaded, draft, ops)
    dtype = storage_dtype(ops, config)
    size = capacity(loaded.config, config, dtype)
    runner = build_runner(ops, loaded.config, loaded.params, config, size)
    metrics = EngineMetrics()
    engine = Engine(
        runner,
        build_scheduler(config, size, runner.storage, swap_cost(ops, loaded.config, loaded.params, config, dtype)),
        lambda: loaded.tokenizer,
        metrics,
        grammars=build_grammars(lambda: loaded.tokenizer, loaded.config.vocab_size),
        speculation=build_speculation(ops, config, loaded, size, draft, draft_memory),
    )
    return Assembled(config, size.max_model_len, runner, metrics, engine)
