"""Where files live on the user's machine.

Owns: the one directory for everything that is fetched or compiled. Refuses to know: what is in it.
Specs: LOAD. Next: `ferrum.fields`.
"""

from __future__ import annotations

import os
from pathlib import Path

from ferrum.errors import ConfigError


def cache_folder() -> Path:
    """$FERRUM_CACHE, else `ferrum` in $XDG_CACHE_HOME or ~/.cache. It need not exist. Raises ConfigError for a home
    that nobody has."""
    own, base = os.environ.get("FERRUM_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        if own:
            return Path(own).expanduser()
        return (Path(base).expanduser() if base else Path.home() / ".cache") / "ferrum"
    except RuntimeError as error:  # ~somebody who does not exist
        raise ConfigError(f"there is no cache folder: {error} Set FERRUM_CACHE to one.") from error


def find_cache_folder() -> Path | None:
    """The same for whoever can do without: None where there is none to be had."""
    try:
        return cache_folder()
    except ConfigError:
        return None
