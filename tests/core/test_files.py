"""FILES-01 to FILES-04: files are read with care, written whole or not at all, and nothing foreign is trusted."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ferrum.errors import FerrumError, InvalidFormat, NotFound
from ferrum.files import (
    make_private,
    open_private,
    open_regular,
    read_bytes,
    read_private,
    read_text,
    replacing,
    require_private,
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    number = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield number
    os.close(number)


@pytest.fixture
def mask() -> Iterator[None]:
    """A umask of 0, which removes no permission."""
    older = os.umask(0)
    yield
    os.umask(older)


def no_files(folder: Path) -> dict[str, type[FerrumError]]:
    """Paths that are no regular files, by name, and the error that reading them raises."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "endless").symlink_to("/dev/zero")
    (folder / "nothing").symlink_to("/dev/null")
    (folder / "nowhere").symlink_to("absent")
    (folder / "circle").symlink_to("circle")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "socket"))
    names = ("pipe", "folder", "endless", "nothing", "circle", "socket", "a\0b", "x" * 300)
    return {**dict.fromkeys(names, InvalidFormat), "nowhere": NotFound, "absent": NotFound, "pipe/x": NotFound}


@pytest.mark.clause("FILES-01")
def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    for name, kind in no_files(tmp_path).items():
        for read in (open_regular, lambda path: read_bytes(path, 100), lambda path: read_text(path, 100)):
            with pytest.raises(kind):
                read(tmp_path / name)
    assert time.monotonic() - began < 5  # it did not wait for a writer


@pytest.mark.clause("FILES-01")
def test_sizes_and_text(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"caf\xc3\xa9")
    assert read_bytes(path, 5) == b"caf\xc3\xa9" and read_text(path, 5) == "café"
    with pytest.raises(InvalidFormat, match="larger than 4 bytes"):
        read_bytes(path, 4)
    path.write_bytes(b"caf\xe9")
    with pytest.raises(InvalidFormat, match="not UTF-8"):
        read_text(path, 5)
    with pytest.raises(InvalidFormat, match="larger"):  # says that it is empty
        read_bytes("/proc/self/maps", 10)


@pytest.mark.clause("FILES-02")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_a_block_that_raises_leaves_everything_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    for older in (None, b"old"):
        path = tmp_path / "file"
        if older is not None:
            path.write_bytes(older)
        with pytest.raises(error), replacing(path) as file:
            file.write(b"ne")
            raise error
        assert [each.read_bytes() for each in tmp_path.iterdir()] == ([] if older is None else [older])


@pytest.mark.clause("FILES-02")
def test_modes_and_links(tmp_path: Path, mask: None) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    with replacing(path) as file:
        file.write(b"1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    path.chmod(0o640)
    link.symlink_to("file")
    with replacing(link) as file:
        file.write(b"2")
    assert link.is_symlink() and path.read_bytes() == b"2" and stat.S_IMODE(path.stat().st_mode) == 0o640
    with replacing(tmp_path / ("n" * 255)) as file:  # the longest name there is
        file.write(b"3")
    for odd in ("pipe", "folder", "nothing", "socket"):
        no_files(tmp_path) if odd == "pipe" else None
        with pytest.raises(OSError, match="not a regular file"), replacing(tmp_path / odd):
            raise AssertionError("opened")


WRITER = """
import sys, time
from ferrum.files import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"x" * 1000000)
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.clause("FILES-03")
def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    foreign = {".ferrum-0123456789abcde.part": b"a", ".ferrum-0123456789abcdeg.part": b"b", "x.part": b"c"}
    for name, content in foreign.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / ".ferrum-00000000000000aa.part").mkdir()  # our name, not our file

    def unfinished() -> int:
        return sum(each.is_file() for each in tmp_path.iterdir()) - len(foreign) - 1

    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == b"writing\n"
    writers[0].send_signal(signal.SIGKILL)
    writers[0].wait()
    assert unfinished() == 2 and path.read_bytes() == b"old"
    with replacing(path) as file:
        file.write(b"new")
    assert unfinished() == 1  # of the one that lives
    writers[1].send_signal(signal.SIGKILL)
    writers[1].wait()
    with replacing(path) as file:
        file.write(b"newer")
    assert unfinished() == 0 and path.read_bytes() == b"newer"
    assert {name: (tmp_path / name).read_bytes() for name in foreign} == foreign
    assert (tmp_path / ".ferrum-00000000000000aa.part").is_dir()
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()


@pytest.mark.clause("FILES-04")
def test_what_others_could_have_written_is_not_private(tmp_path: Path, folder: int, mask: None) -> None:
    make_private(tmp_path / "a" / "b")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o700, 0o700]
    os.close(open_private("new", folder, make=True))
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    with pytest.raises(FileNotFoundError):
        open_private("absent", folder)
    for mode in (0o720, 0o702, 0o777, 0o1777):
        (tmp_path / "new").chmod(mode)
        with pytest.raises(PermissionError, match="others can write"):
            open_private("new", folder, make=True)
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(PermissionError, match="link"):
        open_private("link", folder, make=True)
    (tmp_path / "file").write_bytes(b"code")
    (tmp_path / "file").chmod(0o644)
    assert read_private("file", folder) == b"code"
    (tmp_path / "alias").symlink_to("file")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("alias", "pipe"):
        with pytest.raises(OSError):
            read_private(name, folder)
    (tmp_path / "file").chmod(0o664)
    with pytest.raises(PermissionError, match="others can write"):
        read_private("file", folder)
    if os.geteuid() == 0:
        (tmp_path / "file").chmod(0o600)
        for name in ("file", "a"):
            os.chown(tmp_path / name, 65534, 65534)
        with pytest.raises(PermissionError, match="another user"):
            read_private("file", folder)
        with pytest.raises(PermissionError, match="another user"):
            open_private("a", folder)


@pytest.mark.clause("FILES-04")
@pytest.mark.parametrize(
    ("owner", "mode", "private"),
    [
        ("own", 0o600, True), ("own", 0o644, True), ("own", 0o664, False), ("own", 0o602, False), (0, 0o644, True),
        (0, 0o646, False), ("other", 0o600, False), ("other", 0o644, False),
    ],
)  # fmt: skip
def test_whose_a_file_is(owner: str | int, mode: int, private: bool) -> None:
    user = {"own": os.geteuid(), "other": os.geteuid() + 77}.get(str(owner), owner)
    status = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, user, 0, 0, 0, 0, 0))
    if private:
        require_private("file", status)
    else:
        with pytest.raises(PermissionError):
            require_private("file", status)
