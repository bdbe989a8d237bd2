"""HOUSE-22: servers that tests start end with the test run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.house.source import ROOT
from tests.processes import end_with_the_tests

TESTS = """
import subprocess, sys
from tests.processes import end_with_process, end_with_the_tests
command = ["sleep", "600"]
child = subprocess.Popen(command, stdout=2, preexec_fn=end_with_the_tests)
starter = [sys.executable, "-c", "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=2).pid)"]
orphan = int(subprocess.run(starter, stdout=subprocess.PIPE, check=True).stdout)
end_with_process(orphan, int(sys.argv[1]))
print(child.pid, orphan, flush=True)
sys.stdin.read()
"""
PATIENCE_S = 60.0


def is_running(process_id: int) -> bool:
    """True if the process has not ended. One that has ended, but whose parent has not read its exit code, counts as
    ended."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.clause("HOUSE-22")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of the end of its parent")
def test_a_killed_test_run_leaves_no_process() -> None:
    with subprocess.Popen(["sleep", "600"], preexec_fn=end_with_the_tests) as watched:
        tests = subprocess.Popen(
            [sys.executable, "-c", TESTS, str(watched.pid)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
            preexec_fn=end_with_the_tests,
        )  # fmt: skip
        assert tests.stdout is not None
        child, orphan = map(int, tests.stdout.readline().split())
        assert is_running(child) and is_running(orphan)
        watched.kill()
        tests.kill()
        tests.communicate()
    deadline = time.monotonic() + PATIENCE_S
    while (is_running(child) or is_running(orphan)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child) and not is_running(orphan)
