"""Where files live on the user's machine.

Owns: the one directory for all files that are fetched or compiled. Refuses to know: what is in it.
Specs: LOAD. Next: `ferrum.fields`.
"""

from __future__ import annotations

import os
from pathlib import Path

from ferrum.errors import ConfigError


def cache_folder() -> Path:
    """$FERRUM_CACHE, else `ferrum` in $XDG_CACHE_HOME or ~/.cache. It need not exist. Raises ConfigError if
    the home directory cannot be found."""
    own, base = os.environ.get("FERRUM_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        if own:
            return Path(own).expanduser()
        return (Path(base).expanduser() if base else Path.home() / ".cache") / "ferrum"
    except RuntimeError as error:  # ~name of an unknown user, or no home directory
        raise ConfigError(f"there is no cache folder: {error} Set FERRUM_CACHE to one.") from error


def find_cache_folder() -> Path | None:
    """As `cache_folder`, but None instead of an error."""
    try:
        return cache_folder()
    except ConfigError:
        return None
