"""The number of threads that a process can keep busy: its processors, limited by its share of their time.

Owns: reading both from the system. A container with a share of two processors sees all processors of the machine, but
more than two threads would only wait for each other. Refuses to know: what threads do.
Specs: OPS-58. Sources: Linux's documentation of control groups: `cpu.max` (version 2), `cpu.cfs_quota_us` (version 1).
Next: `ferrum.backends.numba_kernels.launching.team`.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def usable_processors() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def default_threads(root: Path = ROOT) -> int:
    """One thread for each usable processor, but no more than the process's share of processor time. `root` is the
    folder of the system's files."""
    processors = usable_processors()
    shares = _shares(root) if sys.platform == "linux" else iter(())
    return max(1, math.ceil(min([processors, *shares])))


def _shares(root: Path) -> Iterator[float]:
    """Every limit on the time of this process, in processors: its control group and each parent group may set one."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if not controllers:
            for folder in _folders(root / "sys/fs/cgroup", place):
                quota, _, period = _text(folder / "cpu.max").partition(" ")
                yield from _share(quota, period)
        elif "cpu" in controllers.split(","):
            for mount in ("cpu", "cpu,cpuacct"):
                for folder in _folders(root / "sys/fs/cgroup" / mount, place):
                    yield from _share(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _folders(mount: Path, place: str) -> Iterator[Path]:
    """The folders of a control group and of its parents. In a container `place` may be a path of the host; then only
    the topmost folder exists."""
    inside = PurePosixPath(place.lstrip("/"))
    if ".." not in inside.parts:
        yield from (mount / folder for folder in (inside, *inside.parents))


def _share(quota: str, period: str) -> Iterator[float]:
    """The quotient of two numbers of microseconds: the quota in each period. "max" and -1 set no limit."""
    if quota.strip().isdecimal() and period.strip().isdecimal() and int(period) > 0:
        yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):  # missing, or not readable
        return ""
