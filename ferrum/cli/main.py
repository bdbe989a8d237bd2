"""The program `ferrum-ref`: its commands, and the one place where they are put together.

Owns: the command group. Nothing heavy is imported before a command runs, so that help and errors are immediate.
Refuses to know: what the commands do. Specs: CLI. Next: `ferrum.cli.errors`.
"""

from __future__ import annotations

from typing import NoReturn

import click

from ferrum import __version__
from ferrum.cli.bench import bench
from ferrum.cli.errors import Program
from ferrum.cli.generate import generate
from ferrum.cli.models import inspect, models, pull

NAME = "ferrum-ref"


@click.group(cls=Program, name=NAME, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=NAME)
def program() -> None:
    """A reference inference engine for language models."""


for command in (generate, pull, models, inspect, bench):
    program.add_command(command)


def main() -> NoReturn:
    """The console script."""
    program.main(prog_name=NAME)
