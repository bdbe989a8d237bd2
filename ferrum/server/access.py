"""Access: requests need a key, and pages of other origins in a browser are refused.

Owns: the check of keys, of the Host header, and of the Origin header. Refuses to know: the content of requests. Specs:
SERVER-30 to SERVER-34, GLASS-10. Source: RFC 6750; RFC 9110, "Host"; Fetch standard, "Origin header".
Next: `ferrum.server.page`.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ferrum.api.errors import ApiError
from ferrum.server.answers import refused
from ferrum.server.settings import ANY

OPEN = ("/", "/glass", "/health", "/version")
"""What can be asked without a key: it tells nothing of models, and costs nothing."""
_SAFE = ("GET", "HEAD", "OPTIONS")


class Keys:
    """Middleware: answers 401 where none of the keys is given as `Authorization: Bearer …`."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN and not self._fits(Headers(scope=scope)):
            error = ApiError(
                401, "a key is needed: send it as Authorization: Bearer KEY", "authentication_error",
                code="invalid_api_key",
            )  # fmt: skip
            await refused(error, {"www-authenticate": "Bearer"})(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _fits(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        key = given.strip().encode("latin-1")
        # every key is compared completely, so that the time reveals nothing about them
        fits = [hmac.compare_digest(key, each) for each in self._keys]
        return any(fits) and scheme.lower() == "bearer"


class Callers:
    """Middleware: answers 403 to two tricks by which a page on the web could use a server that needs no key. It can
    let its own name point to this machine: then Host is not one of `hosts`. And it can send a form here without being
    allowed to read the answer: then Origin is neither this server nor one of `origins`."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._error(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
        else:
            await refused(error)(scope, receive, send)

    def _error(self, method: str, headers: Headers) -> ApiError | None:
        host, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
        if ANY not in self._hosts and name_of(host) not in self._hosts:
            return _forbidden("this server is not called by that name (--allowed-host allows more)")
        foreign = origin and ANY not in self._origins and origin not in self._origins and _place(origin) != host
        if foreign and method not in _SAFE:
            return _forbidden("pages of that origin may not ask here (--cors-origin allows them)")
        return None


def name_of(host: str) -> str:
    """The name in a Host header, without the port and the brackets of IPv6."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_outside_dns(host: str) -> bool:
    """True if the name in a Host header is an address or localhost. Every other name is looked up in the DNS, where its
    owner can let it point to this machine."""
    name = name_of(host)
    try:
        return name == "localhost" or ipaddress.ip_address(name) is not None
    except ValueError:
        return False


def _place(origin: str) -> str:
    """An origin's name and port, as Host has them."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _forbidden(message: str) -> ApiError:
    return ApiError(403, message, "permission_error", code="forbidden")
