"""The two files of https: certificate and key.

Owns: checking both files before anything else is started, with one clear error. Refuses to know: the content of
certificates. Specs: SERVER-57. Next: `ferrum.server.connection`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from ferrum.errors import ConfigError


@dataclass(frozen=True)
class TlsFiles:
    """A certificate with its chain, and its key, both in PEM."""

    certificate: Path
    key: Path

    def check(self) -> None:
        """Raises ConfigError where the files are not what they must be."""
        for file in (self.certificate, self.key):
            if not file.is_file():
                raise ConfigError(f"there is no file {file}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # OpenSSL must not ask for the password of a key on the terminal
            context.load_cert_chain(self.certificate, self.key, password=self._no_password)
        except (ssl.SSLError, OSError) as error:
            message = f"{self.certificate} and {self.key} are no certificate and its key: {error}"
            raise ConfigError(message) from None

    def _no_password(self) -> str:
        raise ConfigError(f"{self.key} is behind a password, which is not supported: write it without one")
