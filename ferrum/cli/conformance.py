"""`ferrum-ref conformance`: does a backend keep the promises of the protocol?

Owns: the command, and what becomes of pytest's exit codes. Refuses to know: the properties, and what they find.
Specs: CONFORM-07 to CONFORM-09. Next: `ferrum.cli.generate`.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from ferrum.cli.errors import FAILED, INTERRUPTED, OK, USAGE
from ferrum.cli.options import debug_option
from ferrum.conformance.levels import LEVELS
from ferrum.conformance.report import FORMATS
from ferrum.errors import ConfigError, FerrumError


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--level", type=click.Choice(list(LEVELS)), default="full", show_default=True,
              help="How thoroughly to look: after every change, before a release, at night.")  # fmt: skip
@click.option("--xfails-file", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="Properties that are known to fail: one a line, * for anything, # before the reason.")  # fmt: skip
@click.option("--report", type=click.Choice(FORMATS),
              help="Write what was tried and found to standard output, or to the file of -o.")  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Where the report goes."
)
@click.option("-k", "--only", metavar="WORDS", help="Only the properties whose names match, as in pytest -k.")
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
    """Hold each backend NAME against the definitions of all operations.

    NAME is numpy, numba, cupy, one that an installed package registers, or package.module:Class, which may also lie in
    the current folder; @float64 behind it chooses another type of activations.
    """
    if output is not None and report is None:
        raise click.UsageError("-o says where a report goes; --report says which")
    check_installed()
    make_once(names)
    chosen = [part for name in names for part in ("--backend", name)]
    chosen += ["--level", level]
    for flag, value in (("--xfails-file", xfails_file), ("-k", only), ("--report", report)):
        chosen += [] if value is None else [flag, str(value)]
    chosen += ["-x"] if exitfirst else []
    with TemporaryDirectory() as folder:
        file = output or Path(folder, "report")
        to_stdout = report is not None and output is None
        code = run([*chosen, "--report-file", str(file)], aside=to_stdout)
        if to_stdout and file.exists():
            click.echo(file.read_text("utf-8"), nl=False)
    raise click.exceptions.Exit(code)


def check_installed() -> None:
    """Raises ConfigError where a package of the extra is missing."""
    missing = [name for name in ("pytest", "hypothesis") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"the suite needs {' and '.join(missing)}: pip install 'ferrum-ref[conformance]'")


class NotToBeMade(click.ClickException):
    """The backend that was named cannot be tried: bad usage, not a property that failed."""

    exit_code = USAGE


def make_once(names: tuple[str, ...]) -> None:
    """Make every backend now, and let the suite have it: one that cannot be made is one line."""
    from ferrum.conformance.named import made

    for name in names:
        try:
            made(name)
        except FerrumError as error:
            raise NotToBeMade(str(error)) from error


def run(options: list[str], *, aside: bool) -> int:
    """Run the suite in this process, whatever settings of pytest the current folder has; returns the exit code. aside:
    say how it goes on standard error."""
    import pytest

    fixed = ["--pyargs", "ferrum.conformance", "-p", "ferrum.conformance.plugin", "-p", "no:cacheprovider", "-q",
             "-c", os.devnull, "--rootdir", os.getcwd(), "--tb=short", "--continue-on-collection-errors",
             "-W", "ignore::pytest.PytestAssertRewriteWarning"]  # fmt: skip
    with redirect_stdout(sys.stderr) if aside else nullcontext():
        code = pytest.main([*fixed, *options])
    known = {pytest.ExitCode.OK: OK, pytest.ExitCode.INTERRUPTED: INTERRUPTED, pytest.ExitCode.USAGE_ERROR: USAGE,
             pytest.ExitCode.NO_TESTS_COLLECTED: USAGE}  # fmt: skip
    return known.get(pytest.ExitCode(code), FAILED)
