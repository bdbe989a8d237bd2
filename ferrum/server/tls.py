"""The two files that make HTTP secret.

Owns: finding out that they cannot be used before anything else is begun, and in words. Refuses to know: certificates.
Specs: SERVER-57. Next: `ferrum.server.connection`.
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
            # a key behind a password must not make OpenSSL ask for it on a terminal that nobody watches
            context.load_cert_chain(self.certificate, self.key, password=self._no_password)
        except (ssl.SSLError, OSError) as error:
            told = f"{self.certificate} and {self.key} are no certificate and its key: {error}"
            raise ConfigError(told) from None

    def _no_password(self) -> str:
        raise ConfigError(f"{self.key} is behind a password, which is not supported: write it without one")
