"""The options of pytest that the suite adds.

Owns: their names and help. An unusable value ends the run before it begins, with one sentence; some options switch on
the record of the run. This module has no heavy imports, because `pytest --pyargs` reads the command line before it
finds this package's conftest: the distribution registers it as a pytest plugin. Refuses to know: properties,
Hypothesis.
Specs: CONFORM. Next: `ferrum.conformance.levels`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ferrum.conformance.levels import LEVELS
from ferrum.conformance.report import FORMATS, check_writable
from ferrum.errors import FerrumError

NAME = "ferrum.conformance.plugin"
"""The name under which the distribution must register this module in the entry-point group `pytest11`."""

BACKEND = "backend to test: a name or package.module:Class, with @float64 for another float type (repeatable)"
LEVEL = "how thoroughly to look: smoke (seconds), full (before a release), stress (at night); without it the profile"
XFAILS = "properties that are known to fail: one name per line, as in the report; * for anything, # before the reason"
REPORT = "write a report: md, json or html"
REPORT_FILE = "where the report goes; without it, to the end of the output"


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    config = pluginmanager.get_plugin("pytestconfig")
    if config is not None and not is_suite_run(config):
        return
    group = parser.getgroup("ferrum")
    group.addoption("--backend", action="append", default=[], metavar="NAME", help=BACKEND)
    group.addoption("--level", choices=list(LEVELS), help=LEVEL)
    group.addoption("--xfails-file", metavar="FILE", help=XFAILS)
    group.addoption("--report", choices=FORMATS, help=REPORT)
    group.addoption("--report-file", metavar="FILE", help=REPORT_FILE)


def is_suite_run(config: pytest.Config) -> bool:
    """True for a run of the suite. pytest loads this plugin wherever ferrum is installed, and other plugins may have
    options of the same names: two options of one name would end their runs."""
    invocation = config.invocation_params
    return (
        any("ferrum" in str(each) for each in invocation.args) or (invocation.dir / "ferrum" / "conformance").is_dir()
    )


def pytest_configure(config: pytest.Config) -> None:
    """Here and not in the conftest, because a pytest-xdist controller never loads that."""
    if not is_suite_run(config):
        return
    recorded = bool(config.getoption("--level", None) or config.getoption("--report", None))
    asked_for = (
        recorded or config.getoption("--backend", None) or any("ferrum.conformance" in each for each in config.args)
    )
    if asked_for and not hasattr(config, "workerinput"):  # not in a worker of pytest-xdist
        try:
            check(config)
        except FerrumError as error:
            raise pytest.UsageError(str(error)) from None
    if recorded:
        from ferrum.conformance.recorder import start

        start(config)


def check(config: pytest.Config) -> None:
    """Raises FerrumError."""
    from ferrum.conformance.admission import admit, check_installed

    check_installed()
    if file := config.getoption("--report-file"):
        check_writable(Path(file))
    admit(config.getoption("--backend"))
