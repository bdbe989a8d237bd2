"""Flags of commands that can run on several machines.

Owns: their names and help, and how a replica is made on another machine: of the same flags, with files by their full
names. Refuses to know: Ray. Specs: BATCH-40, BATCH-44. Next: `ferrum.cli.options`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ferrum.cli.progress import Progress
from ferrum.cli.service_flags import ServiceFlags
from ferrum.errors import ConfigError, InvalidParameter

if TYPE_CHECKING:
    from ferrum.api.service import Service
    from ferrum.cli.options import EngineOptions

RAY_FLAGS = (
    click.option("--ray", is_flag=True, help="Answer on replicas of the model, which Ray places on machines."),
    click.option("--address", metavar="ADDRESS",
                 help="With --ray: of a cluster that is there, or auto.  [default: a new one on this machine]"),
    click.option("--replicas", type=click.IntRange(min=1), metavar="N", help="With --ray.  [default: 1]"),
)  # fmt: skip


@dataclass(frozen=True)
class RayFlags:
    """What the flags say; None where nothing was said."""

    ray: bool
    address: str | None
    replicas: int | None

    def check(self) -> None:
        """Raises InvalidParameter for flags that need --ray, ConfigError where it needs a package."""
        for field in ("address", "replicas"):
            if not self.ray and getattr(self, field) is not None:
                raise InvalidParameter(field, "needs --ray")
        if self.ray and find_spec("ray") is None:
            raise ConfigError("several machines need Ray: pip install 'ferrum-ref[ray]'")


def refuse_beside(fields: Collection[str]) -> None:
    """Raises InvalidParameter for a flag that was given and has no meaning with --ray."""
    context = click.get_current_context()
    for field in fields:
        if context.get_parameter_source(field) is ParameterSource.COMMANDLINE:
            raise InvalidParameter(field, "is up to Ray where --ray is given")


def replica_maker(service: ServiceFlags, engine: EngineOptions) -> Callable[[], Service]:
    """What makes the service of a replica, wherever that is."""

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else path.resolve()

    def named(model: str) -> str:
        return os.path.abspath(model) if os.path.exists(model) else model

    files = replace(service, stub=absolute(service.stub), chat_template=absolute(service.chat_template))
    draft = None if engine.draft_model is None else named(engine.draft_model)
    return partial(_make, files, replace(engine, model=named(engine.model), draft_model=draft))


def _make(service: ServiceFlags, engine: EngineOptions) -> Service:
    return service.service(engine, Progress())
