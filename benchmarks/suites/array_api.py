"""Array libraries of others as backends: the example package's on array-api-strict, which has nothing but the standard.

Owns: running this project's suite on a backend by name, and reading how its properties ended.
Refuses to know: what a property says. Specs: SUITE-15. Next: `benchmarks/suites/pytorch.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path

from .fetch import ARRAY_API, Source
from .verdict import Verdict

SOURCE = Source(ARRAY_API, "this project's suite on a backend made of it")
EXAMPLE = Path(__file__).parents[2] / "examples" / "ferrum-array-api"


def run(data: Path) -> Iterator[Verdict]:
    return properties("ferrum_array_api:ArrayApiOps")


def properties(backend: str) -> Iterator[Verdict]:
    """Each property of `ferrum.conformance` on one backend, which may be one of the example package."""
    plugin = ["-p", "ferrum.conformance.plugin", "-p", "no:cacheprovider"]
    paths = [str(EXAMPLE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--pyargs", "ferrum.conformance", *plugin]
        subprocess.run(
            [*command, "--backend", backend, f"--junitxml={report}"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        yield from ended(report.read_text(encoding="utf-8"))


def ended(report: str) -> Iterator[Verdict]:
    """How each test ended, from pytest's report: passed is equal, and skipped is refused."""
    for case in xml.etree.ElementTree.fromstring(report).iter("testcase"):
        skipped, failed = case.find("skipped"), case.find("failure")
        failed = case.find("error") if failed is None else failed
        name = f"{case.get('classname')}::{case.get('name')}"
        if failed is not None:
            yield Verdict(name, "different", failed.get("message", ""))
        elif skipped is not None:
            yield Verdict(name, "refused", skipped.get("message", ""))
        else:
            yield Verdict(name, "equal")
