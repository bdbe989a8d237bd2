"""mutmut, run in a copy of the tree: it makes the mutants of one room and runs the tests that pass through each.

Owns: its settings, its command line, what its answers mean. A test that fails or takes too long kills a mutant.
Refuses to know: which survivors are good ones. Specs: PROOF-30. Next: `meta_tests.mutants.review`.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meta_tests.mutants.rooms import Room
from meta_tests.planted import FOLDER

KILLED = {"killed", "segfault"}
LATE = "timeout"
NO_NAME = "no-mutant-has-this-name*"
_CHANGED = re.compile(r"^([-+])(?!--|\+\+)(.*)$", re.MULTILINE)
_CLASS = "ǁ"
_SETTINGS = """
[tool.mutmut]
source_paths = [{package}]
only_mutate = [{source}]
do_not_mutate = [{left_out}]
also_copy = ["tests", "specs", "docs", "benchmarks", "examples", "meta_tests", "README.md"]
pytest_add_cli_args_test_selection = [{tests}]
pytest_add_cli_args = ["--hypothesis-seed=0", "-p", "no:cacheprovider", {options}]
process_isolation = "forkserver"  # or a mutant begins with what the tests before it have left in caches
timeout_multiplier = 5
track_dependencies = false
use_git_change_detection = false
"""


class CannotRun(Exception):
    """Nothing was judged: mutmut is missing, or the tests fail without a mutant."""


@dataclass(frozen=True)
class Mutant:
    """`place`: the function, as `ferrum.kv.pool.BlockPool.share`. `was`, `becomes`: its changed lines, unindented."""

    place: str
    was: str
    becomes: str


@dataclass(frozen=True)
class Judged:
    """The result of a room. There are `total` mutants, of which `tried` were judged; a sample is drawn by `seed`."""

    room: str
    total: int
    killed: int
    late: int
    survivors: tuple[Mutant, ...]
    seed: int | None = None

    @property
    def tried(self) -> int:
        return self.killed + self.late + len(self.survivors)


class Mutmut:
    """Runs mutmut. `folder` is a copy of the tree that only this object uses."""

    def __init__(self, folder: Path, room: Room, jobs: int) -> None:
        self.folder, self.room, self.jobs = folder, room, jobs
        with (folder / "pyproject.toml").open("a", encoding="utf-8") as file:
            file.write(_settings(room))

    def judge(self, sample: int | None, seed: int) -> Judged:
        """Judges all mutants, or `sample` mutants drawn by `seed`."""
        if sample is None:
            self._run()
            names = sorted(self._states())
        else:
            # a name that does not exist ends the run where all mutants are made and none is judged
            told = self._call("run", NO_NAME).stdout
            every = sorted(self._states())
            if not every:
                raise CannotRun(told[-4000:])
            names = random.Random(seed).sample(every, min(sample, len(every)))
            self._run(*names)
        return self._judged(names, None if sample is None else seed)

    def _judged(self, names: list[str], seed: int | None) -> Judged:
        if not names:
            raise CannotRun("there are no mutants, so nothing was judged")
        states = self._states()
        outcomes = [states[name] for name in names]
        if "not checked" in outcomes:
            raise CannotRun("mutmut has stopped before the end")
        killed, late = sum(state in KILLED for state in outcomes), outcomes.count(LATE)
        alive = sorted(name for name in names if states[name] not in KILLED | {LATE})
        return Judged(self.room.name, len(states), killed, late, tuple(map(self._mutant, alive)), seed)

    def _run(self, *names: str) -> None:
        done = self._call("run", *names)
        if done.returncode:
            raise CannotRun(done.stdout[-4000:])

    def _states(self) -> Mapping[str, str]:
        """The state that mutmut reports for each mutant, by its name."""
        lines = self._call("results", "--all", "true").stdout.splitlines()
        return dict(line.strip().rsplit(": ", 1) for line in lines if "__mutmut_" in line)

    def _mutant(self, name: str) -> Mutant:
        changed = _CHANGED.findall(self._call("show", name).stdout)
        was, becomes = (" ".join(text.strip() for sign, text in changed if sign == side) for side in "-+")
        return Mutant(place_of(name), was, becomes)

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mutmut", *arguments]
        if arguments[0] == "run":
            command[4:4] = ["--max-children", str(self.jobs)]
        return subprocess.run(command, cwd=self.folder, env=_environment(self.folder), text=True, check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip


def _settings(room: Room) -> str:
    def quoted(*words: str) -> str:
        return ", ".join(f'"{word}"' for word in words)

    return _SETTINGS.format(
        package=quoted(room.source.partition("/")[0]),
        source=quoted(f"{room.source}/*"),
        left_out=quoted(*room.left_out),
        tests=quoted(*room.tests),
        options=quoted(*room.options),
    )


def place_of(name: str) -> str:
    """
    >>> place_of("ferrum.kv.pool.xǁBlockPoolǁshare__mutmut_3"), place_of("ferrum.kv.prefix.x_array_digest__mutmut_1")
    ('ferrum.kv.pool.BlockPool.share', 'ferrum.kv.prefix.array_digest')
    """
    module, _, function = name.rpartition("__mutmut_")[0].rpartition(".")
    inner = function[2:] if function.startswith("x_") else function[2:].replace(_CLASS, ".")
    return f"{module}.{inner}"


def _environment(folder: Path) -> dict[str, str]:
    """A forked child lacks the threads of NumPy and Numba, so each has one thread. The user's options of pytest are
    removed, since they would choose other tests."""
    mine = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {"HYPOTHESIS_PROFILE": "dev", **mine, **threads, FOLDER: str(folder)}
