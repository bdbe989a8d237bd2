"""The pytest option `--backend`.

Owns: one command-line option. It is a module of its own, free of heavy imports, because `pytest --pyargs` reads the
command line before it finds this package's conftest: the distribution registers it as a pytest plugin.
Refuses to know: backends, Hypothesis. Next: `ferrum.conformance.conftest`.
"""

from __future__ import annotations

import pytest

NAME = "ferrum.conformance.plugin"
"""The name under which the distribution must register this module in the entry-point group `pytest11`."""

HELP = "backend to test: a name or package.module:Class, with @float64 for another float type (repeatable)"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("ferrum").addoption("--backend", action="append", default=[], metavar="NAME", help=HELP)
