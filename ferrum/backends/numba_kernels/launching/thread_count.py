"""How many threads are worth while: the processors that this process may run on, and its share of their time.

Owns: reading both from the system. A container with a share of two processors sees all of the machine's, and threads
beyond its share only wait for each other. Refuses to know: what threads do.
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
    """One thread for each usable processor, but no more than keep the process's share of time busy. `root`: where the
    system's files are."""
    processors = usable_processors()
    shares = _shares(root) if sys.platform == "linux" else iter(())
    return max(1, math.ceil(min([processors, *shares])))


def _shares(root: Path) -> Iterator[float]:
    """Every limit on this process's time, in processors: its control group and all that hold it have one each."""
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
    """The group and those that hold it. In a container the place may be a name from outside, of which there is nothing
    here but the last folder."""
    inside = PurePosixPath(place.lstrip("/"))
    if ".." not in inside.parts:
        yield from (mount / folder for folder in (inside, *inside.parents))


def _share(quota: str, period: str) -> Iterator[float]:
    """Microseconds of time in each period of so many; "max" and -1 are no limit."""
    if quota.strip().isdecimal() and period.strip().isdecimal() and int(period) > 0:
        yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):  # not there, or not for us to read
        return ""
