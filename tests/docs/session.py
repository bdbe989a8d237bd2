"""A folder in which the blocks of one page are run, one after the other."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.cli.terminal import Terminal
from tests.docs.blocks import Block, read_diff, stands_in
from tests.docs.stand_in import PORT_OF_PAGES, PROGRAMS
from tests.house.source import ROOT

LIMIT_S = 300
REQUESTS = "\n".join(
    json.dumps({"custom_id": f"{number}", "method": "POST", "url": "/v1/completions",
                "body": {"prompt": "Once", "max_tokens": 4}}) for number in range(2)
)  # fmt: skip
SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Paris"]}}, "required": ["city"],
          "additionalProperties": False}  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
FILES = {
    "prompts.txt": "Once upon a time\nThe sea is\n",
    "requests.jsonl": REQUESTS + "\n",
    "schema.json": json.dumps(SCHEMA),
    "tools.json": json.dumps(TOOLS),
    "mine.py": "from ferrum.backends.numpy_backend import NumbaOps\n\n\nclass MyOps(NumbaOps):\n    name = 'mine'\n",
}
"""What the commands of pages read. `mine.py` is the finished backend of the page that begins with an empty one."""


class Session:
    """Runs blocks of a page in order. Python blocks share one namespace, all blocks share a folder that looks like the
    project's root, and a server that one block starts answers the next."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.namespace: dict[str, object] = {"__name__": "page"}
        self.port = _free_port()
        for path in ROOT.iterdir():
            if path.name not in {".ci", ".git", ".venv"}:
                (folder / path.name).symlink_to(path)
        (folder / "model.gguf").symlink_to(model)
        for name, text in FILES.items():
            (folder / name).write_text(text)
        (folder / "bin").mkdir()
        (folder / ".ci").mkdir()
        for name in PROGRAMS:
            place = folder / (".ci" if (ROOT / ".ci" / name).exists() else "bin") / name
            stand_in = [sys.executable, "-P", "-m", "tests.docs.stand_in", name]
            place.write_text(f'#!/bin/sh\nexec {shlex.join(stand_in)} "$@"\n')
            place.chmod(0o755)
        self.environment = {
            **os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "DOCS_PORT": str(self.port),
            "DOCS_TESTS": str(os.getpid()), "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1",
        }  # fmt: skip

    def close(self) -> None:
        """Ends the server, if a block started one."""
        self.namespace.clear()
        server = self.folder / "server"
        if server.exists():
            with suppress(ProcessLookupError):
                os.killpg(int(server.read_text()), signal.SIGKILL)

    def run(self, block: Block) -> None:
        """Raises an AssertionError, or what the block raises, where the block is wrong."""
        if block.file:
            (self.folder / block.file).write_text(block.text)
            return
        assert block.language in RUNNERS, f"{block}: no test can run {block.language or 'text'!r}; mark it"
        RUNNERS[block.language](self, block)

    def shell(self, text: str) -> str:
        """Runs commands in bash, with nothing on standard input -> what they print, on stdout and stderr together."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.local(text)], cwd=self.folder, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S,
        )  # fmt: skip
        assert done.returncode == 0, f"exit code {done.returncode} of\n{text}\n{done.stdout[-2000:]}"
        return done.stdout

    def local(self, text: str) -> str:
        """The text with this page's own port in the place of the usual one, and servers ended with the page."""
        return re.sub(r"(ferrum-ref serve.*?) &( |$)", r"\1\2", text, flags=re.MULTILINE).replace(
            f":{PORT_OF_PAGES}", f":{self.port}"
        )

    def converse(self, command: str, shown: list[str]) -> None:
        """A program that is typed to: lines that begin with `>>> ` are typed, the others must come."""
        program = [sys.executable, "-P", "-m", "ferrum", *shlex.split(command)[1:]]
        with Terminal(program, self.environment) as terminal:
            for line in filter(None, shown):
                if line.startswith(">>> "):
                    terminal.expect(">>> ")
                    terminal.type(line[4:] + "\n")
                else:
                    terminal.expect(line)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _python(session: Session, block: Block) -> None:
    os.chdir(session.folder)
    code = compile("\n" * block.line + session.local(block.text), str(ROOT / block.page), "exec")
    exec(code, session.namespace)


def _console(session: Session, block: Block) -> None:
    """Commands after `$ `, each with what it prints below it; a line `…` stands for anything."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, shown = _command(part)
        if any(line.startswith(">>> ") for line in shown):
            session.converse(command, shown)
            continue
        expected = ".*".join(map(re.escape, session.local("\n".join(shown)).strip().split("…")))
        printed = session.shell(command).strip()
        assert re.fullmatch(expected, printed, re.DOTALL), f"{block}: {command} prints\n{printed}"


def _command(part: str) -> tuple[str, list[str]]:
    """A command, which goes on over the line while a quotation is open or after a backslash, and the lines after it."""
    lines = part.splitlines()
    for count in range(1, len(lines) + 1):
        command = "\n".join(lines[:count])
        try:
            shlex.split(command)
        except ValueError:  # no closing quotation
            continue
        if not command.endswith("\\"):
            return command, lines[count:]
    raise AssertionError(f"a command without an end: {part}")


def _shell(session: Session, block: Block) -> None:
    session.shell(block.text)


def _json(session: Session, block: Block) -> None:
    try:
        json.loads(block.text)
    except json.JSONDecodeError:
        for line in block.text.splitlines():  # an object a line
            json.loads(line)


def _toml(session: Session, block: Block) -> None:
    tomllib.loads(block.text)


def _diff(session: Session, block: Block) -> None:
    """The files of a diff are there, and what it adds to them has not gone since."""
    for file in read_diff(block.text):
        source = ROOT / file.path
        assert source.is_file(), f"{block}: {file.path} does not exist"
        lines = {line.strip() for line in source.read_text(encoding="utf-8").splitlines()}
        gone = [line for line in file.added if line != "..." and line not in lines]
        assert gone == [], f"{block}: these lines no longer stand in {file.path}"


RUNNERS: dict[str, Callable[[Session, Block], None]] = {
    "python": _python, "sh": _shell, "console": _console, "json": _json, "toml": _toml, "diff": _diff,
}  # fmt: skip


def quoted(block: Block) -> bool:
    """True if the block stands in the file that it is quoted from."""
    source = ROOT / block.source
    return source.is_file() and stands_in(block.text, source.read_text(encoding="utf-8"))
