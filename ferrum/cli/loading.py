"""From flags to a loaded model, with progress on stderr.

Owns: the moment when the engine's code is imported. Refuses to know: what the model is for.
Specs: CLI-18, CLI-20, CLI-43. Next: `ferrum.cli.generate`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ferrum.cli.options import EngineOptions
from ferrum.cli.terminal import Progress

if TYPE_CHECKING:
    from ferrum.config import EngineConfig
    from ferrum.engine.llm import LLM
    from ferrum.load.resolve import Location


def load(options: EngineOptions, progress: Progress, **more: Any) -> LLM:
    """The model of the flags; `more` are further arguments of `LLM`, whose names those of the flags are."""
    with progress.during(f"loading {options.model}"):
        from ferrum.engine.llm import LLM

        llm = LLM(**asdict(options), **more, progress=progress.download(options.model))
        return announced(llm, progress)


def load_random(options: EngineOptions, shape: str, progress: Progress, **more: Any) -> LLM:
    """Random weights in the shape of a known model, run as the flags say; `more` are fields of `EngineConfig`. A
    flag that is wrong by itself is refused before the weights are made."""
    with progress.during(f"making random weights like those of {shape}"):
        from ferrum.engine.llm import LLM
        from ferrum.engine.setup import check_supported, make_backend
        from ferrum.load.random_model import random_model
        from ferrum.load.shapes import find_shape

        model = find_shape(shape)
        config = engine_config(options, **more)
        check_supported(config)
        ops = make_backend(config)
        random = random_model(f"{shape} (random)", model, options.dtype)
        return announced(LLM.from_loaded(random, ops, config), progress)


def engine_config(options: EngineOptions, **more: Any) -> EngineConfig:
    """The flags as an engine has them; `more` are further fields. Raises InvalidParameter."""
    from ferrum.config import EngineConfig, parse_memory
    from ferrum.errors import InvalidParameter

    if options.draft_model is not None:
        raise InvalidParameter("draft_model", "needs a model from files, whose vocabulary it shares")
    left_out = ("model", "offline", "draft_model")
    values = {name: value for name, value in asdict(options).items() if name not in left_out}
    for name in ("kv_memory", "host_kv_memory"):
        values[name] = parse_memory(name, values[name])
    return EngineConfig(**values, **more)


def announced(llm: LLM, progress: Progress) -> LLM:
    """The same model. `progress` shows which kernel is being compiled, and notes are printed if `auto` chose a GPU and
    if int8 has no quantised weights to work on."""
    from ferrum.tensor.ops import DTYPES

    ops = llm.runner.ops
    ops.on_compile(lambda kernel: progress.show(f"compiling {kernel}"))
    if llm.engine_config.backend == "auto" and not ops.on_host:
        progress.note(f"note: --backend auto takes the GPU: {ops.name}")
    if ops.compute == "int8" and llm.dtype_name in DTYPES:
        progress.note(f"note: --compute int8 rounds only what meets quantised weights, and these are {llm.dtype_name}")
    return llm


def locate(model: str, progress: Progress, *, offline: bool = False) -> Location:
    """The model's files on this machine; they are downloaded if necessary and allowed."""
    with progress.during(f"looking for {model}"):
        from ferrum.load.resolve import resolve

        return resolve(model, offline=offline, progress=progress.download(model))
