"""A recording of an `LLM`: an observer beside its own, and a watched backend in place of its own, for a while.

Owns: `Recording`, and the fields of a trace that do not change from step to step. Between `start` and `stop` decode
steps are not replayed; before and after, the engine is as it was. Refuses to know: where a trace is written.
Specs: TRACE-01, TRACE-02, TRACE-11, TRACE-12. Next: `ferrum.trace.page`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ferrum import __version__
from ferrum.engine.llm import LLM
from ferrum.engine.observer import EngineObserver
from ferrum.engine.runner import Runner
from ferrum.engine.setup import storage_dtype
from ferrum.errors import InvalidParameter, Unsupported
from ferrum.model.params import Layer
from ferrum.tensor.parts import Attention
from ferrum.trace.attention import AttentionLog
from ferrum.trace.backend import TracedOps
from ferrum.trace.launches import LaunchLog, timed_kernels
from ferrum.trace.recorder import Recorder

VERSION = 1
"""Of the format: docs/trace-format.md."""
ATTENTION_BYTES = 16 << 20
"""Weights of attention in a trace, one byte each."""


@dataclass(frozen=True)
class Detail:
    """What is recorded besides queues, tables and blocks. Without operations and attention the engine runs on its own
    backend, and replays decode steps."""

    operations: bool = True  # the operations of the decoder, and kernels, with their times
    distributions: bool = True  # how each token was chosen, by the definition: some 10 ms a token
    attention: bool = True  # the attention of each sampled token
    attention_layers: Collection[int] | None = None  # None: all
    attention_bytes: int = ATTENTION_BYTES  # for all steps together
    most_steps: int | None = None  # the last steps are kept; None: all


class Recording:
    """Records an engine from `start` to `stop`; also a context manager that does both."""

    def __init__(self, llm: LLM, detail: Detail | None = None) -> None:
        """Raises Unsupported for an encoder, InvalidParameter for a layer that the model does not have."""
        if llm.config.encoder:
            raise Unsupported(f"a trace shows how tokens are generated, and {llm.model_name} is an encoder")
        self._llm, self._detail = llm, Detail() if detail is None else detail
        for layer in self._detail.attention_layers or ():
            if not 0 <= layer < llm.config.layers:
                raise InvalidParameter(
                    "attention_layers", f"names layer {layer}; the model has layers 0 to {llm.config.layers - 1}"
                )
        self._recorder: Recorder | None = None
        self._end: dict[str, Any] | None = None  # the moment of `stop`; None while steps are recorded
        self._attention: AttentionLog | None = None
        self._undo = ExitStack()

    def start(self) -> None:
        """Steps are recorded from now on. Steps that were recorded before are forgotten. Raises SchedulerError where
        the engine belongs to an `EngineThread`."""
        self.stop()
        with self._llm.engine.turn():  # not during a step
            self._attach()
        self._llm.engine.settle()

    def stop(self) -> None:
        """The engine is as it was before `start`. The recorded steps stay."""
        self._undo.close()

    def __enter__(self) -> Recording:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def steps(self) -> int:
        """How many steps were recorded."""
        return 0 if self._recorder is None else self._recorder.steps

    def trace(self, after: int = 0) -> dict[str, Any]:
        """The trace so far, as docs/trace-format.md has it; only steps whose number is greater than `after`."""
        if self._recorder is None:
            raise InvalidParameter("recording", "was not started")
        recorded = self._recorder.recorded(self._llm.tokenizer.token_bytes, after)
        end = self._recorder.end() if self._end is None else self._end
        recorded |= {"end": end, "left_out": self.left_out()}
        return {"version": VERSION, "ferrum": __version__, **facts(self._llm), **recorded}

    def left_out(self) -> list[str]:
        """A sentence for each thing that was asked for and not recorded."""
        sentences: list[str] = []
        if self._attention is not None and self._attention.skipped:
            sentences.append(
                f"the attention of the last {self._attention.skipped} sampled tokens: attention takes at most "
                f"{self._detail.attention_bytes} bytes"
            )
        if self._recorder is not None and self._recorder.dropped:
            sentences.append(f"the first {self._recorder.dropped} steps: the last {self._detail.most_steps} are kept")
        return sentences

    def _attach(self) -> None:
        engine, runner, detail = self._llm.engine, self._llm.runner, self._detail
        traced = None
        if detail.operations or detail.attention:
            traced = self._traced(runner)
            self._undo.enter_context(timed_kernels(runner.ops, traced.launches))
            engine.executor = Runner(traced, runner.step.params, runner.step.rotations, runner.storage)
            self._undo.callback(setattr, engine, "executor", runner)
        self._recorder = Recorder(engine, traced, detail.most_steps, explains=detail.distributions)
        self._end = None
        self._undo.callback(self._keep_end, self._recorder)
        self._undo.callback(setattr, engine, "observer", engine.observer)
        engine.observer = Observers(engine.observer, self._recorder)

    def _keep_end(self, recorder: Recorder) -> None:
        """What happens to the engine after `stop` does not belong to the trace."""
        self._end = recorder.end()

    def _traced(self, runner: Runner) -> TracedOps:
        config, detail = self._llm.config, self._detail
        self._attention = None
        if detail.attention:
            layers = range(config.layers) if detail.attention_layers is None else detail.attention_layers
            self._attention = AttentionLog(layers, config.heads, detail.attention_bytes)
        log = LaunchLog(runner.step.params)
        return TracedOps(runner.ops, runner.storage.layers, log, self._attention)  # type: ignore[abstract]


class Observers(EngineObserver):
    """Calls every hook of several observers, one observer after the other."""

    def __init__(self, *observers: EngineObserver) -> None:
        self._observers = observers


def _hook_of_all(name: str) -> Callable[..., None]:
    def hook(self: Observers, *facts: object) -> None:
        for observer in self._observers:
            getattr(observer, name)(*facts)

    return hook


for _name in [name for name in vars(EngineObserver) if not name.startswith("_")]:
    setattr(Observers, _name, _hook_of_all(_name))


def facts(llm: LLM) -> dict[str, Any]:
    """The fields `model`, `memory` and `limits` of a trace."""
    config, engine, manager = llm.config, llm.engine_config, llm.scheduler.manager
    limits = llm.scheduler.limits
    bodies = [_attention_of(layer) for layer in llm.runner.step.params.layers]
    return {
        "model": {
            "name": llm.model_name,
            "backend": llm.backend_name,
            "dtype": llm.dtype_name,
            "compute": llm.runner.ops.compute,
            "threads": llm.runner.ops.threads,
            "layers": config.layers,
            "heads": config.heads,
            "kv_heads": config.kv_heads,
            "head_dim": config.head_dim,
            "vocab_size": config.vocab_size,
            "windows": [body.window for body in bodies],
            "sinks": [body.sinks is not None for body in bodies],
        },
        "memory": {
            "block_size": manager.block_size,
            "device_blocks": manager.device.total,
            "host_blocks": 0 if manager.host is None else manager.host.total,
            "kv_dtype": storage_dtype(llm.runner.ops, engine),
            "eviction": engine.eviction,
            "scheduler": engine.scheduler,
            "prefix_caching": engine.prefix_caching,
        },
        "limits": {
            "max_num_seqs": limits.max_num_seqs,
            "max_num_batched_tokens": limits.max_num_batched_tokens,
            "max_model_len": limits.max_model_len,
        },
    }


def _attention_of(layer: Layer) -> Attention:
    """The attention of a decoder layer; each has one."""
    return next(branch.body for stage in layer.stages for branch in stage if isinstance(branch.body, Attention))
