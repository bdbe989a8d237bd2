"""Where files live on the user's machine.

Owns: the one directory for everything that is fetched or compiled. Refuses to know: what is in it.
Specs: LOAD. Next: `ferrum.config`.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$FERRUM_CACHE, else `ferrum` in $XDG_CACHE_HOME or ~/.cache. It need not exist."""
    own = os.environ.get("FERRUM_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "ferrum"
