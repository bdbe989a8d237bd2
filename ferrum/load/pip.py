"""A wheel from the package index, downloaded by the user's own pip.

Owns: the process that runs pip, and the message if it fails. Refuses to know: what the wheel is for.
Specs: LOAD-66 to LOAD-68. Next: `ferrum.load.pip_child`.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from ferrum.children import clean_environment, python_command
from ferrum.errors import NotFound
from ferrum.files import reason
from ferrum.load.pip_child import NO_PIP

POLL_SECONDS = 0.2
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""A full disk, a quota, a limit on the size of files."""

_ERROR_NUMBER = re.compile(r"(?:\[Errno |OSError\()(\d{1,5})")
"""The number in the two forms in which an OSError is printed."""
_CHILD = Path(__file__).with_name("pip_child.py")


def download_wheel(requirement: str, folder: Path, look: Callable[[], None]) -> Path:
    """Downloads one wheel into a folder with this Python's pip, so that the user's index, proxy and certificates apply.
    Calls `look` from time to time.

    Raises NotFound if pip is missing or fails, with its reason; OSError if there is no room for the wheel.
    """
    options = ["--disable-pip-version-check", "--no-input", "--quiet"]
    download = ["download", "--no-deps", "--only-binary=:all:", requirement, "--dest", str(folder)]
    code, output = _run([*python_command(str(_CHILD)), *options, *download], folder, look)
    if code == NO_PIP:
        raise NotFound(f"{requirement} is fetched with pip, which this Python lacks: install pip, or that package")
    wheels = sorted(folder.glob("*.whl"))
    if code or not wheels:
        message = _last_error(output)
        full = NO_SPACE.intersection(map(int, _ERROR_NUMBER.findall(message)))
        if full:
            number = full.pop()
            raise OSError(number, os.strerror(number))
        raise NotFound(f"pip could not download {requirement}: {message}")
    return wheels[0]


def _run(command: list[str], folder: Path, look: Callable[[], None]) -> tuple[int, str]:
    """-> the exit code and all output. The output is kept in memory, because the disk may be full."""
    # pip downloads into its temporary directory: this one can be watched and removed
    environment = {**clean_environment(), "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    ends_when_closed, kept_open = os.pipe()
    try:
        process = _start(command, environment, ends_when_closed)
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=POLL_SECONDS)
                    return process.returncode, output.decode(errors="replace")
                except subprocess.TimeoutExpired:
                    look()
        finally:
            process.kill()  # has no effect on a process that has ended
            process.wait()
    finally:
        os.close(ends_when_closed)
        os.close(kept_open)


def _start(command: list[str], environment: dict[str, str], stdin: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    except OSError as error:
        raise NotFound(f"pip cannot be started: {reason(error)}") from None


def _last_error(output: str) -> str:
    """pip's last error. "ERROR: Exception:" stands before a traceback, whose last line is the reason."""
    lines = [line for line in output.splitlines() if line.strip()] or ["it gave no reason"]
    errors = [line for line in lines if line.startswith("ERROR") and not line.endswith(":")]
    return (errors or lines)[-1].removeprefix("ERROR: ")
