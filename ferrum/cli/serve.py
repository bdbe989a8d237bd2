"""`ferrum-ref serve`: the OpenAI API over HTTP, and a page to talk to.

Owns: the order of starting (address, model, then connections), what is said on stderr, the exit code. Refuses to know:
HTTP. Specs: SERVER-55, SERVER-60 to SERVER-63, SERVER-70 to SERVER-73. Next: `docs/serving.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ferrum.cli.loading import engine_config, load
from ferrum.cli.options import EngineOptions, debug_option, engine_options, server_options
from ferrum.cli.progress import Progress
from ferrum.cli.server_flags import ServerFlags
from ferrum.errors import ConfigError, InvalidParameter

if TYPE_CHECKING:
    from ferrum.api.service import Service

_COUNT = click.IntRange(min=1)
KILLED = 128
"""Exit codes from here on are signals."""


@click.command()
@click.option("--served-model-name", multiple=True, metavar="NAME",
              help="What requests call the model; may be repeated.  [default: its own name]")  # fmt: skip
@click.option("--max-num-seqs", type=_COUNT, default=64, show_default=True, metavar="N", help="Sequences at a time.")
@click.option("--max-num-batched-tokens", type=_COUNT, default=256, show_default=True, metavar="N",
              help="Tokens of a step: with fewer, other streams flow on while a long prompt is read.")  # fmt: skip
@click.option("--max-queue", "max_waiting", type=_COUNT, default=1000, show_default=True, metavar="N",
              help="Sequences that may wait; more are told to come again.")  # fmt: skip
@click.option("--tool-parser", default="auto", show_default=True, metavar="NAME", help="How the model writes calls.")
@click.option("--reasoning-parser", default="auto", show_default=True, metavar="NAME", help="How it writes thoughts.")
@click.option("--stub", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Serve answers from this file in place of a model.")  # fmt: skip
@server_options
@engine_options
@debug_option
def serve(
    served_model_name: tuple[str, ...],
    max_num_seqs: int,
    max_num_batched_tokens: int,
    max_waiting: int,
    tool_parser: str,
    reasoning_parser: str,
    stub: Path | None,
    flags: ServerFlags,
    engine: EngineOptions,
) -> None:
    """Serve the OpenAI API over HTTP."""
    check_installed()
    from ferrum.server.app import make_app
    from ferrum.server.run import serve as serve_until_signal
    from ferrum.server.sockets import bind, is_loopback, url

    settings, terms, progress = flags.settings(), flags.terms(), Progress()
    sockets = bind(flags.host, flags.port)
    if not settings.api_keys and not is_loopback(flags.host):
        progress.note("warning: whoever reaches this address can ask: --api-key-file asks for a key")
    config = {
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_waiting": max_waiting,
    }
    parsers = (tool_parser, reasoning_parser)
    if stub is None:
        service = model_service(engine, config, served_model_name, parsers, progress)
    else:
        service = stub_service(stub, engine, config, served_model_name, parsers)
    where = url(flags.host, sockets[0].getsockname()[1], "http" if terms.tls is None else "https")
    try:
        app = make_app(service, settings)
        cut_by = serve_until_signal(app, service, sockets, terms, lambda: progress.note(f"listening on {where}"))
    finally:
        service.close()
    if cut_by is not None:
        raise click.exceptions.Exit(KILLED + cut_by)


def check_installed() -> None:
    """Raises ConfigError where a package of the extra is missing."""
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"serving needs {', '.join(missing)}: pip install 'ferrum-ref[server]'")


def model_service(
    engine: EngineOptions, config: dict[str, int], names: Sequence[str], parsers: tuple[str, str], progress: Progress
) -> Service:
    """The model of the flags, ready for requests; `config` has more fields of `EngineConfig`."""
    llm = load(engine, progress, **config)
    from ferrum.api.served import served
    from ferrum.api.service import Service

    return Service(served(llm, names, *parsers))


def stub_service(
    file: Path, engine: EngineOptions, config: dict[str, int], names: Sequence[str], parsers: tuple[str, str]
) -> Service:
    """A script in place of a model, in an engine like that of the flags. Raises InvalidParameter where a model is named
    as well: one of the two would be ignored."""
    source = click.get_current_context().get_parameter_source("model")
    if source not in (None, ParameterSource.DEFAULT):
        raise InvalidParameter("stub", "stands in place of a model: it cannot go with -m/--model")
    from ferrum.api.service import Service
    from ferrum.api.stub import read_script, stub

    return Service(stub(read_script(file), names, engine_config(engine, **config), *parsers))
