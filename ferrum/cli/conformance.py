"""`ferrum-ref conformance`: tests whether a backend keeps the promises of the protocol.

Owns: the command, and the meaning of pytest's exit codes. Refuses to know: the properties and their results.
Specs: CONFORM-07 to CONFORM-12. Next: `ferrum.cli.serve`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from ferrum.cli.errors import FAILED, INTERRUPTED, OK, USAGE
from ferrum.cli.options import debug_option
from ferrum.conformance.levels import LEVELS
from ferrum.conformance.report import FORMATS
from ferrum.errors import FerrumError


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--level", type=click.Choice(list(LEVELS)), default="full", show_default=True,
              help="How many cases to try. smoke: after each change; full: before a release; stress: at "
              "night.")  # fmt: skip
@click.option("--xfails-file", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="File of properties that are expected to fail: one on each line, with * as wildcard "
              "and a reason after #.")  # fmt: skip
@click.option("--report", type=click.Choice(FORMATS),
              help="Write a report of the results in this format.")  # fmt: skip
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File of the report.  [default: standard output]",
)
@click.option("-k", "--only", metavar="WORDS", help="Test only properties whose names match, as in pytest -k.")
@click.option("-x", "--exitfirst", is_flag=True, help="Stop at the first property that fails.")
@debug_option
def conformance(
    names: tuple[str, ...],
    level: str,
    xfails_file: str | None,
    report: str | None,
    output: Path | None,
    only: str | None,
    exitfirst: bool,
) -> None:
    """Test each backend NAME: compare its operations with their definitions.

    NAME is numpy, numba, cupy, one that an installed package registers, or package.module:Class, which may also lie in
    the current folder; @float64 behind it chooses another type of activations.
    """
    if output is not None and report is None:
        raise click.UsageError("-o says where a report goes; --report says which")
    names = tuple(dict.fromkeys(names))
    check(names, output)
    chosen = [part for name in names for part in ("--backend", name)]
    chosen += ["--level", level]
    for flag, value in (("--xfails-file", xfails_file), ("-k", only), ("--report", report)):
        chosen += [] if value is None else [flag, str(value)]
    chosen += ["-x"] if exitfirst else []
    with TemporaryDirectory() as folder:
        file = output or Path(folder, "report")
        to_stdout = report is not None and output is None
        with surroundings(folder):
            code = run([*chosen, "--report-file", str(file)], aside=to_stdout)
        if to_stdout and file.exists():
            click.echo(file.read_text("utf-8"), nl=False)
    if code == NOTHING_RAN:
        raise BadUsage(f"-k {only!r} matches no property")
    raise click.exceptions.Exit(CODES.get(code, FAILED))


class BadUsage(click.ClickException):
    """The command line is wrong; no property has failed."""

    exit_code = USAGE


def check(names: tuple[str, ...], output: Path | None) -> None:
    """Finds errors before the suite runs: the suite must be there, and each backend is created once."""
    from ferrum.conformance.admission import admit, check_installed
    from ferrum.conformance.report import check_writable

    try:
        check_installed()
        if output is not None:
            check_writable(output)
        admit(names)
    except FerrumError as error:
        raise BadUsage(str(error)) from error


@contextmanager
def surroundings(folder: str) -> Iterator[None]:
    """Within the block, environment variables do not change pytest, and Hypothesis stores its examples in this
    folder."""
    before = dict(os.environ)
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        os.environ.pop(name, None)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


NOTHING_RAN = 5
CODES = {0: OK, 2: INTERRUPTED, 4: USAGE}
"""From pytest's exit codes to ours; any other is a failure."""


def run(options: list[str], *, aside: bool) -> int:
    """Runs the suite in this process, without the pytest settings of the current folder. Returns pytest's exit code.
    `aside`: print progress to standard error."""
    import pytest

    fixed = ["--pyargs", "ferrum.conformance", "-p", "ferrum.conformance.plugin", "-p", "ferrum.conformance.conftest",
             "--noconftest", "-c", os.devnull, "--rootdir", os.getcwd(), "-p", "no:cacheprovider", "-q", "--tb=short",
             "--continue-on-collection-errors", "-W", "ignore::pytest.PytestAssertRewriteWarning"]  # fmt: skip
    with redirect_stdout(sys.stderr) if aside else nullcontext():
        return int(pytest.main([*fixed, *options]))
