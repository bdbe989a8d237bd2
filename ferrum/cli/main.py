"""The program `ferrum-ref`: its commands, and the one place where they are put together.

Owns: the command group, and what the process as a whole is set to. A command's module is imported when the command is
asked for, and nothing heavy before it runs, so that help and errors are immediate.
Refuses to know: what the commands do. Specs: CLI, CLI-24, CLI-84. Next: `ferrum.cli.errors`.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import NoReturn

import click

from ferrum import __version__
from ferrum.cli.errors import Program

NAME = "ferrum-ref"
MODULES = {
    "generate": "generate",
    "chat": "chat",
    "pull": "models",
    "models": "models",
    "inspect": "models",
    "tokenize": "tokenize",
    "bench": "bench",
    "serve": "serve",
    "batch": "batch",
    "spec": "spec",
    "conformance": "conformance",
    "trace": "trace",
}
"""Command -> the module of `ferrum.cli` in which it is a function of the same name."""
YOUNG_OBJECTS = 100_000
"""Objects between two garbage collections. A start-up creates about as many, and keeps nearly all: with Python's
default of 700, collections would take a twentieth of its time."""


class Commands(Mapping[str, click.Command]):
    """Commands by name, each imported when it is first asked for."""

    def __getitem__(self, name: str) -> click.Command:
        command: click.Command = getattr(import_module(f"ferrum.cli.{MODULES[name]}"), name)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


@click.group(cls=Program, name=NAME, commands=Commands(), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=NAME)
def program() -> None:
    """A reference inference engine for language models."""


def main() -> NoReturn:
    """The console script."""
    gc.set_threshold(YOUNG_OBJECTS)
    forget_relative_places()
    try:
        program.main(prog_name=NAME)
    finally:
        gc.freeze()  # saves a garbage collection at the end of the process


def forget_relative_places() -> None:
    """Removes empty and relative entries of PYTHONPATH, which stand for the current folder or a folder in it: modules
    must not be imported from there."""
    paths = os.environ.get("PYTHONPATH")
    for place in paths.split(os.pathsep) if paths else ():
        absolute = os.path.abspath(place)
        if not os.path.isabs(place) and absolute in sys.path:
            sys.path.remove(absolute)
