"""What runs in the place of a program that a page names: `python stand_in.py PROGRAM ARGUMENT…`.

`ferrum-ref` runs as it is, with short answers and a free port; a server goes on in the background. Programs that
install, test or take hours only have their arguments checked. The exit code is that of a wrong command where they name
something that does not exist.
"""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import click

from tests.house.source import ROOT
from tests.processes import end_with_process

PORT, PORT_OF_PAGES = os.environ.get("DOCS_PORT", "8000"), "8000"
ONLY_PARSED = {"conformance": "its tests take minutes", "--ray": "needs a cluster", "torch": "needs PyTorch"}
PATIENCE_S = 120.0


def ferrum(*arguments: str) -> int:
    """The program itself: first its arguments are parsed, then it runs."""
    from ferrum.cli.main import main as main_of_ferrum
    from ferrum.cli.main import program

    with patch.object(click.Command, "invoke", lambda *_: None), CatchExit() as parsed:
        program.main(list(arguments), "ferrum-ref")
    if parsed.code or ONLY_PARSED.keys() & set(arguments):
        return parsed.code
    name, *rest = arguments
    if name == "serve":
        return serve(*rest)
    if name == "bench" and rest[:1] == ["serve"]:
        rest += [] if "--requests" in rest else ["--requests", "4", "-n", "4"]
    elif name == "bench":
        rest += ["--repeats", "1"]
    elif name in ("generate", "trace") and not {"-n", "--json-schema"} & set(rest):
        rest += ["-n", "8"]
    sys.argv = ["ferrum-ref", name, *rest]
    with CatchExit() as ran:
        main_of_ferrum()
    return ran.code


class CatchExit:
    """Keeps the exit code of what ends the process by SystemExit."""

    code = 0

    def __enter__(self) -> CatchExit:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, SystemExit):
            self.code = error.code if isinstance(error.code, int) else int(error.code is not None)
        return isinstance(error, SystemExit)


def command(*arguments: str) -> list[str]:
    """`ferrum-ref` as a command line of its own."""
    return [sys.executable, "-P", "-m", "ferrum", *arguments]


def serve(*arguments: str) -> int:
    """A server in the background, one for each page; its process's id is left in the file `server`."""
    log = Path("server.log")
    if not Path("server").exists():
        with log.open("w") as output:
            given = () if "--port" in arguments else ("--port", PORT)
            server = subprocess.Popen(
                command("serve", *arguments, *given), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        if "DOCS_TESTS" in os.environ:  # the process that runs the page; this one ends before its server
            end_with_process(server.pid, int(os.environ["DOCS_TESTS"]))
        Path("server").write_text(str(server.pid))
        deadline = time.monotonic() + PATIENCE_S
        while "listening on " not in log.read_text() and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    said = re.findall(r"^listening on .*", log.read_text(), re.MULTILINE)
    click.echo("\n".join(said) or log.read_text())
    return 0 if said else 1


def pip(*arguments: str) -> int:
    """Checks that the named extras exist. Nothing is installed."""
    wrong = [each for each in arguments if (found := re.search(r"\[(.*)\]", each)) and not _extras(each, found[1])]
    return complain(arguments[:1] == ("install",) and not wrong, f"no such extra: {wrong}")


def _extras(requirement: str, names: str) -> bool:
    folder = requirement.split("[")[0]
    if folder in (".", "ferrum-ref"):
        setup = configparser.RawConfigParser()
        setup.read(ROOT / "setup.cfg", encoding="utf-8")
        declared = set(setup["options.extras_require"])
    else:
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        declared = set(project["optional-dependencies"])
    return set(names.split(",")) <= declared


def pytest(*arguments: str) -> int:
    """Checks that the files and marks exist. No test is run."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    marks = {mark.split(":")[0].split("(")[0] for mark in options["markers"]}
    named = {after for before, after in pairwise(arguments) if before == "-m"}
    paths = [each.split("::")[0] for each in arguments if "/" in each and not each.startswith("-")]
    lacking = [path for path in paths if not (ROOT / path).exists()]
    return complain(named <= marks and not lacking, f"no such marks {named - marks} or files {lacking}")


def python(*arguments: str) -> int:
    """Checks that the module or the file exists, and that its source has the options. It is not run."""
    match arguments:
        case ("-m", "venv", folder):
            (Path(folder) / "bin").mkdir(parents=True)
            return (Path(folder) / "bin" / "activate").write_text("")
        case ("-c", text):
            ast.parse(text)
            return 0
        case ("-m", module, *options):
            path = ROOT.joinpath(*module.split("."))
            path = path if path.is_dir() else path.with_suffix(".py")
        case (file, *options):
            path = ROOT / file.removeprefix("/path/to/ferrum/")
        case _:
            return complain(False, "python without arguments")
    if not path.exists():
        return complain(False, f"no such program: {path}")
    folder = path if path.is_dir() else path.parent
    source = "".join(each.read_text(encoding="utf-8") for each in folder.glob("*.py"))
    unknown = [option for option in options if option.startswith("--") and f'"{option}"' not in source]
    return complain(not unknown, f"{path} has no option {unknown}")


def sh(*arguments: str) -> int:
    """Checks that the script exists. It is not run."""
    return complain((ROOT / arguments[0]).is_file(), f"no such script: {arguments[0]}")


def git(*arguments: str) -> int:
    click.echo("diff --git a/rust.txt b/rust.txt\n-iron\n+rust")
    return complain(arguments == ("diff",), "git is for `git diff` only")


def nothing(*arguments: str) -> int:
    return 0


def complain(right: bool, what: str) -> int:
    if not right:
        click.echo(what, err=True)
    return 0 if right else 2


PROGRAMS: dict[str, Callable[..., int]] = {
    "ferrum-ref": ferrum, "pip": pip, "pytest": pytest, "python": python, "python3": python, "git": git, "sh": sh,
    "ruff": nothing, "mypy": nothing, "run": nothing, "nightly": nothing,
}  # fmt: skip


def main(name: str, *arguments: str) -> int:
    def local(words: Sequence[str]) -> list[str]:
        return [word.replace(f":{PORT_OF_PAGES}", f":{PORT}") for word in words]

    return PROGRAMS[name](*local(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
