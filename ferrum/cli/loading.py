"""From flags to a model that is ready, with something to look at meanwhile.

Owns: the moment when the engine's code is imported. Refuses to know: what the model is for.
Specs: CLI-20. Next: `ferrum.cli.generate`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ferrum.cli.options import EngineOptions
from ferrum.cli.progress import Progress

if TYPE_CHECKING:
    from ferrum.engine.llm import LLM
    from ferrum.load.resolve import Location


def load(options: EngineOptions, progress: Progress, **more: Any) -> LLM:
    """The model of the flags; `more` are further arguments of `LLM`, whose names those of the flags are."""
    with progress.during(f"loading {options.model}"):
        from ferrum.engine.llm import LLM

        llm = LLM(**asdict(options), **more, progress=progress.download(options.model))
        llm.runner.ops.on_compile(lambda kernel: progress.show(f"compiling {kernel}, kept for the next start"))
        return llm


def locate(model: str, progress: Progress, *, offline: bool = False) -> Location:
    """The model's files on this machine, downloaded if need be and allowed."""
    with progress.during(f"looking for {model}"):
        from ferrum.load.resolve import resolve

        return resolve(model, offline=offline, progress=progress.download(model))
