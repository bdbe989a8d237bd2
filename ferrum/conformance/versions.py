"""Versions of everything that a result may depend on.

Owns: the list. Refuses to know: results.
Specs: CONFORM-04. Next: `ferrum.conformance.report`.
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
    """The version of an imported package; None if it has none."""
    number = getattr(sys.modules.get(package), "__version__", None)
    if number is None and (distributions := packages_distributions().get(package)):
        number = version(distributions[0])
    return None if number is None else str(number)
