"""OPS-58: the default number of threads."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.backends.numba_kernels.launching import thread_count
from ferrum.backends.numba_kernels.launching.launch import Launcher
from ferrum.backends.numba_kernels.launching.thread_count import default_threads

MACHINE = 64


def threads(root: Path, files: dict[str, str], machine: int = MACHINE) -> int:
    """The default number of threads on a machine with this number of processors and these files of the system."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with patch.object(thread_count, "usable_processors", lambda: machine), patch("sys.platform", "linux"):
        return default_threads(root)


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/cpu"
GROUP = "proc/self/cgroup"


@pytest.mark.clause("OPS-58")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({GROUP: "0::/\n", f"{V2}/cpu.max": "200000 100000\n"}, 2),
        ({GROUP: "0::/\n", f"{V2}/cpu.max": "max 100000\n"}, 64),
        ({GROUP: "0::/\n", f"{V2}/cpu.max": "150000 100000\n"}, 2),
        ({GROUP: "0::/\n", f"{V2}/cpu.max": "1000 100000\n"}, 1),
        ({GROUP: "0::/\n", f"{V2}/cpu.max": "6400000 50000\n"}, 64),
        ({GROUP: "0::/a/b\n", f"{V2}/a/b/cpu.max": "max 100000\n", f"{V2}/a/cpu.max": "300000 100000\n"}, 3),
        ({GROUP: "0::/a/b\n", f"{V2}/a/b/cpu.max": "100000 100000\n", f"{V2}/a/cpu.max": "300000 100000\n"}, 1),
        ({GROUP: "0::/docker/outside\n", f"{V2}/cpu.max": "400000 100000\n"}, 4),
        ({GROUP: "0::/../other\n", f"{V2}/cpu.max": "400000 100000\n"}, 64),
        ({GROUP: "4:cpu,cpuacct:/x\n0::/\n", f"{V1}/x/cpu.cfs_quota_us": "50000\n",
          f"{V1}/x/cpu.cfs_period_us": "25000"}, 2),
        ({GROUP: "4:cpu:/\n", f"{V1}/cpu.cfs_quota_us": "-1\n", f"{V1}/cpu.cfs_period_us": "100000\n"}, 64),
        ({GROUP: "4:cpuset:/\n", f"{V1}/cpu.cfs_quota_us": "100000\n", f"{V1}/cpu.cfs_period_us": "100000\n"}, 64),
        ({GROUP: "0::/\n", f"{V2}/cpu.max": "nonsense"}, 64),
        ({GROUP: "0::/\n", f"{V2}/cpu.max": "100000 0\n"}, 64),
        ({GROUP: "garbage\n::\n", f"{V2}/cpu.max": ""}, 64),
    ],
)  # fmt: skip
def test_no_more_threads_than_the_share_of_time(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert threads(tmp_path, files) == expected
    assert threads(tmp_path, files, machine=1) == 1


@pytest.mark.clause("OPS-58")
@given(quota=st.integers(1000, 10**8), period=st.integers(1000, 10**6), machine=st.integers(1, 256))
def test_shares_are_rounded_up(tmp_path_factory: pytest.TempPathFactory, quota: int, period: int, machine: int) -> None:
    files = {GROUP: "0::/\n", f"{V2}/cpu.max": f"{quota} {period}\n"}
    found = threads(tmp_path_factory.getbasetemp(), files, machine)
    assert found == machine or (found < machine and (found - 1) * period < quota <= found * period)


@pytest.mark.clause("OPS-58")
def test_a_number_that_is_given_holds(tmp_path: Path) -> None:
    with patch("ferrum.backends.numba_kernels.launching.launch.default_threads", lambda: 1):
        assert (Launcher(None).threads, Launcher(2).threads) == (1, 2)
