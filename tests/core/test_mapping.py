"""FILES-07: unused pages of a mapped file take no memory, and keep their content."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from ferrum.mapping import give_back

PAGE = mmap.PAGESIZE
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at the files of Linux about memory")


def resident(path: Path) -> int:
    """Bytes of a mapped file that this process has in memory."""
    found, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if " " in name:
            ours = line.endswith(str(path))
        elif ours and name == "Rss":
            found += int(value.split()[0]) * 1024
    return found


@pytest.mark.clause("FILES-07")
@linux
@pytest.mark.parametrize(("start", "count", "kept"), [(0, 40, 0), (1, 40, 1), (10, 20, 20), (0, 0, 40)])
def test_whole_pages_inside_of_an_array_are_given_back(start: int, count: int, kept: int, tmp_path: Path) -> None:
    """`start` in quarters of a page, so that both ends may lie inside of one; `kept` in pages."""
    path = tmp_path / "data"
    content = os.urandom(40 * PAGE)
    path.write_bytes(content)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    whole = np.frombuffer(memoryview(mapped), np.uint8)
    offset = start * PAGE // 4 if start == 1 else start * PAGE
    part = whole[offset : offset + count * PAGE].view(np.float32)[:]
    assert bytes(whole) == content and resident(path) == 40 * PAGE
    give_back(part)
    assert resident(path) == kept * PAGE
    assert bytes(whole) == content


@pytest.mark.clause("FILES-07")
def test_other_memory_stays_as_it_is() -> None:
    private = np.arange(3 * PAGE, dtype=np.uint8)
    anonymous = np.frombuffer(mmap.mmap(-1, 3 * PAGE), np.uint8)
    for memory in (private, private[PAGE:], np.zeros(0), anonymous[:0]):
        before = memory.copy()
        give_back(memory)
        assert np.array_equal(memory, before)


@pytest.mark.clause("FILES-07")
@pytest.mark.parametrize("kind", ["copy on write", "private", "shared"])
def test_memory_that_could_have_been_written_to_keeps_what_was_written(kind: str, tmp_path: Path) -> None:
    """The file, if there is one, holds something else."""
    path = tmp_path / "data"
    path.write_bytes(bytes(3 * PAGE))
    with path.open("rb") as file:
        if kind == "copy on write":
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        else:
            flags = mmap.MAP_ANONYMOUS | (mmap.MAP_PRIVATE if kind == "private" else mmap.MAP_SHARED)
            mapped = mmap.mmap(-1, 3 * PAGE, flags=flags)
    written = os.urandom(3 * PAGE)
    mapped[:] = written
    give_back(np.frombuffer(memoryview(mapped).toreadonly(), np.uint8))
    assert mapped[:] == written
