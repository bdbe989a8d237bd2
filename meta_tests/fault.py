"""What a planted fault is, and where all of them stand.

Owns: `Fault`, and the lists in `faults/`, a file for each room. Refuses to know: how tests are run.
Specs: PROOF-01, PROOF-02. Next: `meta_tests.tree`.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LISTS = ROOT / "meta_tests" / "faults"


@dataclass(frozen=True)
class Plant:
    """A change of one file: `was`, which must be there exactly once, is replaced by `becomes`."""

    file: str
    was: str
    becomes: str

    def applied_to(self, text: str) -> str:
        """The changed text. Raises ValueError if the text does not have the lines that the fault replaces."""
        found = text.count(self.was)
        if found != 1:
            raise ValueError(f"{self.file} holds {self.was!r} {found} times, not once: the source has changed")
        return text.replace(self.was, self.becomes)


@dataclass(frozen=True)
class Fault:
    """One mistake. `harm`: what goes wrong for a user; `tests`: arguments of pytest, the tests of its room; `control`:
    arguments with which all must pass without a fault; `plant`: None where the arguments alone bring the fault in."""

    name: str
    room: str
    harm: str
    tests: tuple[str, ...]
    control: tuple[str, ...]
    plant: Plant | None


def close_tests(fault: Fault) -> tuple[str, ...]:
    """The test files among the fault's tests that import the changed file: they find the fault most often."""
    if fault.plant is None:
        return ()
    module = re.compile(rf"\b{re.escape(fault.plant.file.removesuffix('.py').replace('/', '.'))}\b")
    files = [path for name in fault.tests for path in sorted((ROOT / name).rglob("test_*.py"))]
    return tuple(str(path.relative_to(ROOT)) for path in files if module.search(path.read_text(encoding="utf-8")))


def source_faults() -> list[Fault]:
    """The faults that are planted in the source, room by room."""
    return [fault for path in sorted(LISTS.glob("*.toml")) for fault in _listed(path)]


def _listed(path: Path) -> list[Fault]:
    """The faults of one list. It names the tests of its room, and for some files of the source more specific tests."""
    listed = tomllib.loads(path.read_text(encoding="utf-8"))
    found = []
    for entry in listed["fault"]:
        tests = tuple(entry.get("tests") or listed.get("tests_of", {}).get(entry["file"]) or listed["tests"])
        plant = Plant(entry["file"], entry["was"], entry["becomes"])
        found.append(Fault(entry["name"], path.stem, entry["harm"], tests, tests, plant))
    return found


def backend_faults() -> list[Fault]:
    """The faulty backends, on which the whole conformance suite runs as on any backend."""
    from meta_tests import backends

    suite = ("ferrum/conformance", "--backend")
    return [
        Fault(each.name, "backends", each.sentence.partition("\n")[0], (*suite, each.spelling), (*suite, "numpy"), None)
        for each in backends.faults()
    ]


def all_faults() -> list[Fault]:
    return [*source_faults(), *backend_faults()]
