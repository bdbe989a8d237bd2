"""Flags of a model that answers requests, on one machine or on several with Ray, and the service that they make.

Owns: names, parsers, template and pooling of the model, how many requests it takes, the script in place of a model, and
how a replica is made on another machine: with the same flags and absolute paths. Refuses to know: where requests come
from, Ray itself. Specs: SERVER-73, SERVER-74, BATCH-40, BATCH-44. Next: `ferrum.cli.server_flags`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ferrum.cli.terminal import Progress
from ferrum.errors import ConfigError, InvalidParameter

if TYPE_CHECKING:
    from ferrum.api.service import Service
    from ferrum.cli.options import EngineOptions

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_COUNT = click.IntRange(min=1)

SERVICE_FLAGS = (
    click.option("--served-model-name", multiple=True, metavar="NAME",
                 help="Name of the model in requests and answers; may be repeated.  [default: the model's own name]"),
    click.option("--max-num-seqs", type=_COUNT, default=64, show_default=True, metavar="N",
                 help="Most sequences that are computed at the same time; others wait."),
    click.option("--max-num-batched-tokens", type=_COUNT, default=256, show_default=True, metavar="N",
                 help="Most tokens in one step. A smaller number lets running answers continue while a long prompt "
                 "is read; a larger number reads prompts faster."),
    click.option("--max-queue", "max_waiting", type=_COUNT, default=1000, show_default=True, metavar="N",
                 help="Most sequences that may wait; a further request is refused with status 429."),
    click.option("--tool-parser", default="auto", show_default=True, metavar="NAME",
                 help="Format in which the model writes tool calls: auto (known by its chat template), none, or a "
                 "name."),
    click.option("--reasoning-parser", default="auto", show_default=True, metavar="NAME",
                 help="Format in which the model marks its reasoning: auto, none, or a name."),
    click.option("--chat-template", type=_FILE, metavar="FILE",
                 help="A Jinja chat template to use in place of the model's own."),
    click.option("--pooling", type=click.Choice(["auto", "mean", "last", "cls"]), default="auto", show_default=True,
                 help="How the embedding of a text is made of the vectors of its tokens, for requests that do not "
                 "name a way: their mean, the last one, or the first one (cls)."),
    click.option("--stub", type=_FILE, metavar="FILE",
                 help="Load no model: give the answers that this script lists. For tests of clients."),
)  # fmt: skip


@dataclass(frozen=True)
class ServiceFlags:
    """The values of the flags."""

    served_model_name: tuple[str, ...]
    max_num_seqs: int
    max_num_batched_tokens: int
    max_waiting: int
    tool_parser: str
    reasoning_parser: str
    chat_template: Path | None
    pooling: str
    stub: Path | None

    def check(self) -> None:
        """Raises InvalidParameter for a model beside a script: one of the two would be ignored."""
        source = click.get_current_context().get_parameter_source("model")
        if self.stub is not None and source is not ParameterSource.DEFAULT:
            raise InvalidParameter("stub", "stands in place of a model: it cannot go with -m/--model")

    def service(self, engine: EngineOptions, progress: Progress) -> Service:
        """The model, or the script, ready for requests. Raises FerrumError and OSError."""
        template = None if self.chat_template is None else self.chat_template.read_text(encoding="utf-8")
        if self.stub is not None:
            return self._scripted(self.stub, template, engine)
        from ferrum.cli.loading import load

        llm = load(engine, progress, **self._capacity())
        from ferrum.api.served import served
        from ferrum.api.service import Service

        return Service(served(llm, **self._manner(), chat_template=template))

    def _scripted(self, file: Path, template: str | None, engine: EngineOptions) -> Service:
        """A script, in an engine like that of the flags."""
        from ferrum.api.service import Service
        from ferrum.api.stub import read_script, stub
        from ferrum.cli.loading import engine_config

        script = read_script(file)
        if template is not None:
            script = replace(script, template=template)
        return Service(stub(script, config=engine_config(engine, **self._capacity()), **self._manner()))

    def _capacity(self) -> dict[str, int]:
        return {
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "max_waiting": self.max_waiting,
        }

    def _manner(self) -> dict[str, Any]:
        return {
            "names": self.served_model_name,
            "tool_parser": self.tool_parser,
            "reasoning_parser": self.reasoning_parser,
            "pooling": self.pooling,
        }


RAY_FLAGS = (
    click.option("--ray", is_flag=True, help="Run copies of the model on several machines or GPUs, with Ray."),
    click.option("--address", metavar="ADDRESS",
                 help="With --ray: address of a running Ray cluster, or auto to find one.  [default: start one on "
                 "this machine]"),
    click.option("--replicas", type=click.IntRange(min=1), metavar="N",
                 help="With --ray: number of copies of the model.  [default: 1]"),
)  # fmt: skip


@dataclass(frozen=True)
class RayFlags:
    """The values of the flags; None for a flag that was not given."""

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
    """A function that makes the service of a replica, on any machine."""

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else path.resolve()

    def named(model: str) -> str:
        return os.path.abspath(model) if os.path.exists(model) else model

    files = replace(service, stub=absolute(service.stub), chat_template=absolute(service.chat_template))
    draft = None if engine.draft_model is None else named(engine.draft_model)
    return partial(_make, files, replace(engine, model=named(engine.model), draft_model=draft))


def _make(service: ServiceFlags, engine: EngineOptions) -> Service:
    return service.service(engine, Progress())
