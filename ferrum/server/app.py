"""The application: all paths of the server, and the middleware in front of them.

Owns: putting them together. A request passes, in this order: its id, the count of requests, CORS, the check of host and
origin, keys, and then the path. Refuses to know: sockets, signals. Specs: SERVER-01 to SERVER-09.
Next: `ferrum.server.tls`.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from ferrum import __version__
from ferrum.api.service import Service
from ferrum.server import endpoints, questions
from ferrum.server.access import Callers, Keys
from ferrum.server.answers import refused_by_defect, refused_by_route
from ferrum.server.envelope import ID_HEADER, Envelope
from ferrum.server.glass import Glass
from ferrum.server.metrics import CountedRequests, Published
from ferrum.server.openapi import document
from ferrum.server.settings import ServerSettings


def make_app(service: Service, settings: ServerSettings | None = None) -> FastAPI:
    """An application that answers for the service, for any ASGI server."""
    settings = settings or ServerSettings()
    published, glass = Published(service), Glass(service, settings)
    posted, asked = endpoints.endpoints(service), questions.questions(service, published, glass)
    app = FastAPI(
        title="ferrum",
        version=__version__,
        docs_url=None,  # these pages would load scripts from other servers
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: refused_by_route, Exception: refused_by_defect},
    )
    for endpoint in posted:
        _route(app, endpoint.path, "POST", endpoints.handler(endpoint, settings))
    for question in asked:
        # the name of a model may hold a slash
        path = question.path.replace("{model}", "{model:path}")
        _route(app, path, question.method, questions.handler(question))
    described = document(posted, asked, with_keys=bool(settings.api_keys))
    app.openapi = lambda: described  # type: ignore[method-assign]
    _wrap(app, settings, published)
    return app


def _route(app: FastAPI, path: str, method: str, handle: Any) -> None:
    methods = ["GET", "HEAD"] if method == "GET" else [method]  # some monitors send HEAD
    app.add_api_route(path, handle, methods=methods, response_model=None, include_in_schema=False)


def _wrap(app: FastAPI, settings: ServerSettings, published: Published) -> None:
    """Adds what requests pass, from the inside out."""
    if settings.api_keys:
        app.add_middleware(Keys, keys=settings.api_keys)
    else:
        app.add_middleware(Callers, hosts=settings.allowed_hosts, origins=settings.cors_origins)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=[ID_HEADER],
        )
    app.add_middleware(CountedRequests, requests=published.requests)
    app.add_middleware(Envelope)
