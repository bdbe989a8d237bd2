"""`ferrum-ref serve`: the OpenAI API over HTTP, and a web page to chat with.

Owns: the order of starting (address, model, then connections), what is said on stderr, the exit code. Refuses to know:
HTTP. Specs: SERVER-55, SERVER-60 to SERVER-63, SERVER-70, SERVER-71. See: `docs/serving.md`.
Next: `ferrum.cli.clauses`.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from ferrum.cli.options import EngineOptions, debug_option, engine_options, ray_options, server_options, service_options
from ferrum.cli.server_flags import ServerFlags
from ferrum.cli.service_flags import RayFlags, ServiceFlags, refuse_beside, replica_maker
from ferrum.cli.terminal import Progress
from ferrum.errors import ConfigError, InvalidParameter

if TYPE_CHECKING:
    from ferrum.server.settings import ServerSettings

KILLED = 128
"""An exit code above this number is 128 plus a signal."""
RAY_DECIDES = ("client_timeout", "max_header_size", "max_connections")
"""Flags of connections, which Ray handles with --ray."""


@click.command()
@server_options
@service_options
@engine_options
@ray_options
@debug_option
def serve(server: ServerFlags, service: ServiceFlags, engine: EngineOptions, ray: RayFlags) -> None:
    """Serve a model over HTTP with the OpenAI API, and a web page to chat with it."""
    check_installed()
    ray.check()
    service.check()
    if ray.ray:
        serve_on_replicas(server, service, engine, ray)
        return
    from ferrum.server.app import make_app
    from ferrum.server.run import serve as serve_until_signal
    from ferrum.server.sockets import bind, url

    settings, terms, progress = server.settings(), server.terms(), Progress()
    sockets = bind(server.host, server.port)
    where = url(server.host, sockets[0].getsockname()[1], "http" if terms.tls is None else "https")
    warn_if_open(server.host, settings, progress)
    answering = service.service(engine, progress)
    try:
        app = make_app(answering, settings)
        cut_by = serve_until_signal(app, answering, sockets, terms, lambda: progress.note(f"listening on {where}"))
    finally:
        answering.close()
    if cut_by is not None:
        raise click.exceptions.Exit(KILLED + cut_by)


def serve_on_replicas(server: ServerFlags, service: ServiceFlags, engine: EngineOptions, ray: RayFlags) -> None:
    """Does the same on several machines, with Ray."""
    refuse_beside(RAY_DECIDES)
    if server.glass:
        raise InvalidParameter("glass", "shows one engine, and with --ray there are several")
    if server.port == 0:
        raise InvalidParameter("port", "cannot be 0 with --ray: all machines listen on the same one")
    from ferrum.server.ray_app import Deployment, serve_on_ray
    from ferrum.server.ray_cluster import cluster
    from ferrum.server.sockets import url

    settings, terms, progress = replace(server.settings(), glass=False), server.terms(), Progress()
    warn_if_open(server.host, settings, progress)
    number = ray.replicas or 1
    where = url(server.host, server.port, "http" if terms.tls is None else "https")
    with cluster(ray.address, number, engine.backend, engine.threads) as share:
        ongoing = service.max_num_seqs + service.max_waiting
        make = replica_maker(service, engine)
        places = (server.host, server.port, terms.idle_s, terms.drain_s, terms.tls)
        deployment = Deployment(make, settings, share, number, ongoing, *places)
        serve_on_ray(deployment, lambda: progress.note(f"listening on {where}"))


def warn_if_open(host: str, settings: ServerSettings, progress: Progress) -> None:
    """Prints a warning if other machines can reach the server and no key is set."""
    from ferrum.server.sockets import is_loopback

    if not settings.api_keys and not is_loopback(host):
        progress.note("warning: every machine that reaches this address can use the server: --api-key-file sets a key")


def check_installed() -> None:
    """Raises ConfigError if a package of the extra is missing."""
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"serving needs {', '.join(missing)}: pip install 'ferrum-ref[server]'")
