"""Flags of a server: addresses, keys, and limits for clients.

Owns: their names, defaults and help, and the objects they become. Keys come from three places: a flag that every user
of the machine can read in the list of processes, a file, and the environment.
Refuses to know: models. Specs: SERVER-31, SERVER-33, SERVER-72. Next: `ferrum.cli.options`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ferrum.config import parse_memory
from ferrum.errors import ConfigError, InvalidParameter

if TYPE_CHECKING:
    from ferrum.server.run import Terms
    from ferrum.server.settings import ServerSettings

KEY_VARIABLE = "FERRUM_API_KEY"
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
MOST_CONNECTIONS = 10_000

_FILE = click.Path(dir_okay=False, path_type=Path)
_SECONDS = click.FloatRange(min=0.001)
_COUNT = click.IntRange(min=1)

SERVER_FLAGS = (
    click.option("--host", default="127.0.0.1", show_default=True,
                 help="Address to listen on. 127.0.0.1: this machine only; 0.0.0.0: all networks."),
    click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, metavar="N",
                 help="Port to listen on; 0 chooses a free port."),
    click.option("--api-key", "api_keys", multiple=True, metavar="KEY",
                 help="A key that each request must send; may be repeated. Other users of this machine can see it "
                 f"in the list of processes: --api-key-file and ${KEY_VARIABLE} hide it."),
    click.option("--api-key-file", type=_FILE, metavar="FILE",
                 help="A file of keys that requests must send, one on each line."),
    click.option("--cors-origin", "cors_origins", multiple=True, metavar="ORIGIN",
                 help="Allow browser pages of this origin, such as https://example.org, to send requests; * allows "
                 "all; may be repeated."),
    click.option("--allowed-host", "allowed_hosts", multiple=True, metavar="NAME",
                 help="For a server without keys: one more host name that requests may use for it; * allows all; "
                 "may be repeated."),
    click.option("--glass/--no-glass", "glass", default=None,
                 help="Show at /glass what the engine does, step by step, with the texts of all users.  [default: "
                 "on where the server listens to this machine only and has at most one key]"),
    click.option("--request-timeout", type=_SECONDS, metavar="S",
                 help="Stop an answer after S seconds.  [default: no limit]"),
    click.option("--client-timeout", type=_SECONDS, default=60.0, show_default=True, metavar="S",
                 help="Close a connection that takes more than S seconds to send its request, or to receive a piece "
                 "of an answer."),
    click.option("--idle-timeout", type=_COUNT, default=75, show_default=True, metavar="S",
                 help="Close a connection after S seconds without a request."),
    click.option("--stream-comments", type=_SECONDS, default=15.0, show_default=True, metavar="S",
                 help="Send a comment on a stream after S seconds without text, so that proxies do not close the "
                 "connection."),
    click.option("--drain-timeout", type=click.FloatRange(min=0), default=30.0, show_default=True, metavar="S",
                 help="When the server stops, wait at most S seconds for running answers."),
    click.option("--max-body-size", default="32MiB", show_default=True, metavar="SIZE",
                 help="Largest body of a request."),
    click.option("--max-header-size", default="64KiB", show_default=True, metavar="SIZE",
                 help="Largest head of a request: its first line and its headers."),
    click.option("--max-connections", type=_COUNT, metavar="N",
                 help="Most open connections. Beyond this number, the one that has been idle for the longest time "
                 f"is closed.  [default: as many as the system allows, up to {MOST_CONNECTIONS}]"),
    click.option("--ssl-certfile", type=_FILE, metavar="FILE",
                 help="Certificate with its chain (PEM), to serve https."),
    click.option("--ssl-keyfile", type=_FILE, metavar="FILE",
                 help="Private key of the certificate (PEM), without a password."),
)  # fmt: skip


@dataclass(frozen=True)
class ServerFlags:
    """The values of the flags; None for a flag that was not given."""

    host: str
    port: int
    api_keys: tuple[str, ...]
    api_key_file: Path | None
    cors_origins: tuple[str, ...]
    allowed_hosts: tuple[str, ...]
    glass: bool | None
    request_timeout: float | None
    client_timeout: float
    idle_timeout: int
    stream_comments: float
    drain_timeout: float
    max_body_size: str
    max_header_size: str
    max_connections: int | None
    ssl_certfile: Path | None
    ssl_keyfile: Path | None

    def settings(self) -> ServerSettings:
        """The settings of the application. Raises InvalidParameter, ConfigError, OSError."""
        from ferrum.server.settings import ServerSettings

        keys = (*self.api_keys, *keys_of(self.api_key_file), *key_of_environment())
        return ServerSettings(
            api_keys=keys,
            cors_origins=self.cors_origins,
            allowed_hosts=self._hosts(bool(keys)),
            glass=self._glass(keys),
            max_body_bytes=parse_memory("max_body_size", self.max_body_size),
            request_timeout_s=self.request_timeout,
            keep_alive_s=self.stream_comments,
        )

    def terms(self) -> Terms:
        """The settings of the connections. Raises the same."""
        from ferrum.server.connection import Bounds
        from ferrum.server.run import Terms
        from ferrum.server.sockets import allow_many_files
        from ferrum.server.tls import TlsFiles

        tls = None
        if self.ssl_certfile is not None and self.ssl_keyfile is not None:
            tls = TlsFiles(self.ssl_certfile, self.ssl_keyfile)
            tls.check()
        elif self.ssl_certfile is not None or self.ssl_keyfile is not None:
            raise InvalidParameter(
                "ssl_keyfile" if self.ssl_certfile is None else "ssl_certfile", "is one of two files: give both"
            )
        possible = allow_many_files()
        connections = self.max_connections or min(possible, MOST_CONNECTIONS)
        return Terms(
            bounds=Bounds(self.client_timeout, connections),
            largest_head=parse_memory("max_header_size", self.max_header_size),
            idle_s=self.idle_timeout,
            drain_s=self.drain_timeout,
            tls=tls,
        )

    def _glass(self, keys: Sequence[str]) -> bool:
        """The flag, or its default: on a server with several users, each would see the prompts of the others."""
        from ferrum.server.sockets import is_loopback

        return (is_loopback(self.host) and len(keys) <= 1) if self.glass is None else self.glass

    def _hosts(self, with_keys: bool) -> tuple[str, ...]:
        """The host names that requests may use. A key keeps other pages out; a server without a key, on this machine
        only, accepts the names of this machine."""
        from ferrum.server.settings import ANY
        from ferrum.server.sockets import is_loopback

        if self.allowed_hosts and with_keys:
            raise InvalidParameter("allowed_hosts", "counts only where there is no key, and one is given")
        if self.allowed_hosts or (is_loopback(self.host) and not with_keys):
            return (*LOCAL_NAMES, self.host, *self.allowed_hosts)
        return (ANY,)


def keys_of(file: Path | None) -> tuple[str, ...]:
    """The keys of a file. Raises ConfigError for a file without one: a server without keys is open."""
    if file is None:
        return ()
    keys = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    if not keys:
        raise ConfigError(f"there is no key in {file}")
    return keys


def key_of_environment() -> tuple[str, ...]:
    """The key of $FERRUM_API_KEY. Raises ConfigError if it is empty, for the same reason."""
    key = os.environ.get(KEY_VARIABLE)
    if key is not None and not key.strip():
        raise ConfigError(f"{KEY_VARIABLE} is empty: unset it for a server that needs no key")
    return () if key is None else (key.strip(),)
