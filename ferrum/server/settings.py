"""The settings of an HTTP server: keys, origins, sizes and times.

Owns: `ServerSettings`, its defaults and their limits. Refuses to know: the engine.
Specs: SERVER-01. Next: `ferrum.server.request_body`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ferrum.errors import InvalidParameter, quoted
from ferrum.given import one_or_more, real, text, whole

LONGEST_S = 30 * 24 * 3600.0
ANY = "*"


@dataclass(frozen=True)
class ServerSettings:
    """Times in seconds, sizes in bytes. None: there is no limit."""

    api_keys: tuple[str, ...] = ()  # without a key, every request is accepted
    cors_origins: tuple[str, ...] = ()  # origins of pages that may send requests; "*": any
    allowed_hosts: tuple[str, ...] = (ANY,)  # host names that requests may use; "*": any
    max_body_bytes: int = 32 << 20
    request_timeout_s: float | None = None  # for an answer, the time in the queue included
    glass: bool = False  # True: /glass shows the steps of the engine, with the texts of all users
    keep_alive_s: float = 15.0  # seconds of silence in a stream before a comment is sent

    def __post_init__(self) -> None:
        for name in ("api_keys", "cors_origins", "allowed_hosts"):
            object.__setattr__(
                self, name, tuple(_word(name, each) for each in one_or_more(name, getattr(self, name), "texts"))
            )
        origins = tuple(origin.lower().rstrip("/") for origin in self.cors_origins)  # as browsers write them
        object.__setattr__(self, "cors_origins", origins)
        whole("max_body_bytes", self.max_body_bytes, 1)
        real("keep_alive_s", self.keep_alive_s, 0.001, LONGEST_S)
        if self.request_timeout_s is not None:
            real("request_timeout_s", self.request_timeout_s, 0.001, LONGEST_S)


def _word(field: str, value: object) -> str:
    """A text that can stand in a header. An error does not show a key."""
    found = text(value)
    if found is None or not found or not found.isprintable() or " " in found:
        shown = "" if field == "api_keys" else f", not {quoted(value)}"
        raise InvalidParameter(field, f"must hold texts of printable characters without spaces{shown}")
    return found
