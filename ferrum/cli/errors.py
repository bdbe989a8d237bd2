"""Errors of a command: one line on stderr and an exit code.

Owns: the translation of every exception into a line and a code (2 bad usage, 1 everything else, 130 Ctrl-C), and the
silence of a closed pipe. A traceback appears only with --debug. Refuses to know: what the commands do.
Specs: CLI-10 to CLI-16. Next: `ferrum.cli.terminal`.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import click

from ferrum.cli.terminal import printable, settle_encoding, warnings_told
from ferrum.errors import FerrumError, InvalidParameter

DEBUG = "ferrum.cli.debug"
"""Key of the context's `meta` that --debug sets."""

OK, FAILED, USAGE = 0, 1, 2
INTERRUPTED = 128 + signal.SIGINT


class Program(click.Group):
    """The command group: it turns each failure of a command into one line and an exit code."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run and exit. Takes what `click.Command.main` takes; `standalone_mode` is always ours."""
        settle_encoding()
        try:
            with warnings_told():
                code = super().main(*args, **{**extra, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            code = USAGE
        except click.ClickException as error:
            complain(usage_message(error))
            code = error.code if isinstance(error, Failure) else error.exit_code
        except click.exceptions.Abort:
            code = INTERRUPTED  # click has ended the line that the terminal's ^C stands on
        settle_stdout()
        sys.exit(code or OK)

    def invoke(self, ctx: click.Context) -> None:
        """Run the command; what it raises becomes a `Failure`, which carries the line to show and the code."""
        try:
            super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except BrokenPipeError:
            raise click.exceptions.Exit(OK) from None  # a reader that closes the pipe (`… | head`) is no failure
        except Exception as error:
            if ctx.meta.get(DEBUG):
                traceback.print_exc()
            raise Failure(error, self._flags(ctx)) from error

    def _flags(self, ctx: click.Context) -> dict[str, str]:
        """The running command's flags by parameter name: {"top_p": "--top-p"}."""
        command = self.get_command(ctx, ctx.invoked_subcommand) if ctx.invoked_subcommand else self
        options = [p for p in command.params if isinstance(p, click.Option)] if command else []
        return {option.name: max(option.opts, key=len) for option in options if option.name}


class Failure(click.ClickException):
    """An exception of a command as the user sees it; `flags` are those of the command, by parameter name."""

    def __init__(self, error: Exception, flags: dict[str, str]) -> None:
        super().__init__(describe(error, flags))
        self.code = USAGE if isinstance(error, InvalidParameter) else FAILED


def describe(error: Exception, flags: dict[str, str]) -> str:
    """What is wrong, in the words of the exception."""
    if isinstance(error, InvalidParameter) and error.field in flags:
        return f"{flags[error.field]}: {error}"
    if isinstance(error, FerrumError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        sentence = f"out of memory: {error}" if str(error) else "out of memory"
        return f"{sentence}; a smaller --max-model-len, --kv-memory or model may fit"
    return f"internal error: {type(error).__name__}: {error}; run with --debug for the traceback"


def usage_message(error: click.ClickException) -> str:
    """The message, and for wrong usage a hint to --help."""
    message = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message.rstrip('.')} (see {error.ctx.command_path} --help)"
    return message


def complain(message: str) -> None:
    """Prints a message of any form on one line of stderr."""
    click.echo(f"error: {printable(' '.join(message.split()))}", err=True)


def settle_stdout() -> None:
    """Redirects stdout to the null device after it has failed (closed pipe, full disk): otherwise the interpreter would
    write again at its end, print an error of its own and change the exit code."""
    try:
        if sys.stdout is not None:  # None if the caller closed it
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
