"""OPS-53, -54: object files are code, so only private ones are run; only files that this package made are removed."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ferrum.backends.numba_kernels.loading.cache import MARK, KernelFiles
from ferrum.backends.numba_kernels.loading.library import Library
from ferrum.backends.numba_kernels.loading.objects import ObjectCode
from tests.backends.test_kernel_cache import COMPILED, LOADED, ONE_KERNEL, run

NAMES = [f"{number:016x}" for number in range(10)]
OURS = "f" * 16
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture(params=[0o022, 0o000, 0o002, 0o077])
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    older = os.umask(request.param)
    yield request.param
    os.umask(older)


@pytest.mark.clause("OPS-53")
def test_what_is_made_is_private_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    files = KernelFiles(tmp_path / "above" / "cache" / "kernels" / OURS)
    files.write("a.o", b"code")
    assert files.read("a.o") == b"code" and files.has("a.o") and not files.has("b.o")
    made = [tmp_path / "above", *(tmp_path / "above").rglob("*")]
    assert len(made) == 6 and not any(stat.S_IMODE(path.lstat().st_mode) & 0o077 for path in made)
    assert KernelFiles(tmp_path / "above" / "cache" / "kernels" / OURS).read("a.o") == b"code"


def share(path: Path) -> None:
    path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o002)


def share_with_group(path: Path) -> None:
    path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o020)


def give(path: Path) -> None:
    os.chown(path, 65534, 65534)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


WAYS = [share, share_with_group, link, pytest.param(give, marks=needs_root)]


@pytest.mark.clause("OPS-53")
@pytest.mark.parametrize("foreign", WAYS)
@pytest.mark.parametrize("place", ["kernels", f"kernels/{OURS}", f"kernels/{OURS}/a.o"])
def test_a_file_that_another_user_could_have_written_is_not_read(place: str, foreign, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "kernels" / OURS
    KernelFiles(folder).write("a.o", b"code")
    foreign(tmp_path / place)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    files = KernelFiles(folder)
    assert files.read("a.o") is None
    if place.endswith(".o"):
        files.write("a.o", b"new")  # replaces a file of any owner
        assert files.read("a.o") == b"new"
    else:
        assert files.refusal is not None and not files.kept
        files.write("b.o", b"new")
        assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.clause("OPS-53")
def test_a_folder_that_was_checked_stays_the_one_that_is_used(tmp_path: Path) -> None:
    """A user who can write to a parent folder replaces the folder."""
    folder = tmp_path / "kernels" / OURS
    files = KernelFiles(folder)
    files.write("a.o", b"code")
    (tmp_path / "kernels").rename(tmp_path / "moved")
    KernelFiles(folder).write("a.o", b"evil")
    assert files.read("a.o") == b"code"


@pytest.mark.clause("OPS-53")
def test_code_of_another_name_is_not_run(tmp_path: Path) -> None:
    files = KernelFiles(tmp_path / "kernels" / OURS)
    files.write("a.o", b"code")
    for copy in ("b.o", "a.o.o", "A.o"):
        (tmp_path / "kernels" / OURS / copy).write_bytes((tmp_path / "kernels" / OURS / "a.o").read_bytes())
        assert files.read(copy) is None
    for odd in ("fifo.o", "folder.o", "link.o"):
        path = tmp_path / "kernels" / OURS / odd
        os.mkfifo(path) if odd == "fifo.o" else path.mkdir() if odd == "folder.o" else path.symlink_to("a.o")
        assert files.read(odd) is None


@pytest.mark.clause("OPS-53")
@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"no_such_symbol\n", b"\xff\xfe\n\x7fELF", b"cut", b"symbol\nnot an object file", b"\n" * 100],
    ids=["empty", "no symbol", "no code", "not text", "one line", "no object", "lines"],
)
def test_content_that_is_no_object_file_is_compiled_anew(content: bytes, tmp_path: Path) -> None:
    files = KernelFiles(tmp_path / "kernels" / OURS)
    files.write("elementwise.gated.o", content)
    assert Library(files).address("elementwise.gated")
    kept = files.read("elementwise.gated.o")
    assert kept is not None and ObjectCode.from_bytes(kept) is not None
    unknown = ObjectCode.from_bytes(b"unknown" + kept[kept.index(b"\n") :])
    assert unknown is not None
    files.write("elementwise.gated.o", unknown.to_bytes())  # a symbol that the object does not have
    assert Library(files).address("elementwise.gated")
    again = files.read("elementwise.gated.o")
    assert again is not None and not again.startswith(b"unknown")


@pytest.mark.clause("OPS-54")
def test_the_newest_directories_stay_and_always_the_current_one(tmp_path: Path) -> None:
    for hours in (-1, 1):  # of the others; a clock that was ahead makes them newer than ours
        kernels = tmp_path / str(hours) / "kernels"
        for number, name in enumerate(NAMES):
            KernelFiles(kernels / name).write("a.o", b"code")
            when = time.time() + 3600 * hours + number
            os.utime(kernels / name, (when, when))
        for _ in range(2):
            files = KernelFiles(kernels / OURS)
            files.write("b.o", b"code")
            assert sorted(path.name for path in kernels.iterdir()) == [*NAMES[-2:], OURS]
            assert files.read("b.o") == b"code"


@pytest.mark.clause("OPS-54")
def test_nothing_is_removed_that_was_not_made_here(tmp_path: Path) -> None:
    kernels = tmp_path / "kernels"
    for name in ["my_kernel_1", *NAMES[:4]]:  # files of the user, even under names like ours
        (kernels / name).mkdir(parents=True)
        (kernels / name / "saxpy.o").write_bytes(b"mine")
    (kernels / NAMES[4]).write_text("a file")
    for name in NAMES[5:8]:  # our folders, with a file of the user in them
        KernelFiles(kernels / name).write("a.o", b"code")
        (kernels / name / "notes.txt").write_text("mine")
    (kernels / "link").symlink_to(tmp_path)
    (kernels / NAMES[8]).symlink_to(NAMES[5])
    (kernels / NAMES[0] / MARK).mkdir()  # our mark is a file
    for path in kernels.iterdir():
        if not path.is_symlink():
            os.utime(path, (1000, 1000))
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for name in ("e" * 16, "d" * 16, "c" * 16, OURS):
        KernelFiles(kernels / name)
    ours = {f"{kernels}/{name}{inner}" for name in ("e" * 16, "d" * 16, "c" * 16, OURS) for inner in ("", f"/{MARK}")}
    assert sorted({str(path) for path in tmp_path.rglob("*")} - ours) == before


@pytest.mark.clause("OPS-53")
def test_a_start_with_a_foreign_cache_compiles_and_runs_nothing_of_it(tmp_path: Path) -> None:
    assert run(ONE_KERNEL, tmp_path) == COMPILED
    assert run(ONE_KERNEL, tmp_path) == LOADED
    for path in tmp_path.rglob("*.o"):
        path.chmod(0o666)
    assert run(ONE_KERNEL, tmp_path) == COMPILED  # and replaces what it did not trust
    assert run(ONE_KERNEL, tmp_path) == LOADED
    (tmp_path / "kernels").chmod(0o777)
    assert "not kept: " in run(ONE_KERNEL, tmp_path)


@pytest.mark.clause("OPS-53", "OPS-44")
def test_a_cache_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "kernels" / OURS
    KernelFiles(folder).write("a.o", b"code")

    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.utime", read_only)
    before = len(os.listdir("/dev/fd"))
    files = KernelFiles(folder)
    assert files.read("a.o") == b"code" and not files.kept and "Read-only" in str(files.refusal)
    files.write("b.o", b"never")
    assert files.read("b.o") is None
    assert len(os.listdir("/dev/fd")) == before + 1
