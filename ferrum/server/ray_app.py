"""The application on several machines: replicas of the model behind the proxies of Ray Serve.

Owns: one replica, its health, the end of its requests, and cancelling a request wherever it is answered. A replica is
sent as many requests as its engine takes and lets wait: with fewer, Ray would keep back what continuous batching needs.
Refuses to know: paths, and how connections are kept, which is up to Ray.
Specs: SERVER-80 to SERVER-84. Source: Ray's documentation, "Set up FastAPI and HTTP" of Ray Serve.
Next: `ferrum.batch.source`.
"""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ferrum.api.service import Service
from ferrum.errors import ConfigError
from ferrum.server.answers import answered
from ferrum.server.app import make_app
from ferrum.server.questions import Cancelled
from ferrum.server.ray_cluster import Share
from ferrum.server.settings import ServerSettings
from ferrum.server.tls import TlsFiles

NAME = "ferrum"
_CANCEL = re.compile(r"/v1/requests/([^/]+)/cancel")


@dataclass(frozen=True)
class Deployment:
    """What is served, and where. `ongoing`: requests that a replica has at a time; `drain_s`: for running answers to
    finish, at the end of a replica."""

    make: Callable[[], Service]
    settings: ServerSettings
    share: Share
    replicas: int
    ongoing: int
    host: str
    port: int
    idle_s: int
    drain_s: float
    tls: TlsFiles | None = None


class Replica:
    """A model in an actor."""

    def __init__(self, deployment: Deployment) -> None:
        self._settings = deployment.settings
        self._service = deployment.make()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """What Ray asks for the application."""
        return CancelEverywhere(make_app(self._service, self._settings), _cancel_everywhere)

    def check_health(self) -> None:
        """What Ray calls now and then: a replica that raises is replaced."""
        found = self._service.health()
        if not found.ready:
            raise RuntimeError(found.reason)

    def cancel_here(self, request_id: str) -> bool:
        """Ends a request, if this replica answers it."""
        return self._service.cancel(request_id)


class CancelEverywhere:
    """Middleware: a request that this replica does not know may be another one's."""

    def __init__(self, app: ASGIApp, cancel: Callable[[str], Awaitable[bool]]) -> None:
        self._app = app
        self._cancel = cancel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = _CANCEL.fullmatch(scope.get("path", "")) if scope["type"] == "http" else None
        if match is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        messages: list[Message] = []

        async def hold(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, hold)
        if messages[0]["status"] == HTTPStatus.NOT_FOUND and await self._cancel(match[1]):
            await answered(Cancelled(id=match[1], object="request.cancelled"))(scope, receive, send)
            return
        for message in messages:
            await send(message)


async def _cancel_everywhere(request_id: str) -> bool:
    from ray import serve

    handle = serve.get_deployment_handle(Replica.__name__, NAME)
    return any(await handle.broadcast("cancel_here", request_id).results_async())


def serve_on_ray(deployment: Deployment, ready: Callable[[], None]) -> None:
    """Serves until SIGTERM or Ctrl-C, and then until running answers are finished; another signal ends it at once.
    `ready()` is called when requests are taken. Raises ConfigError for what cannot be served."""
    from ray import serve

    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        try:
            _start(deployment)
        except RuntimeError as error:
            raise ConfigError(f"Ray cannot serve this: {str(error).strip().splitlines()[-1]}") from error
        ready()
        ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        serve.delete(NAME)  # returns when the replicas have no requests
        serve.shutdown()


def _start(deployment: Deployment) -> None:
    from ray import serve

    http: dict[str, Any] = {
        "host": deployment.host,
        "port": deployment.port,
        "keep_alive_timeout_s": deployment.idle_s,
    }
    if deployment.tls is not None:
        http.update(ssl_certfile=str(deployment.tls.certificate), ssl_keyfile=str(deployment.tls.key))
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(http_options=http, logging_config={"log_level": "ERROR", "enable_access_log": False})
    made = serve.deployment(
        serve.ingress()(Replica),
        num_replicas=deployment.replicas,
        max_ongoing_requests=deployment.ongoing,
        graceful_shutdown_timeout_s=deployment.drain_s,
        ray_actor_options={"num_cpus": deployment.share.cpus, "num_gpus": deployment.share.gpus},
    )
    serve.run(made.bind(deployment), name=NAME, route_prefix="/")
