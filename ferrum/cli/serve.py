"""`ferrum-ref serve`: the OpenAI API over HTTP, and a page to talk to.

Owns: the order of starting (address, model, then connections), what is said on stderr, the exit code. Refuses to know:
HTTP. Specs: SERVER-55, SERVER-60 to SERVER-63, SERVER-70, SERVER-71. Next: `docs/serving.md`.
"""

from __future__ import annotations

from importlib.util import find_spec

import click

from ferrum.cli.options import EngineOptions, debug_option, engine_options, server_options, service_options
from ferrum.cli.progress import Progress
from ferrum.cli.server_flags import ServerFlags
from ferrum.cli.service_flags import ServiceFlags
from ferrum.errors import ConfigError

KILLED = 128
"""Exit codes from here on are signals."""


@click.command()
@server_options
@service_options
@engine_options
@debug_option
def serve(server: ServerFlags, service: ServiceFlags, engine: EngineOptions) -> None:
    """Serve the OpenAI API over HTTP."""
    check_installed()
    from ferrum.server.app import make_app
    from ferrum.server.run import serve as serve_until_signal
    from ferrum.server.sockets import bind, is_loopback, url

    settings, terms, progress = server.settings(), server.terms(), Progress()
    sockets = bind(server.host, server.port)
    where = url(server.host, sockets[0].getsockname()[1], "http" if terms.tls is None else "https")
    if not settings.api_keys and not is_loopback(server.host):
        progress.note("warning: whoever reaches this address can ask: --api-key-file asks for a key")
    answering = service.service(engine, progress)
    try:
        app = make_app(answering, settings)
        cut_by = serve_until_signal(app, answering, sockets, terms, lambda: progress.note(f"listening on {where}"))
    finally:
        answering.close()
    if cut_by is not None:
        raise click.exceptions.Exit(KILLED + cut_by)


def check_installed() -> None:
    """Raises ConfigError where a package of the extra is missing."""
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"serving needs {', '.join(missing)}: pip install 'ferrum-ref[server]'")
