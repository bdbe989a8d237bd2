"""The same targets, with cases chosen by the lines of code that they reach: the fuzzer's bytes are the decisions.

Owns: atheris, where it is installed, and the bytes that it starts from. Refuses to know: what a finding is: the runner
replays what was found.
Source: https://github.com/google/atheris. Next: `tests.fuzz.mutate`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

from tests.fuzz.runner import HANGS, ROOT, Tally, fuzz
from tests.fuzz.target import decisions, find_target, seed_text

LONGEST = 512
"""Bytes of decisions."""
FIRST = 300
"""Random decisions that it starts from: from nothing it takes long to find the second input."""


def guided(target: str, seconds: float) -> Tally:
    """Lets atheris look for so many seconds, then replays what it found under the runner's eyes. Raises ImportError
    where it is not installed."""
    if importlib.util.find_spec("atheris") is None:
        raise ImportError("atheris is not installed: pip install atheris, or leave --atheris away")
    with tempfile.TemporaryDirectory(prefix="ferrum-fuzz-") as name:
        folder, random = Path(name), Random(target)
        for part in ("corpus", "scratch", "found"):
            (folder / part).mkdir()
        for number in range(FIRST):
            (folder / "corpus" / str(number)).write_bytes(random.randbytes(LONGEST))
        options = [f"-artifact_prefix={folder}/found/", f"-max_total_time={seconds:.0f}", f"-timeout={HANGS:.0f}"]
        options += [
            f"-max_len={LONGEST}",
            "-len_control=0",
            "-rss_limit_mb=2048",
            "-verbosity=0",
            "-print_final_stats=1",
        ]
        command = [sys.executable, "-P", "-m", "tests.fuzz.guided", target, name, f"{folder}/corpus", *options]
        known = {**os.environ, "PYTHONPATH": str(ROOT), "RUST_BACKTRACE": "0"}
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", env=known, check=False)
        counted = [line.split()[-1] for line in ran.stderr.splitlines() if "number_of_executed_units" in line]
        tally = Tally(target, cases=int(counted[0]) if counted else 0)
        for path in sorted((folder / "found").iterdir()):
            tally.findings.update(fuzz(target, seed_text(path.read_bytes()), cases=1).findings)
    if ran.returncode and not tally.findings:
        tally.found("0", f"atheris ended with code {ran.returncode}", ran.stderr[-4000:])
    return tally


def _look(name: str, folder: Path, options: list[str]) -> None:
    """Runs until the time is over; libFuzzer itself ends the process. What is found first with each signature is kept
    in a file, so that the search can go on."""
    import atheris

    with atheris.instrument_imports(include=["ferrum"]):
        from tests.fuzz.child import is_refusal, signature

        target = find_target(name)(folder / "scratch")

    def one(data: bytes) -> None:
        try:
            target.run(target.make(decisions(name, data)))
        except BaseException as error:
            path = folder / "found" / signature(error).replace("/", "-")
            if not is_refusal(error) and not path.exists():
                path.write_bytes(data)

    atheris.Setup([name, *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    _look(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
