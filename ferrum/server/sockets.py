"""Addresses to listen on, and as many connections as the system allows.

Owns: from a host and a port to bound sockets, which are taken before a model is loaded, so that a port in use is known
at once. Refuses to know: HTTP. Specs: SERVER-55, SERVER-56. Next: `ferrum.server.run`.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import suppress

from ferrum.errors import ConfigError, InvalidParameter, quoted

SPARE_FILES = 100
"""Descriptors that are kept for everything that is no connection."""
MOST_CONNECTIONS = 1 << 20
ALWAYS_ALLOWED = 10_240
"""Open files that macOS allows where it names no limit; it refuses "no limit" itself (OPEN_MAX in its setrlimit(2))."""
_TAKEN = (errno.EADDRINUSE, errno.EACCES)


def bind(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of the host, none of which listens yet. Port 0 is any free one, the same for all.
    Raises InvalidParameter for a host that has no address, ConfigError where it cannot be had."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidParameter("host", f"{quoted(host)} has no address: {error}") from None
    bound: list[socket.socket] = []
    failure: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(addresses):
        place = (address[0], bound[0].getsockname()[1] if bound else port, *address[2:])
        try:
            bound.append(_bound(family, place))
        except OSError as error:
            failure = error
    if not bound or (failure is not None and failure.errno in _TAKEN):
        for each in bound:
            each.close()
        raise ConfigError(f"cannot listen on {url(host, port)}: {failure.strerror if failure else 'no address'}")
    return bound


def _bound(family: int, place: tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(place)
    except OSError:
        made.close()
        raise
    return made


def url(host: str, port: int, scheme: str = "http") -> str:
    """Where a browser finds the server."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """True for an address that only programs on this machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def allow_many_files() -> int:
    """Raises this process's limit of open files as far as it may -> how many connections there can be."""
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (hard, max(soft, ALWAYS_ALLOWED)):
        with suppress(ValueError, OSError):  # some systems allow less than they report
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            break
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else max(soft - SPARE_FILES, SPARE_FILES)
