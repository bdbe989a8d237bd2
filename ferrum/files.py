"""Files that other programs may change: read with checks, written whole or not at all.

Owns: which files may be read (regular files of a plausible size, opened without waiting), files that get their name
when their content is complete, and folders that only this user can write to. Files that a killed process left behind
are recognised by their name and by a lock that only a living process holds; no other file is ever removed.
Refuses to know: what is in a file.
Specs: FILES. Next: `ferrum.children`.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ferrum.errors import InvalidFormat, NotFound

UNFINISHED = re.compile(r"\.ferrum-[0-9a-f]{16}\.part")
"""Names of files that are being written."""
PIECE = 1 << 20
"""Bytes that are read at a time."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


# ---- reading
def open_regular(path: str | Path, most: int | None = None) -> BinaryIO:
    """Opens a regular file of at most `most` bytes for reading. Raises NotFound if it does not exist, InvalidFormat if
    it is larger, cannot be opened, or is no regular file (a pipe may block, a device may have no end)."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise InvalidFormat(f"{path} cannot be read: {reason(error)}") from None
    status = os.fstat(number)
    if not stat.S_ISREG(status.st_mode) or (most is not None and status.st_size > most):
        os.close(number)
        what = f"is larger than {most} bytes" if stat.S_ISREG(status.st_mode) else "is not a regular file"
        raise InvalidFormat(f"{path} {what}")
    return open(number, "rb")


def read_bytes(path: str | Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises as `open_regular`."""
    content = bytearray()
    with open_regular(path, most) as file:
        try:
            while (piece := file.read(PIECE)) and len(content) <= most:
                content += piece
        except OSError as error:
            raise InvalidFormat(f"{path} cannot be read: {reason(error)}") from None
    if len(content) > most:  # the file has grown since, or its size was not known
        raise InvalidFormat(f"{path} is larger than {most} bytes")
    return bytes(content)


def read_text(path: str | Path, most: int) -> str:
    """As `read_bytes`, decoded as UTF-8. Raises InvalidFormat if it is not UTF-8."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidFormat(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def reason(error: Exception) -> str:
    """Why a file operation failed, without the name of the file."""
    return getattr(error, "strerror", None) or str(error)


# ---- writing
@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write to. When the block ends, its content is on the disk and it replaces the file at `path`; if the
    block raises, nothing changes. If `path` is a link, the file it leads to is replaced. The mode of the old file is
    kept. Raises OSError; FileExistsError if the name belongs to something other than a regular file."""
    target = Path(os.path.realpath(path))
    older = target.stat() if os.path.lexists(target) else None
    if older is not None and not stat.S_ISREG(older.st_mode):
        raise FileExistsError(f"{path} is not a regular file")
    if older is not None and not os.access(target, os.W_OK):
        raise PermissionError(f"{path} may not be written to")
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_unfinished(folder)
        with _taking_the_place(target.name, folder, 0o666) as file:
            if older is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(older.st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
    finally:
        os.close(folder)


def write_private(name: str, folder: int, content: bytes) -> None:
    """Writes a file for `read_private`; it replaces a file or link of the same name. It is not flushed to the disk: the
    reader must check that it is whole. Raises OSError."""
    with _taking_the_place(name, folder, 0o600) as file:
        file.write(content)


@contextmanager
def _taking_the_place(name: str, folder: int, mode: int) -> Iterator[BinaryIO]:
    """A new file in a folder that gets the name when the block ends, or is removed if it raises."""
    unfinished, file = _unfinished(folder, mode)
    try:
        with file:
            yield file
            file.flush()
            os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished, dir_fd=folder)
        raise


def remove_unfinished(folder: int) -> None:
    """Removes the unfinished files of killed processes from a folder: names as in UNFINISHED, and not locked."""
    with suppress(OSError):
        for name in filter(UNFINISHED.fullmatch, os.listdir(folder)):
            with suppress(OSError):
                number = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
                try:
                    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the writing process lives
                    os.unlink(name, dir_fd=folder)
                finally:
                    os.close(number)


def _unfinished(folder: int, mode: int) -> tuple[str, BinaryIO]:
    """A new locked file in a folder, and its name."""
    while True:
        name = f".ferrum-{os.urandom(8).hex()}.part"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        file = open(os.open(name, flags, mode, dir_fd=folder), "wb")  # noqa: SIM115 (the caller closes it)
        with suppress(OSError):  # without locks, no process can lock the file to remove it
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return name, file
        file.close()  # another process removed it as unfinished before it was locked


# ---- folders that only this user can write to
def make_private(path: Path) -> None:
    """Makes a folder and its missing parents, with access for this user only. Raises OSError."""
    if not path.is_dir():
        if path.parent != path:
            make_private(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)


def open_private(name: str, within: int, *, make: bool = False) -> int:
    """The descriptor of the folder `name` in the folder `within`; with `make`, a missing one is made. Raises OSError:
    PermissionError if it is a link, belongs to another user, or other users can write to it."""
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=within)
    status = os.stat(name, dir_fd=within, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        raise PermissionError(f"{name} is a link")
    number = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        require_private(name, os.fstat(number))
    except PermissionError:
        os.close(number)
        raise
    return number


def read_private(name: str, folder: int) -> bytes:
    """The content of a file that only this user or root can write to. Raises OSError."""
    number = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with open(number, "rb") as file:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(f"{name} is not a regular file")
        require_private(name, status)
        return file.read()


def require_private(name: str, status: os.stat_result) -> None:
    """Raises PermissionError if a file or folder belongs to a user other than this one and root, or if other users can
    write to it."""
    if status.st_uid not in (os.geteuid(), 0):  # root may write to every file
        raise PermissionError(f"{name} belongs to another user")
    if status.st_mode & _OTHERS_WRITE:
        raise PermissionError(f"others can write to {name}: remove it, or chmod go-w")
