"""Versions of whatever a result may depend on.

Owns: which they are. Refuses to know: what was found. Specs: CONFORM-04. Next: `ferrum.conformance.report`.
"""

from __future__ import annotations

import platform
import sys
from importlib.metadata import packages_distributions, version

import numpy as np

from ferrum import __version__


def versions() -> dict[str, str]:
    return {
        "ferrum": __version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "platform": platform.platform(),
    }


def version_of(package: str) -> str | None:
    """Of an imported package; None where nobody has given it one."""
    told = getattr(sys.modules.get(package), "__version__", None)
    if told is None and (found := packages_distributions().get(package)):
        told = version(found[0])
    return None if told is None else str(told)
