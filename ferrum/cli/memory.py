"""How much memory this process has used at most.

Owns: the unit, which differs between systems. Refuses to know: what used it. Specs: CLI-04.
Next: `ferrum.cli.generate`.
"""

from __future__ import annotations

import resource
import sys


def peak_rss_bytes() -> int:
    """The largest resident set so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, the others KiB
